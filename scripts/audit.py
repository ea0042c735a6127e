"""Asks the public vulnerability services about every pinned package.

pip-audit says "no known vulnerabilities" also about packages of which the service knew nothing. Here a package counts as
audited only when a service answered for it: known vulnerabilities fail the check; no answer is said plainly and fails it
only where CI_AUDIT_REQUIRED=1 asks for that, since a machine without that network can't mend it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-local.txt", "requirements-dev.txt")
SERVICES = ("pypi", "osv")

# One lock is answered in seconds where the service can be reached; a firewall that drops packets must not hold the checks up for longer.
DEADLINE_SECONDS = 180


@dataclass
class Findings:
    """Packages asked about, those that no service answered for, and the vulnerable ones. One package pinned in two locks counts once."""

    vulnerable: dict[str, list[str]] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)


def main() -> int:
    total = Findings()
    for lock in LOCKS:
        found = audit(lock)
        total.vulnerable |= found.vulnerable
        total.unanswered |= found.unanswered
        total.asked |= found.asked
    return verdict(total, required=os.environ.get("CI_AUDIT_REQUIRED") == "1")


def verdict(found: Findings, *, required: bool) -> int:
    """Say what was found and return the exit code: silence of the services is never reported as safety."""
    for package, ids in sorted(found.vulnerable.items()):
        print(f"VULNERABLE: {package}: {', '.join(ids)}")
    if found.unanswered:
        whole = found.unanswered >= found.asked
        print(
            f"THE AUDIT COULD NOT BE MADE{'' if whole else ' IN FULL'}: no vulnerability service answered for "
            f"{len(found.unanswered)} of {len(found.asked)} pinned packages. "
            "Nothing is known about them; run this where pip-audit reaches its services."
        )
    elif not found.vulnerable:
        print(f"No known vulnerability in {len(found.asked)} pinned packages.")
    return 1 if found.vulnerable or (found.unanswered and required) else 0


def audit(lock: str) -> Findings:
    """Ask one service after the other until each package of the lock was answered for."""
    found = Findings()
    for service in SERVICES:
        answer = _ask(lock, service)
        if answer is None:
            continue
        read = read_answer(answer)
        found.vulnerable |= read.vulnerable
        found.unanswered = read.unanswered if not found.asked else found.unanswered & read.unanswered
        found.asked = read.asked
        if not found.unanswered:
            return found
    if not found.asked:
        names = {line.split("==")[0] for line in (ROOT / lock).read_text(encoding="utf-8").splitlines() if line[:1].isalnum()}
        return Findings(unanswered=names, asked=names)
    return found


def read_answer(answer: str) -> Findings:
    """Read pip-audit's JSON; a skipped package is an unanswered one."""
    found = Findings()
    for package in json.loads(answer)["dependencies"]:
        found.asked.add(package["name"])
        if "skip_reason" in package:
            found.unanswered.add(package["name"])
        elif package["vulns"]:
            found.vulnerable[f"{package['name']} {package['version']}"] = [vulnerability["id"] for vulnerability in package["vulns"]]
    return found


def _ask(lock: str, service: str) -> str | None:
    command = [sys.executable, "-m", "pip_audit", "-s", service, "-r", lock, "--require-hashes", "--disable-pip", "-f", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.stdout.lstrip().startswith("{") else None


if __name__ == "__main__":
    sys.exit(main())
