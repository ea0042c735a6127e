"""The real server in a process of its own, as `make run` starts it, on a free port and a folder of the test's.

Nothing here knows the inside: a test that uses it sees what a browser, a provider or an operator sees.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port for a server that is about to start. Below those that the system hands out: between here and the server's start
    another process that asks for any port would be given this one."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def environment(folder: Path, port: int, upstream: str | None, settings: Mapping[str, str]) -> dict[str, str]:
    """What the server is told: only this, and what a process needs to run at all."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    told = {"CHATPRO_DEMO_DIR": str(folder / "demo"), "CHATPRO_DATA_DIR": str(folder / "var"), "CHATPRO_PORT": str(port), "HOME": str(folder)}
    told["CHATPRO_SAMPLE_FREELANCERS"] = "0"  # what stands behind the figures is made and tried in test_sample; here it would cost each start a second
    provider = {"OPENAI_API_KEY": "made-up", "OPENAI_BASE_URL": upstream} if upstream else {}
    return {**kept, **told, **provider, **settings}


class Server:
    """A server that is ready. `with Server(tmp_path, upstream.address) as server: server.url`. `app`: another entry than the product's own."""

    def __init__(self, folder: Path, upstream: str | None = None, *, app: Path | None = None, **settings: str) -> None:
        self._app = app
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = environment(folder, self.port, upstream, settings)
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        command = ["-m", "chatpro", "run"]
        if self._app is not None:
            command = ["-m", "streamlit", "run", str(self._app), "--server.address=127.0.0.1", f"--server.port={self.port}", "--server.headless=true"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start(self, seconds: float = 60) -> None:
        """Start (again, on the same folder and port) and wait until it is ready."""
        self.launch()
        assert self.process is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.get("/readyz")[0] == 200:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server is not ready:\n{self.log.read_text()}")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status (0 where nobody listens), headers in lower case, body."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
        except urllib.error.HTTPError as error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()
        except OSError:
            return 0, {}, b""

    def ready(self) -> dict[str, bool]:
        found: dict[str, bool] = json.loads(self.get("/readyz")[2] or b"{}")
        return found

    def kill9(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, seconds: float = 60) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill9()
        if error is not None:
            print(self.log.read_text()[-4_000:])


def refused(folder: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """Start with settings that must not start. Returns the exit code and all that was printed."""
    command = arguments or (sys.executable, "-m", "chatpro", "run")
    env = environment(folder, int(settings.pop("port", free_port())), "http://127.0.0.1:9/v1", settings)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout + done.stderr
