"""Starting and ending the real server: one sentence where it refuses, ready in seconds where it doesn't, everything settled when it is told to stop."""

from __future__ import annotations

import resource
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.running import until
from tests.serving import ROOT, Server, free_port, refused
from tests.upstream import Upstream

STREAMLIT = (sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.headless", "true")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> object:
    with Upstream() as upstream, Server(tmp_path_factory.mktemp("server"), upstream.address) as started:
        yield started


def one_sentence(text: str, about: str) -> None:
    """The refusal says what is wrong in a line of its own, and there is no traceback."""
    assert "Traceback" not in text and about in text
    assert any(line.startswith("Chat Pro did not start. ") for line in text.splitlines())


@pytest.mark.fault(9)
@pytest.mark.parametrize("address", ["0.0.0.0", "::", None])
def test_demo_mode_started_past_make_run_refuses_every_address_but_loopback(tmp_path: Path, address: str | None) -> None:
    """Streamlit's own command line can't open it to strangers either."""
    given = ("--server.address", address) if address else ("--server.address", "")
    code, text = refused(tmp_path, *STREAMLIT, *given, "--server.port", str(free_port()))

    assert code == 2
    one_sentence(text, "demo mode")


@pytest.mark.fault(97)
@pytest.mark.parametrize("option", ["server.enableAgentApi", "server.trustedUserHeaders"])
def test_options_that_let_others_drive_pages_are_refused(tmp_path: Path, option: str) -> None:
    """Unless the operator said so in our own settings too."""
    value = "true" if option.endswith("Api") else '{"X-User": "name"}'
    code, text = refused(tmp_path, *STREAMLIT, "--server.address", "127.0.0.1", "--server.port", str(free_port()), f"--{option}", value)

    assert code == 2
    one_sentence(text, "enableAgentApi")


@pytest.mark.fault(93)
def test_showing_errors_to_visitors_is_refused(tmp_path: Path) -> None:
    """The shipped configuration says none, and a start that says otherwise is none."""
    code, text = refused(tmp_path, *STREAMLIT, "--server.address", "127.0.0.1", "--server.port", str(free_port()), "--client.showErrorDetails", "full")

    assert code == 2
    one_sentence(text, "showErrorDetails")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """Before anything is opened."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = refused(tmp_path, port=str(taken.getsockname()[1]))

    assert code == 2
    one_sentence(text, "is in use by another program")


def test_a_wrong_setting_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    """The same at the command line as in the tests of the settings."""
    code, text = refused(tmp_path, CHATPRO_ANSWER_TOKENS="plenty")

    assert code == 2
    one_sentence(text, "CHATPRO_ANSWER_TOKENS")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "demo").write_text("")
    code, text = refused(tmp_path)

    assert code == 2
    one_sentence(text, "folder")


@pytest.mark.fault(62)
def test_a_damaged_store_stops_the_start_and_is_left_as_it_is(tmp_path: Path) -> None:
    """No fresh one is put in its place."""
    file = tmp_path / "demo" / "chatpro.duckdb"
    file.parent.mkdir()
    file.write_text("this is no database")
    code, text = refused(tmp_path)

    assert code == 2 and file.read_text() == "this is no database"
    one_sentence(text, "damaged")


@pytest.mark.fault(65)
def test_a_second_server_on_the_same_store_is_refused_with_the_firsts_process_id(tmp_path: Path) -> None:
    """And the first goes on."""
    with Upstream() as upstream, Server(tmp_path, upstream.address) as first:
        code, text = refused(tmp_path)
        assert first.process is not None
        one_sentence(text, str(first.process.pid))
        assert code == 2 and first.get("/readyz")[0] == 200


def test_a_second_start_is_little_work(tmp_path: Path) -> None:
    """Store open, migrations done, model known, and an orderly end: three times what it takes, in seconds of work.

    By the clock a busy machine takes as long as it likes; bench/start.py has what people wait.
    """
    with Upstream() as upstream, Server(tmp_path, upstream.address) as server:
        assert server.ready() == {"ready": True, "store": True, "model": True}
        assert server.terminate() == 0
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        server.start()
        assert server.terminate() == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 6


@pytest.mark.fault(119)
def test_without_a_model_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    """And says neither a version nor a path."""
    server = Server(tmp_path, "http://127.0.0.1:9/v1")
    try:
        server.launch()
        until(lambda: server.get("/livez")[0] == 200)
        until(lambda: server.ready() == {"ready": False, "store": True, "model": False})
        time.sleep(1)  # it does not become ready later either
        status, _, body = server.get("/readyz")
        assert (status, server.ready()["model"]) == (503, False)
        assert b"/" not in body
    finally:
        server.kill9()


@pytest.mark.fault(118)
def test_sigterm_twice_ends_it_in_order_and_the_next_start_finds_nothing_to_mend(tmp_path: Path) -> None:
    """Exit code 0, no traceback, and the store opens without a gap."""
    with Upstream() as upstream, Server(tmp_path, upstream.address) as server:
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        server.start()

        assert code == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.fault(87)
@pytest.mark.parametrize("path", ["/", "/history", "/no/such/page", "/app/static/looks.css", "/_stcore/health", "/readyz", "/media/none", "/ws/page/none"])
def test_every_response_carries_the_security_headers(server: Server, path: str) -> None:
    """Page, static file, health, unknown path, refusal."""
    _, headers, _ = server.get(path)

    assert "frame-ancestors 'none'" in headers["content-security-policy"] and "img-src 'self' data: blob:" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


@pytest.mark.fault(9)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_demo_mode_does_not_answer_through_a_proxy(server: Server, header: str) -> None:
    """A reverse proxy in front of loopback would be the open door that the address check closed."""
    assert server.get("/", {header: "192.0.2.1"})[0] == 403


@pytest.mark.fault(96)
@pytest.mark.parametrize(
    "path", ["/app/static/../live.py", "/app/static/%2e%2e/live.py", "/app/static/..%2f..%2f..%2fdata/models.toml", "/app/static/%252e%252e/live.py"]
)
def test_static_files_are_only_the_public_folder(server: Server, path: str) -> None:
    """Plain, encoded, double encoded."""
    status, _, body = server.get(path)

    assert status in (400, 403, 404) or b"<!doctype html>" in body.lower()
    assert b"import" not in body[:2_000] or b"<!doctype html>" in body.lower()
