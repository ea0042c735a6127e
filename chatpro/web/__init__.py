"""What the browser meets: gates, parts drawn on several pages, the live answer, headers. The only chatpro code that imports Streamlit."""
