"""What the chat page and a person's other pages say of the allowance: in which words, one thing at a time, the weightiest first."""

from __future__ import annotations

from datetime import timedelta

import pytest
from streamlit.testing.v1 import AppTest

from chatpro.bootstrap import House
from chatpro.domain.accounts import Account
from chatpro.domain.allowance import Accepted, Cycle, SendKind, cycle_at
from tests.cast import PLAN, Clock, person, spend, write_chat
from tests.pages.conftest import Hands, html_of, page, words

OWN_PAGES = ("chat", "history", "account", "help")


def cycle_of(house: House, account: Account) -> Cycle:
    anchor = house.store.read(lambda rows: rows.anchor(account.id))
    assert anchor is not None
    return cycle_at(anchor, house.now())


def clock(house: House) -> Clock:
    assert isinstance(house.now, Clock)
    return house.now


def take_last(house: House, account: Account, tokens: int, *, settled: bool) -> None:
    """A last message was accepted, and charged or not yet."""
    cycle, now = cycle_of(house, account), house.now()
    meter = house.accounts.meter(account, house.answering.sizes())
    assert meter is not None

    def work(unit):  # type: ignore[no-untyped-def]
        accepted = Accepted(SendKind.LAST, 0, 400, 0, 1_000, meter.remaining, 0, True)
        chat = f"{1:032x}"
        unit.add_chat(account.id, chat, now)
        unit.add_message(account.id, "last-question", chat, None, "freelancer", "The last one", now)
        assert unit.reserve(account.id, "last-reservation", "request", cycle, meter.allowance, 0, accepted, now, now + timedelta(minutes=6))
        unit.add_answer(account.id, "last-answer", chat, "last-question", "request", 0, "last-reservation", "gpt-4", "1", accepted, now)
        unit.add_warning(account.id, cycle.starts_at, "last_message", meter.allowance, PLAN, now)

    house.store.write(work)
    if settled:
        from chatpro.domain.allowance import Charge
        from chatpro.domain.chats import AnswerState

        def settle(unit):  # type: ignore[no-untyped-def]
            call = unit.call("last-answer")
            unit.end_answer(call, AnswerState.FINISHED, None, now)
            unit.fold_parts(call, "The end.")
            unit.resolve(call, "settled", tokens, now)
            unit.add_usage_entry(call, PLAN, Charge(tokens - 50, 50, "measured", 0), 0, 1, 1, "finished", now)

        house.store.write(settle)


def notices(test: AppTest) -> list[str]:
    """Every notice on the page, without its icon."""
    found = html_of(test).split('<div class="say-n"')[1:]
    return [words_of(piece) for piece in found]


def words_of(html: str) -> str:
    import re

    text = re.sub(r"<[^>]+>", " ", html[html.index("</span>") :].split("</div>")[0])
    return " ".join(text.split())


# --- 75 and 95 --------------------------------------------------------------------------------------------------------


@pytest.mark.fault(45)
@pytest.mark.parametrize("name", OWN_PAGES)
def test_a_warning_is_shown_on_every_page_of_its_owner_until_it_is_put_away(house: House, name: str) -> None:
    """Wherever the person comes back to; one click puts it away on all of them, and the account page keeps it with its time."""
    mara = person(house, "mara")
    spend(house, mara, 152_000)
    test = page(name, "mara")
    assert [e.message for e in test.exception] == []
    assert len(notices(test)) == 1 and notices(test)[0].startswith("75 % of this month is used. About ") and "until 21 December." in notices(test)[0]

    test.button(key="seen_75").click().run()
    assert notices(test) == []
    for other in OWN_PAGES:
        assert notices(page(other, "mara")) == []
    assert "75 % of 200,000 tokens were used" in words(page("account", "mara"))


