"""A provider with a known pace, as a process of its own: each word it streams says at which nanosecond it was sent.

    python bench/upstream.py PORT

The question sets the pace: "pace words=200 gap_ms=20". Without the stamps nobody could say how long a front end kept a word
back; without the pace the provider's own speed would be part of every figure. Written on bare streams, because it shares the
machine with what is measured: a web framework takes several times the CPU for each word.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

import uvloop

MODELS = ("gpt-4", "gpt-4.1")
PACE = re.compile(r"pace words=(\d+) gap_ms=([\d.]+)")
TOKENS_OF_WORD = 8  # what "@" and nineteen digits are in o200k_base: a meter that compares must find the claim plausible
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n{}\r\n\r\n"


def question(words: int, gap_ms: float) -> str:
    """What a client says to be answered at this pace."""
    return f"pace words={words} gap_ms={gap_ms:g}"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: requests one after another until the client leaves."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if head.startswith("POST "):
                await stream(writer, json.loads(body))
            else:
                offered = json.dumps({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "bench"} for name in MODELS]})
                writer.write((HEAD.format("application/json", f"Content-Length: {len(offered)}") + offered).encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def stream(writer: asyncio.StreamWriter, asked: dict) -> None:
    """The answer as server-sent events. A word that is late does not make the next one late too."""
    words, gap = pace(asked["messages"])
    about = json.dumps({"id": f"chatcmpl-{time.time_ns()}", "object": "chat.completion.chunk", "created": int(time.time()), "model": asked["model"]})[:-1]

    def send(rest: str) -> None:
        event = f"data: {about}, {rest}}}\n\n"
        writer.write(f"{len(event):x}\r\n{event}\r\n".encode())

    writer.write(HEAD.format("text/event-stream", "Transfer-Encoding: chunked").encode())
    send('"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]')
    due = time.perf_counter()
    for _ in range(words):
        send(f'"choices": [{{"index": 0, "delta": {{"content": "@{time.time_ns()} "}}, "finish_reason": null}}]')
        await writer.drain()
        due += gap
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    send('"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]')
    if (asked.get("stream_options") or {}).get("include_usage"):
        spent, read = words * TOKENS_OF_WORD, sum(len(str(message["content"])) for message in asked["messages"]) // 3
        send(f'"choices": [], "usage": {json.dumps({"prompt_tokens": read, "completion_tokens": spent, "total_tokens": read + spent})}')
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def pace(messages: list[dict]) -> tuple[int, float]:
    """Words, and seconds between two of them, as the newest question wants it."""
    for message in reversed(messages):
        if message["role"] == "user" and (found := PACE.search(json.dumps(message["content"]))):
            return int(found[1]), float(found[2]) / 1000
    return 200, 0.02


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
