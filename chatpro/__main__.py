"""The command line: `python -m chatpro run` starts the server; `make run` calls it.

Settings and the port are checked here, where a sentence can still be printed alone on the screen, and once more by the
server itself, because it can also be started without this.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import socket
import sys

from chatpro import config
from chatpro.errors import ConfigError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for a refused start."""
    parser = argparse.ArgumentParser(prog="python -m chatpro", description="Chat Pro")
    parser.add_subparsers(dest="command", required=True).add_parser("run", help="start the server")
    parser.parse_args(arguments)
    try:
        settings = config.load(secrets=config.read_secrets())
        _check_port(settings)
    except ConfigError as error:
        print(f"Chat Pro did not start. {error}", file=sys.stderr)
        return 2
    return _run(settings)


def _check_port(settings: config.Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            why = "in use by another program" if error.errno == 98 else "not open to this user" if error.errno == 13 else "not to be had"
            raise ConfigError(f"Port {settings.port} on {settings.host} is {why}. Set CHATPRO_PORT to another one.") from error


def _run(settings: config.Settings) -> int:
    """Become the server: the same process, so that its id stays and signals reach it.

    uvicorn closes everything in order on SIGTERM and then sends the signal on to whoever handled it before. Unhandled, that
    would end an orderly stop as a killed process, and a process manager would report a crash.
    """
    print(f"{settings.product_name} starts …", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    options = {"server.address": settings.host, "server.port": settings.port, "server.headless": "true", "server.fileWatcherType": "none"}
    os.chdir(config.ROOT)
    sys.argv = ["streamlit", "run", str(config.ROOT / "app.py"), *(f"--{name}={value}" for name, value in options.items())]
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
