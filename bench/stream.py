"""What the app adds between a model and a reader, beside Streamlit's tutorial chat, Chainlit's, and no front end at all, in one run.

    .venv/bin/python bench/stream.py [--chats 1,10,50,100] [--rounds 3] [--takes 3] [--long] [--quick] [--peers chatpro,vanilla] [--write]

Many people ask at once; a provider with a known pace answers each with 200 words, 20 ms apart. Measured from outside: how long
until the first word, how long each word was kept back, CPU of the server per 1,000 words, bytes on the wire per word, chats that
failed. --long adds an answer of 4,000 words (what a word costs however long the answer is, what an answer costs however short)
and the memory of an open page. --write puts the tables into bench/README.md.

The app runs as it is delivered: sign-in, consent, store, ledger, saving each second. Each cell has a server of its own with a
new store, and peers take turns cell by cell, so that whatever else the machine does falls on all of them; --takes does all cells
so many times, and what is told is the median, of a ratio that of the ratios. Starts are spread
over a second, every session says one short thing before it counts. A word here is one piece of the stream; its stamp is about
eight of the tokens that the allowance counts, so the answer limit is raised; load-test accounts have two billion tokens a month.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.clients import Bare, Chainlit, Chat, ChatFailed, Page  # noqa: E402
from bench.servers import Peer, Server, profiled, serving  # noqa: E402
from bench.upstream import question  # noqa: E402

WORDS, GAP_MS = 200, 20.0
LONG_WORDS, LONG_GAP_MS = 4_000, 5.0
WARM_WORDS = 5
SPREAD_SECONDS = 1.0
PATIENCE_SECONDS = 90.0  # beyond the pace; a chat that takes longer has failed
PAGES_FIRST, PAGES = 10, 100  # the first ones pay for what is loaded once

UPSTREAM = Peer("upstream", ("{root}/bench/upstream.py", "{port}"), "/v1/models")
APP = Peer(
    "chatpro",
    ("-m", "chatpro", "run"),
    "/readyz",
    settings={
        "PYTHONPATH": "{root}",
        "CHATPRO_DEMO_DIR": "{folder}/demo",
        "CHATPRO_DATA_DIR": "{folder}/var",
        "CHATPRO_PORT": "{port}",
        "CHATPRO_SAMPLE_ACCOUNTS": "200",
        "CHATPRO_SAMPLE_FREELANCERS": "0",
        "CHATPRO_RUNNING_TOTAL": "200",  # so that no chat waits for a place
        "CHATPRO_MODELS": "gpt-4.1",  # the first on the list with room for 4,000 stamped words
        "CHATPRO_ANSWER_TOKENS": "32768",
    },
)
VANILLA = Peer(
    "vanilla",
    (
        "-m", "streamlit", "run", "{root}/bench/peers/vanilla_app.py", "--server.port={port}", "--server.address=127.0.0.1",
        "--server.headless=true", "--server.fileWatcherType=none", "--browser.gatherUsageStats=false",
    ),
    "/_stcore/health",
    needs=("streamlit==1.67.0", "openai==3.54.0"),
)  # fmt: skip
CHAINLIT = Peer(
    "chainlit",
    ("-m", "chainlit", "run", "{root}/bench/peers/chainlit_app.py", "--headless", "--host", "127.0.0.1", "--port", "{port}"),
    "/",
    needs=("chainlit==2.12.0", "openai==3.54.0"),
)
CLIENTS: dict[str, tuple[Peer | None, Callable[[str, int], Chat]]] = {
    "chatpro": (APP, lambda address, number: Page(address, number, f"as=bench-{number}")),
    "vanilla": (VANILLA, Page),
    "chainlit": (CHAINLIT, Chainlit),
    "bare": (None, Bare),
}


@dataclass
class Cell:
    """What was measured with one peer and so many chats. Times in milliseconds."""

    peer: str
    chats: int
    first: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    wire: int = 0
    failed: int = 0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    client_busy: float = 0.0

    @property
    def cpu(self) -> float:
        """Seconds of the server's CPU per 1,000 words."""
        return self.cpu_seconds / max(1, len(self.held)) * 1_000

    @property
    def bytes_per_word(self) -> float:
        return self.wire / max(1, len(self.held))

    @property
    def first_p95(self) -> float:
        return percentile(self.first, 0.95)

    def add(self, chat: Chat) -> None:
        """One answer, whole or not."""
        self.first.append((chat.words[0][1] - chat.asked_at) / 1e6 if chat.words else math.inf)
        self.held += [(received - sent) / 1e6 for sent, received in chat.words]
        self.wire += chat.wire


