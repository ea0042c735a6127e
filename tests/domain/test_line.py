"""The waiting line: fair between people, and true about where one stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro.domain.line import Line

JOINS = st.lists(st.sampled_from("abcde"), max_size=30)


def filled(accounts: list[str]) -> Line:
    line = Line()
    for number, account in enumerate(accounts):
        line.join(account, f"{account}{number}")
    return line


def everybody(ticket: str) -> bool:
    return True


@pytest.mark.fault(122)
def test_one_person_with_twenty_sends_delays_nobody_else() -> None:
    """Two others who come later have their turn after the first of the twenty."""
    line = filled([*"a" * 20, "b", "c"])

    assert [line.next(everybody) for _ in range(4)] == ["a0", "b20", "c21", "a1"]


def test_whoever_may_have_no_more_is_passed_over_and_keeps_their_turn() -> None:
    line = filled(["a", "a", "b"])

    assert line.next(lambda ticket: ticket[0] != "a") == "b2"
    assert line.next(lambda ticket: ticket[0] != "a") is None
    assert line.next(everybody) == "a0"


def test_what_was_called_off_is_gone_and_can_be_called_off_once() -> None:
    line = filled(["a", "b"])

    assert line.leave("a0") and not line.leave("a0")
    assert (len(line), line.of("a"), line.next(everybody), line.next(everybody)) == (1, 0, "b1", None)


@given(JOINS)
def test_the_place_that_is_told_is_the_place_that_comes(accounts: list[str]) -> None:
    """As many as were said go before, for every ticket; and everybody comes out once."""
    line = filled(accounts)
    told = line.places()
    came = [line.next(everybody) for _ in range(len(accounts))]

    assert [told[ticket] for ticket in came if ticket] == list(range(len(accounts)))
    assert len(line) == 0


@given(JOINS, st.data())
def test_nobody_has_a_second_turn_before_everybody_who_waits_had_one(accounts: list[str], data: st.DataObject) -> None:
    """Also when others join in between."""
    line, number = filled(accounts), len(accounts)
    since: dict[str, set[str]] = {}
    while len(line):
        if data.draw(st.booleans()) and number < 60:
            line.join(joined := data.draw(st.sampled_from("abcde")), f"{joined}{number}")
            number += 1
        ticket = line.next(everybody)
        assert ticket is not None
        account = ticket[0]
        assert not since.get(account), f"{account} had two turns while {since[account]} waited"
        for other in since:
            since[other].discard(account)
        since[account] = {other for other in "abcde" if other != account and line.of(other)}
