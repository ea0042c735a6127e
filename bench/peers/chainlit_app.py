"""The chat that Chainlit's documentation teaches: stream an OpenAI answer into a message, with the conversation so far.

The app is measured against it. Do not make it better: then the ratios would compare with something that nobody has.
"""

import chainlit as cl
from openai import AsyncOpenAI

client = AsyncOpenAI()


@cl.on_message
async def answer(_: cl.Message) -> None:
    message = cl.Message(content="")
    async for chunk in await client.chat.completions.create(model="gpt-4", messages=cl.chat_context.to_openai(), stream=True):
        if chunk.choices and (piece := chunk.choices[0].delta.content):
            await message.stream_token(piece)
    await message.send()
