"""How many tokens a text is: the one place that knows, because every charge, limit and warning stands on this number.

A count that is too low would let a message through that the allowance can't pay for, so every shortcut here errs upwards.
It is also an attack surface (a paste of a million equal letters), so its time is bounded whatever the text; and it must
never reach for the network, which tiktoken does by itself when a vocabulary is missing or damaged.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from chatpro.config import ROOT
from chatpro.errors import ConfigError

if TYPE_CHECKING:
    from tiktoken import Encoding

VOCABULARIES = {
    "cl100k_base": ("9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
    "o200k_base": ("fb374d419588a4632f3f557e76b4b70aebbca790", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
}
"""Tokenizer → (file name in data/tiktoken, its SHA-256). The names are those of tiktoken's own cache."""

SLICE_CHARS = 20_000
"""Text is counted in slices. A run of a million blanks in one piece makes the pattern engine give up; 60,000 were still fine."""

FORCED_CUT_TOKENS = 16
"""Added where a slice had to be cut inside a run. Merging is greedy, so a cut can (rarely) even save a token; this outweighs it many times."""

EXACT_CHARS = 1_000_000
"""Beyond this every byte counts as a token, which no text can exceed: a million characters take 0.15 s at worst, and no allowance pays for more."""

TURN_TOKENS = 4
REPLY_TOKENS = 3
"""What OpenAI's chat format adds: a start, a role, a separator and an end to each turn, and the beginning of the answer."""


class HasText(Protocol):
    """A turn of a prompt, for this purpose."""

    @property
    def text(self) -> str: ...


_loaded: dict[str, Encoding] = {}
_loading = Lock()


def count(text: str, tokenizer: str) -> int:
    """How many tokens *text* is, never too few. Special tokens in it are plain text. Takes 0.2 s at worst: keep it off the event loop.

    A *tokenizer* such as `cl100k_base+30%` counts with a surcharge, for models whose own vocabulary is not here.
    """
    name, surcharge = _split_name(tokenizer)
    encoding = _encoding(name)
    exact, rest = text[:EXACT_CHARS], text[EXACT_CHARS:]
    tokens = _bytes(rest)
    start = 0
    while start < len(exact):
        end, forced = _cut(exact, start)
        tokens += _count_slice(encoding, exact[start:end]) + (FORCED_CUT_TOKENS if forced else 0)
        start = end
    return math.ceil(tokens * (100 + surcharge) / 100)


def count_turns(turns: Iterable[HasText], tokenizer: str) -> int:
    """What a whole prompt costs: the text of its turns, and what the chat format puts around each of them."""
    counted = [count(turn.text, tokenizer) for turn in turns]
    return sum(counted) + _around(len(counted), tokenizer)


def as_turn(counted: int, tokenizer: str) -> int:
    """What a text of so many tokens costs as a prompt of one turn."""
    return counted + _around(1, tokenizer)


def _around(turns: int, tokenizer: str) -> int:
    _, surcharge = _split_name(tokenizer)
    return math.ceil((REPLY_TOKENS + turns * TURN_TOKENS) * (100 + surcharge) / 100)


def warm(tokenizers: Iterable[str] = tuple(VOCABULARIES)) -> None:
    """Load vocabularies at start (0.1 to 0.2 s each), so that no visitor waits. Raises ConfigError when one can't be trusted."""
    for tokenizer in tokenizers:
        _encoding(_split_name(tokenizer)[0])


def _split_name(tokenizer: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\w+?)(?:\+(\d{1,3})%)?", tokenizer)
    if match is None or match[1] not in VOCABULARIES:
        raise ConfigError(f"{tokenizer!r} is not a tokenizer. There are {' and '.join(VOCABULARIES)}, each also with a surcharge such as +30%.")
    return match[1], int(match[2] or 0)


def _encoding(name: str) -> Encoding:
    if name not in _loaded:
        with _loading:
            if name not in _loaded:
                _loaded[name] = _load(name, ROOT / "data" / "tiktoken")
    return _loaded[name]


def _load(name: str, folder: Path) -> Encoding:
    """Checked before tiktoken sees it: given a damaged file, tiktoken deletes it and asks the network for another."""
    path = folder / VOCABULARIES[name][0]
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"The vocabulary {path} can't be read. It belongs to the program: restore it, for instance with git checkout.") from error
    if digest != VOCABULARIES[name][1]:
        raise ConfigError(f"The vocabulary {path} is damaged: its SHA-256 is not the one expected. Restore it, for instance with git checkout.")
    import tiktoken  # here, since it is of no use to whoever only reads the figures

    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    try:
        return tiktoken.get_encoding(name)
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def _cut(text: str, start: int) -> tuple[int, bool]:
    """Where the slice from *start* ends, and whether that is inside a run, where the count may change.

    Between a visible character and a single blank before a visible one every vocabulary here splits anyway, so a cut there is exact.
    """
    end = start + SLICE_CHARS
    if end >= len(text):
        return len(text), False
    place = end
    while (place := text.rfind(" ", end - SLICE_CHARS // 10, place)) > 0:
        if not text[place - 1].isspace() and not text[place + 1].isspace():
            return place, False
    return end, True


def _count_slice(encoding: Encoding, text: str) -> int:
    try:
        return len(encoding.encode(text, disallowed_special=()))
    except ValueError:  # the pattern engine gave up on it
        return _bytes(text)


def _bytes(text: str) -> int:
    """No token is shorter than a byte, so this is never too few."""
    return len(text.encode("utf-8", "surrogatepass"))
