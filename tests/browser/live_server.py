"""Starts a harness (the live component's or the panel's) as a process of its own, and speaks to it: for the browser and for the headers' tests."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.serving import free_port

ROOT = Path(__file__).parents[2]


class LiveServer:
    """One Streamlit server with the component. `restart` is what an operator does: a new process on the same address."""

    def __init__(self, *options: str, harness: str = "live", env: Mapping[str, str] | None = None) -> None:
        self.port, self._harness = free_port(), harness
        self.url = f"http://127.0.0.1:{self.port}"
        self._options, self._env = options, {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        app = ROOT / "tests" / "browser" / f"{self._harness}_harness" / "app.py"
        command = [sys.executable, "-m", "streamlit", "run", str(app), "--server.address", "127.0.0.1", "--server.port", str(self.port), *self._options]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            try:
                if self.get("/_stcore/health")[0] < 500:  # 404 under another base path: somebody answers
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.stop()
        raise AssertionError("the harness did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self, **env: str) -> None:
        self.stop()
        self._env = {**self._env, **env}
        self.start()

    def tell(self, **words: Any) -> dict[str, Any]:
        """What the control route of the harness's app.py takes."""
        status, _, body = self.get("/control", method="POST", body=json.dumps(words).encode(), headers={"content-type": "application/json"})
        assert status == 200, body
        told: dict[str, Any] = json.loads(body)
        return told

    def get(self, path: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """One request, its path sent as it is written."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            for name, value in {**(headers or {}), **({"content-length": str(len(body))} if body is not None else {})}.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()
