"""Finding words in what was written: the key under which text and query are compared, what a query means, and where it hits.

Case, accents and typographic signs don't matter, so both sides are brought to one key before they are compared. There is one key for
everybody who searches, also for staff inside a dispute: with two, evidence that one of them folds differently is missed.
The key is made when somebody searches and stored nowhere: a stored one doubles what has to be kept safe and purged, and is out of date with the
next version of Unicode.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_CHARS = 200
"""Of one query. Longer than that is a pasted paragraph, of which one sentence in quotes finds more."""

MOST_WORDS = 12

BEFORE, AROUND = 60, 240
"""Characters of context before the first hit, and of a whole snippet: some two lines of a page."""

_SIGNS = {"'": "‘’‚‛", '"': "“”„‟«»", "-": "‐‑‒–—−"}
"""What writing programs and models put in place of the signs on the keyboard."""

_QUOTES = str.maketrans(dict.fromkeys(_SIGNS['"'], '"'))
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_PART = re.compile(r'"([^"]*)"(?!\S)|"(.*)$|(\S+)', re.DOTALL)


class QueryRefused(ValueError):
    """What was typed is no query; the message says what to do."""


class _Left(dict[str, str]):
    """What a character leaves in the key, once it is taken apart: nothing of accents and of what can't be seen. Looked up once each."""

    def __init__(self) -> None:
        super().__init__({sign: plain for plain, signs in _SIGNS.items() for sign in signs})

    def __missing__(self, sign: str) -> str:
        self[sign] = "" if unicodedata.category(sign) in ("Mn", "Me", "Cf") else sign
        return self[sign]


_left = _Left()


def key(text: str) -> str:
    """How text is compared: compatibility forms taken apart (NFKD), marks and the invisible off, signs as on the keyboard, case folded, white
    space as one blank. Some 5 microseconds for an answer: only what is beyond ASCII costs anything."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        for sign in set(_BEYOND_ASCII.findall(text)):
            if (left := _left[sign]) != sign:
                text = text.replace(sign, left)
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Query:
    """What is looked for: each of these keys, anywhere in one text. A phrase in quotes is one of them."""

    keys: tuple[str, ...]

    def meets(self, text: str) -> bool:
        """Whether the text has all of it."""
        told = key(text)
        return all(part in told for part in self.keys)


def parse(typed: str) -> Query:
    """Several words mean all of them, quotes mean a phrase, every other sign means itself. Raises QueryRefused with a sentence.

    A quote that is not closed begins a phrase up to the end, as it stands while somebody types; one inside a word is a sign like others (27").
    """
    if len(typed) > MOST_CHARS:
        raise QueryRefused(f"A search takes at most {MOST_CHARS} characters; this has {len(typed):,}. Take a few words, or one sentence in quotes.")
    parts = (key("".join(found)) for found in _PART.findall(typed.translate(_QUOTES)))
    keys = tuple(dict.fromkeys(part for part in parts if part))
    if not keys:
        raise QueryRefused("Type a word to look for.")
    if len(keys) > MOST_WORDS:
        raise QueryRefused(f"A search takes at most {MOST_WORDS} words; this has {len(keys)}. Put a sentence in quotes to find it as it stands.")
    if all(len(part) == 1 and part.isascii() for part in keys):
        raise QueryRefused("One letter is in nearly everything. Type at least two.")
    return Query(keys)


@dataclass(frozen=True)
class Snippet:
    """A piece of a text around its first hit. `marks`: where it hits, as (begin, end) in the piece; `begins` and `ends`: it is the text's own
    beginning or end."""

    text: str
    marks: tuple[tuple[int, int], ...]
    begins: bool
    ends: bool


def snippet(text: str, query: Query) -> Snippet:
    """Where a text that meets the query hits, with some context."""
    whole = key(text)
    told, places = _mapped(text, min(max(whole.find(part), 0) for part in query.keys) + 2 * AROUND + MOST_CHARS)
    found = sorted(_spans(told, places, text, query.keys))
    first = found[0][0] if found else 0
    begin = _word_start(text, max(0, first - BEFORE), first)
    end = min(len(text), begin + AROUND)
    marks = tuple((a - begin, min(b, end) - begin) for a, b in _merged(found) if begin <= a < end)
    return Snippet(text[begin:end], marks, begin == 0, end == len(text))


def _mapped(text: str, most: int = 2**31) -> tuple[str, list[int]]:
    """The key of a text, as far as so many characters, and for each of them the place in the text that it comes from."""
    told: list[str] = []
    places: list[int] = []
    for place, sign in enumerate(text):
        parts = sign if sign.isascii() else "".join(_left[part] for part in unicodedata.normalize("NFKD", sign))
        for part in parts.casefold():
            if not part.isspace():
                told.append(part)
            elif told and told[-1] != " ":
                told.append(" ")
            else:
                continue
            places.append(place)
        if len(told) >= most:
            break
    return "".join(told), places


def _spans(told: str, places: Sequence[int], text: str, keys: Sequence[str]) -> Iterator[tuple[int, int]]:
    for part in keys:
        at = told.find(part)
        while at >= 0:
            last = at + len(part) - 1
            end = places[last] + 1
            while end < len(text) and not text[end].isascii() and not key(text[end]) and not text[end].isspace():
                end += 1  # the accents that belong to the last letter
            yield places[at], end
            at = told.find(part, last + 1)


def _merged(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order, those that touch as one."""
    begin, end = -1, -1
    for a, b in spans:
        if a > end:
            if end > 0:
                yield begin, end
            begin, end = a, b
        else:
            end = max(end, b)
    if end > 0:
        yield begin, end


def _word_start(text: str, at: int, latest: int) -> int:
    """The next place from here where a word begins, no later than that."""
    if at == 0 or text[at - 1].isspace():
        return at
    while at < latest and not text[at].isspace():
        at += 1
    while at < latest and text[at].isspace():
        at += 1
    return at
