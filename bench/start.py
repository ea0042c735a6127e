"""How long a second start takes until /readyz answers, beside a bare Streamlit app in the same run. Prints seconds and their ratio.

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
        ours, theirs = [], []
        for run in range(runs + 1):
            port = free_port()
            env = {**os.environ, "CHATPRO_PORT": str(port), "CHATPRO_DEMO_DIR": f"{folder}/demo"}
            taken = seconds_until([sys.executable, "-m", "chatpro", "run"], f"http://127.0.0.1:{port}/readyz", env)
            port = free_port()
            options = ["--server.headless=true", f"--server.port={port}", "--server.address=127.0.0.1", "--browser.gatherUsageStats=false"]
            beside = seconds_until([sys.executable, "-m", "streamlit", "run", str(bare), *options], f"http://127.0.0.1:{port}/_stcore/health", dict(os.environ))
            if run == 0:
                print(f"first start {taken:.2f} s (makes the store and the sample people)")
            else:
                ours.append(taken)
                theirs.append(beside)
    second, bare_start = statistics.median(ours), statistics.median(theirs)
    print(f"second start {second:.2f} s ({min(ours):.2f} to {max(ours):.2f}), bare Streamlit {bare_start:.2f} s, ratio {second / bare_start:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
