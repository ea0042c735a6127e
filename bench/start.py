"""How long a start takes until /readyz answers, beside a bare Streamlit app in the same run: the first one of demo mode, with and without the
months that it makes up, and a second one. Prints seconds and their ratios.

    .venv/bin/python bench/start.py [RUNS]

Without OPENAI_API_KEY and OPENAI_BASE_URL it is the start with the local model; with an address, the start with a provider.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.serving import free_port  # noqa: E402


def seconds_until(command: list[str], address: str, env: dict[str, str]) -> float:
    """From the command to the first 200 of the address; the process is ended afterwards."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while time.perf_counter() - began < 60:
                try:
                    with urllib.request.urlopen(address, timeout=2) as response:
                        if response.status == 200:
                            return time.perf_counter() - began
                except OSError:
                    time.sleep(0.02)
            raise TimeoutError(f"{address} did not answer")
        finally:
            process.terminate()
            process.wait(30)


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text("import streamlit as st\nst.write('hello')\n")
        first: dict[str, list[float]] = {"300": [], "0": []}
        ours, theirs = [], []
        for run in range(runs):
            for freelancers, seconds in first.items():
                seconds.append(start(f"{folder}/demo-{run}-{freelancers}", freelancers))
            ours.append(start(f"{folder}/demo-{run}-300", "300"))
            port = free_port()
            options = ["--server.headless=true", f"--server.port={port}", "--server.address=127.0.0.1", "--browser.gatherUsageStats=false"]
            theirs.append(
                seconds_until([sys.executable, "-m", "streamlit", "run", str(bare), *options], f"http://127.0.0.1:{port}/_stcore/health", dict(os.environ))
            )
    bare_start = statistics.median(theirs)
    for name, found in (("first start", first["300"]), ("first start without made-up months", first["0"]), ("second start", ours)):
        median = statistics.median(found)
        print(f"{name} {median:.2f} s ({min(found):.2f} to {max(found):.2f}), bare Streamlit {bare_start:.2f} s, ratio {median / bare_start:.1f}")


def start(folder: str, freelancers: str) -> float:
    """Seconds until demo mode is ready, on this folder."""
    port = free_port()
    env = {**os.environ, "CHATPRO_PORT": str(port), "CHATPRO_DEMO_DIR": folder, "CHATPRO_SAMPLE_FREELANCERS": freelancers}
    return seconds_until([sys.executable, "-m", "chatpro", "run"], f"http://127.0.0.1:{port}/readyz", env)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