@pytest.mark.fault(45)
def test_of_two_warnings_that_fell_due_at_once_one_is_shown_and_the_weaker_never_comes_back(house: House) -> None:
    mara = person(house, "mara")
    spend(house, mara, 191_000)
    test = page("chat", "mara")
    assert len(notices(test)) == 1 and notices(test)[0].startswith("95 % of this month is used.")
    test.button(key="seen_95").click().run()
    assert notices(test) == []
    assert "75 % of 200,000 tokens were used" in words(page("account", "mara")) and "95 % of 200,000 tokens were used" in words(page("account", "mara"))


def test_a_warning_of_last_month_is_not_shown_in_this_one(house: House) -> None:
    spend(house, person(house, "mara"), 191_000)
    clock(house).forward(days=31)
    test = page("chat", "mara")
    assert notices(test) == [] and "0 of 200,000 tokens" in words(test)


def test_staff_see_no_notice_and_nobody_sees_anothers(house: House) -> None:
    spend(house, person(house, "mara"), 191_000)
    for who in ("lea", "jude", "ada"):
        assert notices(page("account", who)) == []


# --- The last message -------------------------------------------------------------------------------------------------


@pytest.mark.fault(46)
def test_that_the_next_message_is_the_last_is_said_with_all_that_it_means(house: House) -> None:
    """That it is the last, until when, how much it can use, that what it leaves expires, what is possible afterwards; and it can't be put away."""
    mara = person(house, "mara")
    spend(house, mara, 198_000)
    test = page("chat", "mara")

    assert notices(test) == [
        "Your next message is the last one until 21 December. It can use up to 2,000 tokens; what it leaves expires. "
        "Afterwards you can still read, search and export your chats."
    ]
    assert not any(str(b.key).startswith("seen_") for b in test.button)
    assert "1 message left" in words(test)


@pytest.mark.fault(46)
def test_while_the_last_message_is_answered_no_other_is_announced(house: House) -> None:
    """All that is left is set aside for it: neither another last one nor the end is said."""
    mara = person(house, "mara")
    spend(house, mara, 198_000)
    take_last(house, mara, 0, settled=False)
    assert notices(page("chat", "mara")) == ["Your last message until 21 December is being answered. What it leaves expires then."]


# --- The end of the allowance -----------------------------------------------------------------------------------------


def test_at_the_end_only_sending_is_off(house: House) -> None:
    """Heading, instant with zone, countdown; the composer is there, and says when; chats can be opened."""
    mara = person(house, "mara")
    chat = spend(house, mara, 198_000)
    take_last(house, mara, 1_900, settled=True)
    test = page("chat", "mara", chat=chat)

    text = words(test)
    assert "This month's allowance is used up. You can write again on Mon 21 December at 00:00 (Europe/Stockholm)." in text
    assert "Your chats stay here to read, search and export, and a draft is kept." in text and "At the milestones." in text
    assert "<b>28</b><small>days</small>" in html_of(test) and 'role="timer"' in html_of(test)
    assert (test.chat_input[0].placeholder, test.chat_input[0].disabled) == ("Sending opens again on 21 December", False)
    assert "No message left" in text


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(days=2, seconds=1), ("3", "days")),
        (timedelta(days=1, seconds=1), ("2", "days")),
        (timedelta(days=1), ("24", "hours")),
        (timedelta(hours=1, seconds=1), ("2", "hours")),
        (timedelta(hours=1), ("60", "minutes")),
        (timedelta(minutes=1, seconds=1), ("2", "minutes")),
        (timedelta(seconds=3), ("1", "minute")),
    ],
)
def test_the_countdown_is_calm_and_never_says_less_than_it_is(house: House, before: timedelta, said: tuple[str, str]) -> None:
    """Days, on the last day hours, in the last hour minutes."""
    mara = person(house, "mara")
    spend(house, mara, 198_000)
    take_last(house, mara, 1_900, settled=True)
    clock(house).at = cycle_of(house, mara).ends_at - before

    test = page("chat", "mara")
    assert f"<b>{said[0]}</b><small>{said[1]}</small>" in html_of(test)
    assert f"in {said[0]} {said[1]}" in words(test)


