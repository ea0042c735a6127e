"""A browser for each file of this folder; tests in which people sign in have a context for each, as a person has a computer.

Not one for the whole run: while Playwright is open its event loop counts as running, and every later test that starts one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.patience import SECONDS

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

expect.set_options(timeout=SECONDS * 1_000)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def computer(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests of a file that ask for no other: what the pages are made of is fetched and compiled once. Each test closes its pages."""
    with browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce") as context:
        context.set_default_timeout(SECONDS * 1_000)
        yield context


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page in a context of its own (another person, or another computer). Faults of the page's own scripts fail the test at its end."""
    faults: list[str] = []
    with ExitStack() as stack:

        def opened(**options: Any) -> Any:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
            stack.callback(context.close)
            context.set_default_timeout(SECONDS * 1_000)
            page = context.new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            return page

        yield opened
    assert faults == []