@dataclass(frozen=True)
class Long:
    """Bytes of a short and of a long answer; from them, what each further word costs, and an answer without its words."""

    short: float
    long: float

    @property
    def slope(self) -> float:
        return (self.long - self.short) / (LONG_WORDS - WORDS)

    @property
    def fixed(self) -> float:
        return self.short - WORDS * self.slope


# --- measuring --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def pages(client: Callable[[str, int], Chat], address: str, numbers: Sequence[int]) -> AsyncIterator[list[Chat]]:
    """Open pages, one for each number, with nothing shared but this process."""
    # Collecting garbage would be felt as words that came late.
    gc.disable()
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
    chats = [client(address, number) for number in numbers]
    try:
        for chat in chats:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await chat.open(http)
        yield chats
    finally:
        await asyncio.gather(*(chat.close() for chat in chats))
        await http.close()
        gc.enable()


async def ask_all(chats: list[Chat], words: int, gap_ms: float, cell: Cell) -> None:
    """Everybody asks once, spread over a second."""

    async def ask(chat: Chat, wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS + words * gap_ms / 1_000):
                await chat.say(question(words, gap_ms), words)
        except (ChatFailed, TimeoutError, aiohttp.ClientError) as error:
            cell.failed += 1
            print(f"{cell.peer}: chat {chat.number} of {len(chats)} failed with {len(chat.words)} of {words} words: {error!r}", file=sys.stderr)
        cell.add(chat)

    await asyncio.gather(*(ask(chat, SPREAD_SECONDS * place / len(chats)) for place, chat in enumerate(chats)))


async def measure(cell: Cell, server: Server, rounds: int, profile: Path | None) -> None:
    """One cell: everybody comes and says something short, then the rounds that count."""
    async with pages(CLIENTS[cell.peer][1], server.address, range(1, cell.chats + 1)) as chats:
        await ask_all(chats, WARM_WORDS, GAP_MS, Cell(cell.peer, cell.chats))
        with profiled(server, profile):
            cpu, busy, began = server.cpu_seconds(), time.process_time(), time.perf_counter()
            for _ in range(rounds):
                await ask_all(chats, WORDS, GAP_MS, cell)
            cell.cpu_seconds = server.cpu_seconds() - cpu
            cell.client_busy = (time.process_time() - busy) / (time.perf_counter() - began)
        cell.memory_bytes = server.memory_bytes()


async def measure_long(peer: str, server: Server) -> Long:
    """Each to a page of its own, so that neither answer carries the other as history."""
    async with pages(CLIENTS[peer][1], server.address, (1, 2)) as (one, other):
        cells = []
        for chat, words in ((one, WORDS), (other, LONG_WORDS)):
            await ask_all([chat], WARM_WORDS, GAP_MS, Cell(peer, 1))
            cells.append(Cell(peer, 1))
            await ask_all([chat], words, LONG_GAP_MS, cells[-1])
    return Long(*(math.inf if cell.failed else cell.wire for cell in cells))


async def measure_memory(peer: str, server: Server) -> float:
    """Bytes of the server for each page that is open and idle."""
    client = CLIENTS[peer][1]
    async with pages(client, server.address, range(1, PAGES_FIRST + 1)):
        before = server.memory_bytes()
        async with pages(client, server.address, range(PAGES_FIRST + 1, PAGES_FIRST + PAGES + 1)):
            await asyncio.sleep(1)
            return (server.memory_bytes() - before) / PAGES


# --- reporting --------------------------------------------------------------------------------------------------------


def shown(milliseconds: float) -> str:
    """One decimal where it says something."""
    return f"{milliseconds:,.1f}" if milliseconds < 10 else f"{milliseconds:,.0f}"


def percentile(values: list[float], part: float) -> float:
    """Nearest rank; infinite where there is nothing."""
    ranked = sorted(values)
    return ranked[math.ceil(part * len(ranked)) - 1] if ranked else math.inf


