"""How the tests of this folder wait. A browser draws a moment after it was told to, on a busy machine a long moment: whoever
looks once sees what was there before, and the test fails on the build server alone.

So nothing that is drawn, scrolled or announced is looked at once: `expect(...)` waits by itself, `until` waits for a fact,
`settled` for a check of several facts, `still` for what moves to come to rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS = 30.0
"""How long before a test gives up. Only a failing test takes it, so it may be long."""


def until(page: Any, true: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait until something is true, and return it. The browser's events come only while it is waited for."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"did not become true within {seconds:g} seconds"
        page.wait_for_timeout(20)
    return found


def settled(page: Any, check: Callable[[], None], seconds: float = SECONDS) -> None:
    """Wait until all assertions of `check` hold at once; what a failure tells is the last of them that did not."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
            page.wait_for_timeout(50)


STILL = """() => new Promise((done) => {
  let last, frames = 0, since = 0;
  const frame = () => {
    const now = JSON.stringify(READ);
    if (now !== last) [last, frames, since] = [now, 0, performance.now()];
    else if (++frames >= 8 && performance.now() - since > 250) return done(JSON.parse(last));
    requestAnimationFrame(frame);
  };
  frame();
})"""


def still(page: Any, read: str) -> Any:
    """What this expression of the page's gives when it has been the same for eight frames and a quarter of a second."""
    return page.evaluate(STILL.replace("READ", read))
