"""The search key and what is made of it: nothing that a person would call the same is missed, and what is marked is where it stands."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatpro.domain.search import AROUND, MOST_CHARS, MOST_WORDS, QueryRefused, _mapped, key, parse, snippet
from tests.conftest import trials

SAME = [
    ("İstanbul", "istanbul"), ("STRASSE", "straße"), ("ﬁne print", "FINE PRINT"), ("café", "cafe\u0301"), ("naïve", "NAIVE"), ("Ångström", "angstrom"),
    ("client’s", "client's"), ("“late” – fee", '"late" - fee'), ("non\u00adbreaking", "nonbreaking"), ("zero\u200bwidth", "zerowidth"), ("a\u00a0b", "a b"),
    ("two\n\n  lines", "two lines"), ("ⅷ", "viii"), ("ｆｕｌｌ", "full"), ("ΣΊΣΥΦΟΣ", "σισυφος"), ("ΌΣΟΣ", "όσος"), ("한", "\u1112\u1161\u11ab"),
    ("Ǆ", "ǆ"), ("ﬀ", "ff"), ("Ł", "ł"), ("\ufeffstart", "start"), ("Ёлка", "елка"),
]  # fmt: skip

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
odd = st.text(st.sampled_from("aAeE İıßẞﬁﬀéè\u0301\u0308\u200b\u00ad’“”–\n\t \u00a0ΣσςＡⅷ한x'\"-"), max_size=20)


@pytest.mark.fault(105)
@pytest.mark.parametrize(("written", "looked_for"), SAME)
def test_what_people_call_the_same_has_one_key(written: str, looked_for: str) -> None:
    """Both ways round, and inside other words."""
    assert key(written) == key(looked_for)
    assert parse(f"{looked_for} before").meets(f"before{written}after {written}")


@pytest.mark.fault(105)
@pytest.mark.trials
def test_every_character_keeps_its_key() -> None:
    """A key's key is itself, so that it doesn't matter who made it first; and a text's key is made of its characters'."""
    codes = [code for code in range(0, sys.maxunicode + 1, trials(7, 1)) if not 0xD800 <= code < 0xE000]
    strange = []
    for n in range(0, len(codes), 100):
        some = "a".join(map(chr, codes[n : n + 100]))
        told = key(some)
        if key(told) != told or _mapped(some)[0].strip() != told:
            strange.append(hex(codes[n]))
    assert strange == []


@pytest.mark.fault(105)
@given(written=odd | text)
@example("´a")
def test_the_key_of_a_text_is_made_of_its_characters(written: str) -> None:
    """Otherwise a hit could not be found again in the text that it came from."""
    told, places = _mapped(written)
    assert told.strip() == key(written)
    assert len(told) == len(places) and places == sorted(places)


@pytest.mark.fault(104)
@pytest.mark.parametrize("sign", ["%", "_", "\\", "'", "*", "?", ".", "[a]", "(", "%%", "a%b", "\\_", ";--", "^", "$", "|", "a.*b"])
def test_every_sign_means_itself(sign: str) -> None:
    """No pattern, no wildcard, no regular expression."""
    query = parse(f"{sign} xy")
    assert query.meets(f"here is {sign} and xy")
    assert not query.meets("here is axb and xy")


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("late fee", ("late", "fee")),
        ("Late LATE late", ("late",)),
        ('"late fee"', ("late fee",)),
        ("“late  fee” invoice", ("late fee", "invoice")),
        ('"late fee', ("late fee",)),
        ('27" screen', ('27"', "screen")),
        ('""  x1', ("x1",)),
        ('say "hello there" now', ("say", "hello there", "now")),
        ("  \n two\twords ", ("two", "words")),
        ("税", ("税",)),
        ("plan b", ("plan", "b")),
    ],
)
def test_words_mean_all_of_them_and_quotes_a_phrase(typed: str, keys: tuple[str, ...]) -> None:
    """As everybody knows it from elsewhere; a quote within a word is a sign."""
    assert parse(typed).keys == keys


@pytest.mark.fault(104)
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "Type a word"),
        ("  \u200b ", "Type a word"),
        ('""', "Type a word"),
        ("a", "at least two"),
        ("a b c", "at least two"),
        ("x" * (MOST_CHARS + 1), "at most 200 characters; this has 201"),
        ("%a" * 5_000, "this has 10,000"),
        (" ".join(f"w{n}" for n in range(MOST_WORDS + 1)), "at most 12 words; this has 13"),
    ],
)
def test_what_is_no_query_gets_a_sentence(typed: str, said: str) -> None:
    """It says what to do instead."""
    with pytest.raises(QueryRefused, match=re.escape(said)):
        parse(typed)


@given(before=text, hit=st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=2, max_size=10), after=text)
@example(before="", hit="fi", after="")
@example(before="ﬁ", hit="st", after="\u0301")
def test_what_is_marked_is_what_was_looked_for(before: str, hit: str, after: str) -> None:
    """Each mark, brought to its key, holds one of the words; nothing is marked outside of the piece."""
    if not key(hit) or all(len(part) == 1 for part in key(hit).split()):
        return
    query = parse(f'"{hit}"')
    whole = f"{before} {hit} {after}"
    assert query.meets(whole)

    found = snippet(whole, query)

    assert found.text in whole and found.marks
    for begin, end in found.marks:
        assert 0 <= begin < end <= len(found.text)
        assert any(part in key(found.text[begin:end]) for part in query.keys)


def test_a_snippet_begins_at_a_word_before_its_first_hit() -> None:
    """Context on both sides, and word of whether there is more."""
    whole = "word " * 100 + "the late fee is due. " + "more " * 100
    found = snippet(whole, parse("fee late"))

    assert found.text.startswith("word ") and len(found.text) == AROUND
    assert [found.text[a:b] for a, b in found.marks] == ["late", "fee"]
    assert (found.begins, found.ends) == (False, False)
    short = snippet("A late fee", parse("late"))
    assert (short.text, short.marks, short.begins, short.ends) == ("A late fee", ((2, 6),), True, True)


def test_hits_that_touch_are_one_mark_and_accents_belong_to_their_letter() -> None:
    """A mark never ends between an e and its accent."""
    assert snippet("latefee", parse("late efee")).marks == ((0, 7),)
    assert snippet("cafe\u0301 au lait", parse("cafe")).marks == ((0, 5),)


def test_a_long_word_without_a_blank_is_no_trap() -> None:
    """A megabyte of one letter, and a query that nearly meets it everywhere."""
    whole = "a" * 60_000
    assert not parse("ab").meets(whole) and not parse(f"{'a' * 150}b").meets(whole)
    assert len(snippet(whole, parse("aa")).text) == AROUND
