"""What every test stands on: no network, no settings of the machine, counts by occasion, and browsers where there are any.

Without the socket guard a forgotten double sends somebody's text, and money, to a real provider. Without the clean
environment a developer's own key decides what a test sees. Fixtures for the product's parts stand beside the tests that use them.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

LARGE = os.environ.get("LARGE_TRIALS") == "1" or os.environ.get("CHATPRO_TRIALS", "") not in ("", "0")
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false", "no")
NO_CHROMIUM = "no Chromium on this machine"

# No deadline and no too-slow check: two shared cores pause for longer than any test should have to argue about.
settings.register_profile("default", deadline=None, derandomize=False, max_examples=100, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("trials", settings.get_profile("default"), max_examples=1_000)
settings.load_profile("trials" if LARGE else "default")


def trials(few: int, many: int) -> int:
    """How often to try: `few` in `make test`, `many` in `make trials`. Mark such a test `@pytest.mark.trials`."""
    return many if LARGE else few


def pytest_configure() -> None:
    if LARGE:
        os.environ["LARGE_TRIALS"] = "1"  # for the processes that pytest-xdist starts later, when the setting is gone
    # Before anything is imported or started by a session fixture, not only before each test.
    for name in _settings_of_the_machine():
        del os.environ[name]
    _guard_sockets()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts without a setting; what it sets goes with it."""
    for name in _settings_of_the_machine():
        monkeypatch.delenv(name)


def _settings_of_the_machine() -> list[str]:
    return [name for name in os.environ if name.startswith(("CHATPRO_", "OPENAI_"))]


# --- No network -------------------------------------------------------------------------------------------------------

_attempts: list[str] = []


class NetworkForbidden(ConnectionRefusedError):
    """What a test gets that reaches out. An OSError, so that code under test behaves as without a network; the test fails all the same."""


@pytest.fixture
def network_attempts() -> list[str]:
    """The forbidden addresses this test tried. A test that means to try one reads this list and clears it."""
    return _attempts


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    _attempts.clear()
    yield
    tried, _attempts[:] = list(_attempts), []
    if tried:
        pytest.fail(f"tried to reach {', '.join(sorted(set(tried)))}: tests talk to this machine only", pytrace=False)


def _guard_sockets() -> None:
    """Refuse every address but loopback and local sockets, in this process.

    uvloop and child processes bring their own sockets and pass by: servers under test get a loopback upstream by configuration.
    """
    for name, position in (("connect", 0), ("connect_ex", 0), ("sendto", -1)):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, *args: Any, _original: Any = original, _position: int = position) -> Any:
            address = args[_position]
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
                _attempts.append(str(address[0]))
                raise NetworkForbidden(f"{address[0]} is not this machine")
            return _original(self, *args)

        setattr(socket.socket, name, guarded)

    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_here(host):
            name = host.decode() if isinstance(host, bytes) else str(host)
            if not name.endswith(".invalid"):  # reserved never to exist, so tests of "can't be reached" may ask for it
                _attempts.append(name)
            raise socket.gaierror(socket.EAI_NONAME, f"{name} is not this machine")
        return look_up(host, *args, **kwargs)

    socket.getaddrinfo = guarded_look_up


def _is_here(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


# --- Browsers ---------------------------------------------------------------------------------------------------------


def chromium_path() -> str | None:
    """The machine's Chromium, or one that Playwright once fetched."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    fetched = sorted(Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*/chrome"))
    return str(fetched[-1]) if fetched else None


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to drive; a test that asks for it is skipped where there is none, and fails in CI."""
    path = chromium_path()
    if path is None:
        (pytest.fail if IN_CI else pytest.skip)(NO_CHROMIUM)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Only folders of the tests: a clone may itself lie in a folder named browser.
        folders = item.path.parent.relative_to(item.config.rootpath).parts if item.path.is_relative_to(item.config.rootpath) else ()
        if "chromium" in getattr(item, "fixturenames", ()) or "browser" in folders:
            item.add_marker(pytest.mark.browser)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and chromium_path() is None:
        (pytest.fail if IN_CI else pytest.skip)(NO_CHROMIUM)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if skipped := _skipped_browser_tests(terminalreporter):
        terminalreporter.section("BROWSER TESTS WERE SKIPPED", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"{skipped} browser tests did NOT run ({NO_CHROMIUM}, unless the list above says otherwise).", red=True, bold=True)
        terminalreporter.write_line("What people see in a browser is unproven by this run. On Debian: apt-get install chromium", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and reporter and exitstatus == pytest.ExitCode.OK and _skipped_browser_tests(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped_browser_tests(reporter: Any) -> int:
    return sum("browser" in report.keywords for report in reporter.stats.get("skipped", []))
