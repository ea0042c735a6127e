"""The doers: one room for each thing a person does. They check who asks, gather, decide with the domain, and act through the store."""
