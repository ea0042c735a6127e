"""Code of others is the code that was read: each file under vendor/ has the hash that its VENDOR.toml names, and a licence beside it."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest

VENDOR = Path(__file__).parents[2] / "chatpro" / "web" / "vendor"


@pytest.mark.parametrize("folder", sorted(path for path in VENDOR.iterdir() if path.is_dir()), ids=lambda path: path.name)
def test_vendored_files_are_unchanged_and_licensed(folder: Path) -> None:
    told = tomllib.loads((folder / "VENDOR.toml").read_text())
    assert told["licence"] == "MIT" and told["version"] and told["source"].startswith("https://")
    assert "Permission is hereby granted" in (folder / "LICENSE").read_text()
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"VENDOR.toml"}
    assert there == set(told["files"])
    for name, digest in told["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