def alike(cells: list[Cell]) -> list[list[Cell]]:
    """Cells of the same peer with as many chats, take by take."""
    found: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.peer, cell.chats), []).append(cell)
    return list(found.values())


def table(cells: list[Cell]) -> list[str]:
    lines = [
        "| chats | peer | first word p50 / p95 | held p50 / p95 | CPU s per 1,000 | bytes per word | failed | memory | client busy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for takes in alike(cells):

        def middle(of: Callable[[Cell], float], takes: list[Cell] = takes) -> float:
            return median([of(cell) for cell in takes])

        first = [shown(middle(lambda cell, part=part: percentile(cell.first, part))) for part in (0.5, 0.95)]  # type: ignore[misc]
        held = [shown(middle(lambda cell, part=part: percentile(cell.held, part))) for part in (0.5, 0.95)]  # type: ignore[misc]
        peer, failed, asked = takes[0].peer, sum(cell.failed for cell in takes), sum(len(cell.first) for cell in takes)
        server = (f"{middle(lambda cell: cell.cpu):.3f}", f"{middle(lambda cell: cell.memory_bytes) / 2**20:.0f} MiB") if peer != "bare" else ("", "")
        lines.append(
            f"| {takes[0].chats} | {peer} | {first[0]} / {first[1]} ms | {held[0]} / {held[1]} ms | {server[0]} "
            f"| {middle(lambda cell: cell.bytes_per_word):,.0f} | {failed} of {asked} | {server[1]} | {middle(lambda cell: cell.client_busy):.2f} |"
        )
    return lines


def long_table(longs: dict[str, Long]) -> list[str]:
    lines = [f"| peer | kB of {WORDS} words | kB of {LONG_WORDS:,} | bytes of each further word |", "|---|---|---|---|"]
    return lines + [f"| {peer} | {found.short / 1_000:,.0f} | {found.long / 1_000:,.0f} | {found.slope:,.0f} |" for peer, found in longs.items()]


def targets(cells: list[Cell], longs: dict[str, Long], page_bytes: float | None) -> list[str]:
    """Each promise of which both sides were measured, with what was found."""
    by = {(takes[0].peer, takes[0].chats): takes for takes in alike(cells)}
    lines = ["| to reach | found | |", "|---|---|---|"]

    def line(what: str, takes: list[float], most: float, unit: str = "") -> None:
        found = median(takes)
        each = f" ({', '.join(f'{take:,.3g}' for take in sorted(takes))})" if len(takes) > 1 else ""
        lines.append(f"| {what} at most {most:,.3g}{unit} | {found:,.3g}{unit}{each} | {'reached' if found <= most else '**not reached**'} |")

    def ratio(what: str, of: Callable[[Cell], float], chats: int, peer: str, most: float) -> None:
        if (own := by.get(("chatpro", chats))) and (theirs := by.get((peer, chats))):
            line(f"{what} at {chats} chats, of {peer}'s", [of(a) / max(of(b), 1e-9) for a, b in zip(own, theirs, strict=True)], most)

    for chats in (10, 50):
        ratio("CPU per word", lambda cell: cell.cpu, chats, "vanilla", 0.3)
        ratio("CPU per word", lambda cell: cell.cpu, chats, "chainlit", 0.6)
    for chats, vanilla, chainlit in ((50, 1 / 20, 1 / 3), (100, 1 / 40, 1 / 2)):
        ratio("first word p95", lambda cell: cell.first_p95, chats, "vanilla", vanilla)
        ratio("first word p95", lambda cell: cell.first_p95, chats, "chainlit", chainlit)
    if (own := by.get(("chatpro", 50))) and (bare := by.get(("bare", 50))):
        beyond = [percentile(a.held, 0.95) - percentile(b.held, 0.95) for a, b in zip(own, bare, strict=True)]
        line("words held p95 at 50 chats, beyond the bare client's,", beyond, 10, " ms")
    if "chatpro" in longs:
        line(f"bytes of each word from {WORDS} to {LONG_WORDS:,}", [longs["chatpro"].slope], 100)
        line("fixed bytes of an answer", [longs["chatpro"].fixed / 1_000], 20, " kB")
    if page_bytes is not None:
        line("memory of an open page", [page_bytes / 1_000], 200, " kB")
    if own_cells := [cell for cell in cells if cell.peer == "chatpro"]:
        line("failed chats", [sum(cell.failed for cell in own_cells)], 0)
    return lines


def conditions(arguments: argparse.Namespace, load: float) -> str:
    ours = ", ".join(f"{name} {version(name)}" for name in ("streamlit", "openai", "duckdb", "aiohttp", "uvloop"))
    theirs = "".join(f"; {peer.name}: {', '.join(peer.needs)}" for peer in (VANILLA, CHAINLIT) if peer.name in arguments.peers)
    return (
        f"{time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores, shared by server, provider and clients; load {load:.1f} before; {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}. chatpro and the clients: {ours}{theirs}. "
        f"Takes: {arguments.takes}, rounds: {arguments.rounds}, {WORDS} words {GAP_MS:g} ms apart; long answers {LONG_WORDS:,} words {LONG_GAP_MS:g} ms apart."
    )


def write(report: list[str]) -> None:
    """Put the report between its two marks in README.md and leave the rest alone."""
    readme = Path(__file__).with_name("README.md")
    begin, end = "<!-- stream.py writes from here -->", "<!-- to here -->"
    before, _, rest = readme.read_text("utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{readme} lacks the marks {begin} and {end}")
    readme.write_text("\n".join([before + begin, "", *report, "", end + after]), "utf-8")


# --- the run ----------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """All cells, and what they say."""
    cells: list[Cell] = []
    longs: dict[str, Long] = {}
    page_bytes: float | None = None
    load = os.getloadavg()[0]
    with serving(UPSTREAM, folder / "upstream") as upstream:

        def at(peer: str, place: str) -> AbstractContextManager[Server]:
            found = CLIENTS[peer][0]
            return serving(found, folder / place / peer, upstream.address) if found else nullcontext(upstream)

        for take, chats, peer in product(range(arguments.takes), arguments.chats, arguments.peers):
            cells.append(Cell(peer, chats))
            with at(peer, f"{chats}-{take}") as server:
                profile = Path(f"{arguments.profile}.{chats}") if arguments.profile and peer == "chatpro" else None
                uvloop.run(measure(cells[-1], server, arguments.rounds, profile))
            print("\n".join(table(cells[-1:])[0 if len(cells) == 1 else 2 :]), flush=True)
        for peer in arguments.peers if arguments.long else ():
            with at(peer, "long") as server:
                longs[peer] = uvloop.run(measure_long(peer, server))
        if arguments.long and "chatpro" in arguments.peers:
            with at("chatpro", "pages"):
                pass  # the start that makes the store leaves free memory behind, into which the pages would fit unseen
            with at("chatpro", "pages") as server:
                page_bytes = uvloop.run(measure_memory("chatpro", server))
    blocks = [[conditions(arguments, load)], table(cells), long_table(longs) if longs else [], targets(cells, longs, page_bytes)]
    return [line for block in blocks if block for line in (*block, "")][:-1]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chats", type=lambda raw: [int(part) for part in raw.split(",")], default=[1, 10, 50, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--takes", type=int, default=1, help="how often to do all of it; the median is told")
    parser.add_argument("--long", action="store_true", help="also answers of 4,000 words, and the memory of an open page")
    parser.add_argument("--quick", action="store_true", help="1 and 10 chats, one round: does it work at all")
    parser.add_argument("--peers", type=lambda raw: raw.split(","), default=list(CLIENTS))
    parser.add_argument("--profile", metavar="FILE", help="the app's stacks, by py-spy, into FILE.CHATS; its figures are then no measure")
    parser.add_argument("--write", action="store_true", help="put the report into bench/README.md")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.chats, arguments.rounds = [1, 10], 1
    if unknown := set(arguments.peers) - set(CLIENTS):
        parser.error(f"no such peer: {', '.join(unknown)}")
    return arguments


def main() -> None:
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are ended on the way out
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a page takes four files of its server
    with tempfile.TemporaryDirectory(prefix="chatpro-bench-") as folder:
        report = run(arguments, Path(folder))
    print("", *report, sep="\n")
    if arguments.write:
        write(report)


if __name__ == "__main__":
    main()
