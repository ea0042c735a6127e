"""Looks for keys and passwords in everything that was ever committed, and in what is about to be.

A secret that was committed once is in every clone for ever; removing the line does not help, so the whole history is read.
It prints where and which kind, never the secret itself: the log of a build is read by more people than the repository.
A made-up value that a test needs carries the words `made up` on its line.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE_UP = "made up"

# Kinds that are recognised by their shape alone.
SHAPES = {
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "OpenAI key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(r"\b(?:gh[oprsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,})"),
    "Slack token": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "Google key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "Stripe key": re.compile(r"\b[rs]k_live_[0-9A-Za-z]{16,}"),
    "signed token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "password in an address": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"{}<>$]+:([^\s/:@'\"{}<>$]{6,})@(?!(?:localhost|127\.0\.0\.1|\[::1\]))"),
}

# And those that only their name gives away: then the value must also look random.
NAMED = re.compile(r"(?i)\b[\w-]*(?:secret|password|passwd|api_?key|access_?key|auth_?token)[\w-]*[\"']?\s*[:=]\s*[\"']([^\"'\s]{12,})[\"']")

# Bits per character. English words and identifiers lie below 3.4 at these lengths; base64 of randomness above 3.7.
RANDOM_ENTROPY = 3.6

# Files that hold secrets or people's data by their nature, whatever is in them.
FORBIDDEN_NAMES = re.compile(r"(?:^|/)(?:secrets\.toml|\.env(?:\.[a-z]+)?|id_(?:rsa|ed25519|ecdsa)|[^/]+\.(?:pem|key|p12|pfx|duckdb|duckdb\.wal))$")


def main() -> int:
    findings = sorted(set(scan(ROOT)))
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} findings. A real secret: revoke it first, then remove it from the history. A made-up one: write `{MADE_UP}` on its line.")
        return 1
    print("No secret in the history or the working files.")
    return 0


def scan(root: Path) -> Iterator[str]:
    """Every finding in every version of every file, and in the files that are not committed yet but could be."""
    for name, content in _history(root):
        yield from findings_in(name, content)
    for name in _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0"):
        if name and (root / name).is_file():
            yield from findings_in(name, (root / name).read_bytes())


def findings_in(name: str, content: bytes) -> Iterator[str]:
    """`file:line: kind` for each secret in one file."""
    if FORBIDDEN_NAMES.search(name):
        yield f"{name}: a file of this name is never committed"
    if b"\0" in content:
        return
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if MADE_UP in line:
            continue
        for kind, shape in SHAPES.items():
            if shape.search(line):
                yield f"{name}:{number}: {kind}"
        if any(_entropy(match.group(1)) >= RANDOM_ENTROPY for match in NAMED.finditer(line)):
            yield f"{name}:{number}: a value that looks random beside a name that says secret"


def _entropy(text: str) -> float:
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _history(root: Path) -> Iterator[tuple[str, bytes]]:
    """Each distinct content that any commit of any branch holds, under one of its names."""
    names: dict[str, str] = {}
    for line in _git(root, "rev-list", "--objects", "--all").decode().splitlines():
        object_id, _, name = line.partition(" ")
        if name:
            names[object_id] = name
    answers = subprocess.run(["git", "cat-file", "--batch"], cwd=root, input="\n".join(names).encode(), capture_output=True, check=True).stdout
    position = 0
    while position < len(answers):
        end = answers.index(b"\n", position)
        object_id, kind, size = answers[position:end].decode().split()
        content = answers[end + 1 : end + 1 + int(size)]
        position = end + 2 + int(size)
        if kind == "blob":
            yield names[object_id], content


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