@pytest.mark.parametrize(("used", "settled", "said"), [(198_000, None, "Your next message is the last one until"), (198_000, 1_900, "allowance is used up")])
def test_the_account_page_says_what_the_chat_says(house: House, used: int, settled: int | None, said: str) -> None:
    mara = person(house, "mara")
    spend(house, mara, used)
    if settled:
        take_last(house, mara, settled, settled=True)
    assert said in words(page("account", "mara")) and said in words(page("chat", "mara"))
    assert said not in words(page("help", "mara"))


def test_at_the_renewal_it_is_over(house: House) -> None:
    """At the very instant, not a moment before."""
    mara = person(house, "mara")
    spend(house, mara, 198_000)
    take_last(house, mara, 1_900, settled=True)
    ends_at = cycle_of(house, mara).ends_at
    clock(house).at = ends_at - timedelta(microseconds=1)
    assert "is used up" in words(page("chat", "mara"))
    clock(house).at = ends_at
    test = page("chat", "mara")
    assert "is used up" not in words(test) and test.chat_input[0].placeholder == "Write to Chat Pro"


# --- The meter --------------------------------------------------------------------------------------------------------


def test_the_meter_says_how_many_are_left_and_when_more_come(house: House) -> None:
    """From how many to how many, the day and how far it is, the tokens and what a token is; marks at 75 and 95."""
    mara = person(house, "mara")
    for n in range(10):
        write_chat(house, mara, ("Again", "Yes."), ("And again", "Yes."), tokens=(1_000 + n * 200, 100))
    test = page("chat", "mara")
    meter = house.accounts.meter(mara, house.answering.sizes())
    assert meter is not None
    low, high = meter.left_range

    assert f"About {low} to {high} messages left" in words(test) and low < high
    assert "Renews 23 December, in 30 days" in words(test) and "40,000 of 200,000 tokens" in words(test)
    assert html_of(test).count("A token is a piece of a word") == 1
    assert 'data-n="75"' in html_of(test) and 'data-n="95"' in html_of(test) and "Receipts of this month" in words(test)


def test_before_the_first_message_the_meter_says_how_it_renews(house: House) -> None:
    text = words(page("chat", "mara"))
    assert "Renews each month on the day of your first message" in text and "0 of 200,000 tokens" in text
    assert "Receipts of this month" not in text


def test_a_renewal_in_the_middle_of_the_day_is_told_with_its_hour(house: House) -> None:
    """Somebody who moved: the day of renewal stays where it was, their own clock shows another hour."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Again", "Yes."))
    house.accounts.set_zone(mara, "America/New_York")
    assert "Renews 22 December at 18:00, in 30 days" in words(page("chat", "mara"))


def test_an_own_limit_that_is_met_can_be_lifted_where_it_is_met(house: House) -> None:
    mara = person(house, "mara")
    write_chat(house, mara, ("Again", "Yes."), tokens=(1_500, 500))
    house.accounts.set_own_limit(mara, 3_000)
    test = page("chat", "mara")
    assert notices(test) == [
        "Your own limit of 3,000 tokens is reached. Nothing more is sent unless you lift it. "
        "It holds until 23 December; your allowance has 198,000 tokens left."
    ]
    test.button(key="seen_plain").click().run()
    assert notices(test) == []
    meter = house.accounts.meter(mara, house.answering.sizes())
    assert meter is not None and meter.own_limit is None


# --- Receipts in the chat ---------------------------------------------------------------------------------------------


def test_a_receipt_says_in_out_again_how_counted_and_what_part_it_is(house: House) -> None:
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Deposit", "Before."), tokens=(1_858, 448))
    text = words(page("chat", "mara", chat=chat))
    assert "2,306 tokens 11:15 1,858 in + 448 out measured 1.2 % of the allowance" in text
    assert "sent again" not in text


def resent(house: House, account: Account, tokens_in: int, again: int, tokens_out: int) -> str:
    """A chat whose one answer had so much earlier conversation sent with it."""
    chat = write_chat(house, account, ("Go on", "Gladly."), tokens=(tokens_in, tokens_out))
    house.store.write(lambda unit: unit._all("UPDATE usage_entries SET tokens_resent = ?", again))
    return chat


def test_when_most_of_a_message_was_sent_before_it_is_said_with_what_a_fresh_chat_saves(house: House) -> None:
    """More than half, not half."""
    mara = person(house, "mara")
    text = words(page("chat", "mara", chat=resent(house, mara, 1_800, 1_001, 200)))
    assert "of it 1,001 earlier conversation, sent again" in text
    assert "More than half of this was earlier conversation, sent again. A fresh chat saves about 1,001 tokens." in text
    assert "More than half" not in words(page("chat", "mara", chat=resent(house, mara, 1_800, 1_000, 200)))


@pytest.mark.parametrize(("left_out", "shortened"), [(3, False), (0, True), (3, True), (0, False)])
def test_what_gave_way_to_a_message_is_said_under_its_answer(house: House, left_out: int, shortened: bool) -> None:
    """Older messages, the length of the answer, or both."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Go on", "Gladly."))
    house.store.write(lambda unit: unit._all("UPDATE answers SET left_out = ?, shortened = ?", left_out, shortened))
    text = words(page("chat", "mara", chat=chat))
    assert ("Older messages of this chat were left out so that this one fitted" in text) == bool(left_out)
    assert ("This answer had less room than usual" in text) == shortened


