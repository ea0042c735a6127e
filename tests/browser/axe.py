"""What axe-core finds on a page: what keeps people with screen readers, keyboards or weak eyes out."""

from __future__ import annotations

import contextlib
from typing import Any

from axe_playwright_python.sync_playwright import Axe

from tests.browser.patience import settled


def faults_of(page: Any, *impacts: str) -> list[str]:
    """One line each (of all, or of these impacts), of what it still finds while the page stands still: colours fade in and out between states."""
    found: list[str] = []

    def look() -> None:
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        counted = [fault for fault in violations if not impacts or fault["impact"] in impacts]
        found[:] = [f"{fault['id']}: {node['target']} {node['html'][:160]}" for fault in counted for node in fault["nodes"]]
        assert found == []

    with contextlib.suppress(AssertionError):
        settled(page, look, 15)
    return found
