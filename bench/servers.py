"""Processes that are measured: started on free loopback ports, asked for their CPU and memory, ended again.

Each peer has its own Python environment, so that none gets another's faster libraries or slower versions. Environments are
kept under ~/.cache/chatpro-bench between runs. Without one place that starts and ends them, a bench that fails leaves
servers behind, which then slow down whatever is measured next.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.serving import free_port

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chatpro-bench"
READY_SECONDS = 60.0
END_SECONDS = 20.0


@dataclass(frozen=True)
class Peer:
    """One front end: how it is started ({port}, {folder} and {root} are filled in), where it says that it is ready, which packages it needs."""

    name: str
    command: Sequence[str]
    ready: str
    needs: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def python_with(name: str, needs: Sequence[str]) -> str:
    """The Python of an environment that holds these packages; made on first use. The running one if nothing is needed."""
    if not needs:
        return sys.executable
    home, wanted = CACHE / name, "\n".join(needs)
    told = home / "holds.txt"
    if not told.is_file() or told.read_text() != wanted:
        print(f"installing {', '.join(needs)} into {home}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "-qq", "--disable-pip-version-check", *needs], check=True, timeout=900)
        told.write_text(wanted)
    return str(home / "bin" / "python")


class Server:
    """A process that answers."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.pid = process.pid
        self.address = f"http://127.0.0.1:{port}"

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children, to the nanosecond: /proc/PID/stat counts in hundredths, of which a short answer has five."""
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self._tree())  # what clock_getcpuclockid(3) gives for a process

    def memory_bytes(self) -> int:
        """Resident memory of the process and its children."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._tree()) * os.sysconf("SC_PAGE_SIZE")

    def _tree(self) -> list[int]:
        found = [self.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found


@contextmanager
def serving(peer: Peer, folder: Path, upstream: str = "") -> Iterator[Server]:
    """Start a peer in a folder of its own and wait until it is ready; end it afterwards, whatever happened. Its log's end is shown if it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "log"
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    known = {"port": port, "folder": folder, "root": ROOT}
    settings = {name: value.format(**known) for name, value in peer.settings.items()}
    env = {**kept, "HOME": str(folder), "OPENAI_API_KEY": "made-up", "OPENAI_BASE_URL": f"{upstream}/v1", **settings}
    command = [python_with(peer.name, peer.needs), *(part.format(**known) for part in peer.command)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        server = Server(process, port)
        _wait_until_ready(process, server.address + peer.ready)
        yield server
    except Exception:
        print(f"{peer.name} said:\n{log.read_text(errors='replace')[-3_000:]}", file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def profiled(server: Server, into: Path | None) -> Iterator[None]:
    """Sample the process's stacks meanwhile; one line a stack, most of them in flamegraph.pl's form."""
    if into is None:
        yield
        return
    spy = str(Path(python_with("profile", ("py-spy==0.4.3",))).with_name("py-spy"))
    options = ["--rate", "200", "--format", "raw", "--threads", "--nonblocking", "--output", str(into)]
    process = subprocess.Popen([spy, "record", "--pid", str(server.pid), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{address} does not answer")
