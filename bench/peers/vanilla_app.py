"""The chat that Streamlit's own tutorial teaches: what a person writes who streams an OpenAI answer the documented way.

The app is measured against it. Do not make it better: then the ratios would compare with something that nobody has.
"""

import streamlit as st
from openai import OpenAI

st.title("Chat")
client = OpenAI()
history = st.session_state.setdefault("messages", [])

for message in history:
    with st.chat_message(message["role"]):
        st.markdown(message["content"])

if question := st.chat_input("What is up?"):
    history.append({"role": "user", "content": question})
    with st.chat_message("user"):
        st.markdown(question)
    with st.chat_message("assistant"):
        answer = st.write_stream(client.chat.completions.create(model="gpt-4", messages=history, stream=True))
    history.append({"role": "assistant", "content": answer})
