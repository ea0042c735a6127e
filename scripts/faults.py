"""Lists each fault and attack of docs/faults.md with the tests that are marked as its proof, then the rows without one.

Read from the source, not by running pytest: the list must also come when a test file can't be imported. Without it a row
counts as survived because somebody remembers having tested it.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    rows, proofs = read_rows(ROOT), find_proofs(ROOT / "tests")
    for number, title in rows.items():
        tests = proofs.get(number, [])
        print(f"{number:3}  {title}{'' if tests else '   (no test)'}")
        for test in tests:
            print(f"       {test}")
    without = [number for number in rows if number not in proofs]
    print(f"\n{len(rows) - len(without)} of {len(rows)} rows have a test; {sum(map(len, proofs.values()))} marks in all.")
    if without:
        print("Without a test: " + ", ".join(map(str, without)) + ".")
    if unknown := sorted(set(proofs) - set(rows)):
        sys.exit("Marked, but not a row of docs/faults.md: " + ", ".join(map(str, unknown)) + ".")


def read_rows(root: Path) -> dict[int, str]:
    """Number → title, in the order of the page."""
    text = (root / "docs" / "faults.md").read_text(encoding="utf-8")
    return {int(number): title.strip() for number, title in re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE)}


def _parsed(path: Path) -> ast.Module:
    """Python 3.11 fails here when another thread parses at the same moment, as one does that formats a traceback (cpython issue 106905)."""
    for _ in range(10):
        with contextlib.suppress(SystemError):
            return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def find_proofs(tests: Path) -> dict[int, list[str]]:
    """Row → `file::test` for each test with `@pytest.mark.fault(N, …)` on itself, its class, one of its parameters or its module."""
    proofs: dict[int, list[str]] = defaultdict(list)
    for path in sorted([*tests.rglob("test_*.py"), *tests.rglob("contract.py")]):  # contracts are inherited by the tests of each engine
        tree = _parsed(path)
        _collect(tree, path.relative_to(tests.parent).as_posix(), _marks_of_module(tree), proofs)
    return dict(proofs)


def _collect(node: ast.Module | ast.ClassDef, where: str, inherited: set[int], proofs: dict[int, list[str]]) -> None:
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            _collect(child, f"{where}::{child.name}", inherited | _marks(*child.decorator_list), proofs)
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and child.name.startswith("test"):
            for number in sorted(inherited | _marks(*child.decorator_list)):
                proofs[number].append(f"{where}::{child.name}")


def _marks_of_module(tree: ast.Module) -> set[int]:
    return _marks(*(node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"))


def _marks(*expressions: ast.expr) -> set[int]:
    """The numbers in every `….fault(…)` inside these expressions, so marks of single parameters count too."""
    calls = [node for expression in expressions for node in ast.walk(expression) if isinstance(node, ast.Call)]
    marks = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "fault"]
    return {number.value for mark in marks for number in mark.args if isinstance(number, ast.Constant) and isinstance(number.value, int)}


if __name__ == "__main__":
    main()