def test_a_fresh_chat_begins_with_what_was_picked_and_nothing_is_sent(house: House) -> None:
    """In the composer, kept as that chat's draft over a reload."""
    mara = person(house, "mara")
    chat = resent(house, mara, 1_800, 1_001, 200)
    test = page("chat", "mara", chat=chat)
    test.button(key="fresh_pick").click().run()
    assert "Nothing picked yet." in notices(test)[0]
    answer = house.history.open(mara, chat).messages[1]
    test.session_state["picked"] = {answer.id}  # its button is plain HTML, which AppTest does not click
    test.run()
    assert "1 message picked, about" in notices(test)[0]
    test.button(key="pick_done").click().run()

    draft = "From an earlier chat.\n\nYou answered:\n> Gladly.\n\n"
    fresh = test.query_params["chat"]
    assert fresh != chat and house.history.draft(mara, fresh) == draft and test.chat_input[0].proto.value == draft
    assert [c.id for c in house.history.chats(mara)] == [chat] and len(house.accounts.receipts(mara)) == 1
    assert page("chat", "mara", chat=fresh).chat_input[0].proto.value == draft


def test_what_was_picked_with_nothing_in_it_is_an_empty_page(house: House, hands: Hands) -> None:
    mara = person(house, "mara")
    test = page("chat", "mara", chat=resent(house, mara, 1_800, 1_001, 200))
    hands.do(test, "fresh", test.query_params["chat"])
    test.button(key="pick_done").click().run()
    assert "chat" not in test.query_params and "What are you working on" in words(test)


def test_a_chat_can_be_told_to_remember_more_and_the_price_stands_beside_it(house: House, hands: Hands) -> None:
    mara = person(house, "mara")
    chat = write_chat(house, mara, *[(f"Question {n}", "It is a matter of taste. " * 60) for n in range(12)])
    test = page("chat", "mara", chat=chat)
    costs = house.answering.more_costs(house.history.open(mara, chat).messages)
    assert f"The model remembers from here on · Remember more, +{costs:,} tokens" in words(test)
    assert f"About {costs:,} tokens more with each message, {costs / 2_000:.1f} % of your allowance." in words(test)
    hands.do(test, "more", chat)
    assert house.history.open(mara, chat).remembers_more
    assert "Remember less" in words(test)
    hands.do(test, "less", chat)
    assert not house.history.open(mara, chat).remembers_more


def test_a_short_chat_has_no_more_to_remember(house: House) -> None:
    mara = person(house, "mara")
    text = words(page("chat", "mara", chat=write_chat(house, mara, ("Deposit", "Before."))))
    assert "Remember more" not in text and "remembers from here" not in text
