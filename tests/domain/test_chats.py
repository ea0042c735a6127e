"""Versions, request ids, clean text and the 90 days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro.domain.chats import (
    AnswerFacts,
    AnswerState,
    Message,
    clean_text,
    clean_title,
    conversation,
    deleted_on,
    is_blank,
    readable_since,
    request_id,
    title_from,
    versions,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def message(name: str, parent: str | None, sequence: int) -> Message:
    return Message(name, "c", parent, sequence, name, NOW)


def test_the_newest_version_is_the_one_that_is_seen() -> None:
    """An edit is another message with the same parent; what hangs on the older one goes out of sight, not out of the store."""
    told = [message("a", None, 1), message("b", "a", 2), message("c", "b", 3), message("b2", "a", 4), message("c2", "b2", 5)]

    assert [m.id for m in conversation(told)] == ["a", "b2", "c2"]


def test_an_older_version_that_was_written_on_is_the_one_that_is_seen() -> None:
    """Otherwise what somebody wrote under the version they had leafed to would be gone from sight after a reload."""
    told = [message("a", None, 1), message("b", "a", 2), message("b2", "a", 3), message("c", "b", 4)]

    assert [m.id for m in conversation(told)] == ["a", "b", "c"]


def test_leafing_leads_through_the_version_that_was_asked_for() -> None:
    """And below it to where something was written last; an entry that is not there changes nothing."""
    told = [message("a", None, 1), message("b", "a", 2), message("c", "b", 3), message("b2", "a", 4), message("c2", "b", 5)]

    assert [m.id for m in conversation(told, "b2")] == ["a", "b2"]
    assert [m.id for m in conversation(told, "b")] == ["a", "b", "c2"]
    assert [m.id for m in conversation(told, "c")] == ["a", "b", "c"]
    assert [m.id for m in conversation(told, "gone")] == ["a", "b", "c2"]


def test_versions_are_counted_where_there_are_several_and_empty_tries_are_none() -> None:
    """ "2 of 3" counts what can be read; a failed try counts only while it is what is seen, or while something hangs on it."""
    failed = AnswerFacts(AnswerState.FAILED, None, "m", "1", "r", 0, False, NOW, NOW, None)
    nothing = Message("x", "c", "a", 3, "", NOW, failed)
    told = [message("a", None, 1), message("b", "a", 2), nothing, message("b2", "a", 4)]

    assert versions(told, conversation(told)) == {"b2": ["b", "b2"]}
    assert versions(told, conversation(told, "x")) == {"x": ["b", "x", "b2"]}
    assert versions([*told, message("on", "x", 5)], conversation(told)) == {"b2": ["b", "x", "b2"]}
    assert versions([message("a", None, 1), message("b", "a", 2)], conversation(told)) == {}


@given(st.lists(st.integers(-1, 40), min_size=1, max_size=40), st.integers(0, 39))
def test_every_entry_can_be_leafed_to(parents: list[int], wanted: int) -> None:
    """Whatever the tree: a path leads from a beginning to an end, each entry follows the one before, and any entry can be on it."""
    told = [message(str(n), str(parent) if 0 <= parent < n else None, n) for n, parent in enumerate(parents)]
    path = conversation(told, str(wanted % len(told)))

    assert str(wanted % len(told)) in {m.id for m in path}
    assert path[0].parent_id is None and all(after.parent_id == before.id for before, after in zip(path, path[1:], strict=False))
    assert not [m for m in told if m.parent_id == path[-1].id]


def test_what_is_left_of_an_old_chat_stays_readable() -> None:
    """When the first messages were purged, the conversation begins with the first that is left."""
    assert [m.id for m in conversation([message("c", "gone", 3), message("d", "c", 4)])] == ["c", "d"]


@pytest.mark.fault(31)
@given(st.lists(st.text(max_size=8), min_size=4, max_size=4), st.lists(st.text(max_size=8), min_size=4, max_size=4))
def test_a_request_id_is_the_same_only_for_the_same_send(a: list[str], b: list[str]) -> None:
    """Account, chat, what it follows and text all count, and moving a letter from one to the next is another send."""
    a, b = [clean_text(x) for x in a], [clean_text(x) for x in b]

    assert (request_id(*a) == request_id(*b)) == (a == b or [a[0], a[1], a[2] or None, a[3]] == [b[0], b[1], b[2] or None, b[3]])
    assert request_id(*a) != request_id(*a, number=1)


@pytest.mark.fault(71)
@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_clean_text_can_be_encoded_and_keeps_what_is_harmless(text: str) -> None:
    """Lone surrogates and NUL are all that goes."""
    cleaned = clean_text(text)

    cleaned.encode()
    assert "\x00" not in cleaned
    if text.isprintable() and text.isascii():
        assert cleaned == text


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b\u200d", "\ufeff", "\u202e \u2066", "\x00"])
def test_text_in_which_nothing_can_be_seen_is_blank(text: str) -> None:
    """Zero-width signs and direction marks alone are no message."""
    assert is_blank(text)


@pytest.mark.fault(78)
def test_titles_are_one_visible_line() -> None:
    """Direction overrides could make a title read as another one; line breaks would break the list."""
    assert clean_title("a\u202egnp.exe\nb\u200b  c") == "agnp.exe b c"
    assert len(clean_title("word " * 100)) <= 60
    assert title_from(" \n ") == "New chat"


@pytest.mark.fault(58)
@given(st.integers(0, 90 * 86_400 * 2))
def test_a_message_can_be_read_until_the_instant_that_is_shown(seconds: int) -> None:
    """The instant on the page and the filter of every read are the same instant."""
    sent = NOW - timedelta(seconds=seconds)

    assert (sent > readable_since(NOW, 90)) == (NOW < deleted_on(sent, 90))
