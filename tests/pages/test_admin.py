"""The pages of those who run this: figures without anybody's words, and how the house stands."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta

import pytest
from streamlit.testing.v1 import AppTest

from chatpro.bootstrap import House
from chatpro.domain.accounts import Role
from chatpro.domain.allowance import Charge
from chatpro.domain.cells import TOO_FEW
from chatpro.domain.chats import AnswerState
from chatpro.domain.tables import csv_text
from chatpro.errors import NotAllowed
from chatpro.storage.sql import Call
from tests.cast import person, write_chat
from tests.pages.conftest import NOT_FOUND, html_of, page, title_of, words


def many_use(house: House, *days_ago: int, people: int = 12, tokens: tuple[int, int] = (900, 100)) -> None:
    """Ledger rows of people beyond the cast, carried over."""

    def work(unit) -> None:  # type: ignore[no-untyped-def]
        for ago in days_ago:
            at = house.now() - timedelta(days=ago)
            for n in range(people):
                call = Call(f"p{n}", f"a{n}", "c", "q", "r", 1, AnswerState.FINISHED, "gpt-4", "1", f"r{n}", "settled", at, 1, 1, 1, 0, 1, at, at, 1)
                unit.add_usage_entry(call, "Freelancer Plus", Charge(*tokens, "measured", 0), 0, 300, 2_000, "finished", at)

    house.store.write(work)
    house.housekeeping.carry()


def figures(test: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in test.metric}


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(110)
def test_below_ten_people_there_is_a_sentence_and_no_figure(house: House) -> None:
    """The cast alone: no chart, no headline, no zero that would be wrong."""
    house.housekeeping.carry()
    test = page("admin", "priya")

    assert title_of(test) == "Usage"
    assert TOO_FEW in words(test)
    assert (figures(test), test.get("plotly_chart"), test.get("download_button")) == ({}, [], [])


def test_two_questions_are_answered_with_charts(house: House) -> None:
    """Each with its definition, how far it is complete, its finding in words and its numbers as a file."""
    many_use(house, 5, 4, 3)
    test = page("admin", "priya")

    assert [h.value for h in test.header] == ["How many tokens are used each day?", "How many warnings are given each day?"]
    assert len(test.get("plotly_chart")) == len(test.get("download_button")) == 2
    alts = [chart.proto.alt for chart in test.get("plotly_chart")]
    assert "tokens in and" in alts[0] and "None was given" in alts[1]
    assert "Copied 23 Nov 2026, 10:15 UTC" in words(test)


def test_the_headline_adds_up(house: House) -> None:
    """Three days of twelve people, 36 answers of 1,000 tokens, and one of 500 that Hal got some days before: in the first cell, not alone."""
    many_use(house, 5, 4, 3)
    test = page("admin", "priya")

    assert figures(test) == {"Tokens used": "36,500", "Answers": "37", "Tokens an answer": "986", "Warnings given": "0"}


def test_the_period_is_chosen_and_read_from_the_address(house: House) -> None:
    """Seven days, thirty unless something else is chosen, ninety; what is no option is thirty."""
    many_use(house, 60, 20, 3)

    def answers(**query: str) -> str:
        return figures(page("admin", "priya", **query))["Answers"]

    assert [answers(), answers(period="90 days"), answers(period="abc"), answers(days="1e9", account="mara")] == ["25", "37", "25", "25"]
    test = page("admin", "priya")
    test.segmented_control(key="period").set_value("90 days").run()
    assert figures(test)["Answers"] == "37"


@pytest.mark.fault(109)
def test_no_word_of_anybody_is_on_the_page(house: House, spy_on_text: Callable[[], list[str]]) -> None:
    """A marker in a chat and its title, an account's name: none of it is read, none of it is in anything that is sent."""
    marker = "q7Zr2vK9wXb4TnLh8sYc"
    write_chat(house, person(house, "mara"), (f"{marker} for my client", f"{marker} indeed"), title=f"{marker} title")
    many_use(house, 5, 4, 3)
    before = len(spy_on_text())
    test = page("admin", "priya", period="90 days")

    assert spy_on_text()[before:] == []
    sent = words(test) + html_of(test) + "".join(str(block.proto) for block in test.main) + "".join(str(block.proto) for block in test.sidebar)
    assert "Usage" in sent and "Copied" in sent
    for text in (marker, "Mara Lindqvist", person(house, "mara").id):
        assert text not in sent


def test_the_file_holds_the_numbers_of_the_chart() -> None:
    """Days as text, sums as numbers; a spreadsheet adds them up."""
    rows = list(csv.reader(io.StringIO(csv_text(("first day", "tokens in"), [("2026-11-20", 10_800), ("2026-11-21", -3)]), newline="")))

    assert rows == [["first day", "tokens in"], ["2026-11-20", "10800"], ["2026-11-21", "-3"]]


@pytest.mark.fault(16)
@pytest.mark.parametrize("name", ["mara", "nia", "jude", "ana", "otto", "ada"])
def test_only_analysts_get_figures(house: House, name: str) -> None:
    """The page is not found for anybody else, and each verb behind it refuses by itself."""
    actor = person(house, name)
    assert Role.ANALYST not in actor.roles

    assert title_of(page("admin", name)) == NOT_FOUND
    for verb in (
        lambda: house.analytics.tokens_by_day(actor, 30),
        lambda: house.analytics.warnings_by_day(actor, 30),
        lambda: house.analytics.totals(actor, 30),
    ):
        with pytest.raises(NotAllowed):
            verb()
    with pytest.raises(NotAllowed):
        house.analytics.as_of(actor)


# --- operations -------------------------------------------------------------------------------------------------------


def test_a_well_house_needs_no_attention(house: House) -> None:
    """The model that answers, a store that is whole, an audit that holds."""
    test = page("operations", "ada")

    assert title_of(test) == "Operations"
    for said in ("Nothing needs attention.", "GPT-4", "Works", "Whole", "Holds"):
        assert said in words(test)


@pytest.mark.fault(52)
def test_a_repaired_counter_is_shown(house: House) -> None:
    """Out of step before the reconcile, put right after it, by account id and figures."""
    tomas = person(house, "tomas")
    starts_at = house.store.read(lambda rows: rows.latest_cycle_starts_at(tomas.id))
    assert starts_at is not None
    house.store.write(lambda unit: unit.set_counter(tomas.id, starts_at, 5, 0))

    assert "1 counter out of step" in words(page("operations", "ada"))
    house.housekeeping.reconcile()
    after = words(page("operations", "ada"))
    assert "used 5 to 193640" in after and tomas.id in after and "Nothing needs attention." in after


def test_a_failing_job_and_a_model_in_trouble_are_said(house: House) -> None:
    """Each as a sentence, together in one notice."""
    house.housekeeping.troubles["carry"] = "New rows could not be carried over for the figures."
    house.model.trouble = "gpt-4 is shut down by its provider on 23 October 2026."  # type: ignore[misc]

    said = words(page("operations", "ada"))

    assert "2 things need attention." in said
    assert "carried over" in said and "shut down by its provider" in said


def test_an_admin_has_text_past_its_days_taken_out(house: House) -> None:
    """What is late is said; one click takes it out, the page says when and how much, and the audit has who asked."""
    write_chat(house, person(house, "mara"), ("Old", "Old"), at=house.now() - timedelta(days=92))
    test = page("operations", "ada")
    assert "2 messages or deleted chats are in the files for more than a day past their time" in words(test) and "None yet" in words(test)

    test.button(key="purge_now").click().run()

    said = words(test)
    assert "2 messages, 1 title, 0 drafts, 1 chat" in said and "Nothing needs attention." in said
    assert [e.actor for e in house.store.read(lambda rows: rows.audit_entries()) if e.action == "purge.asked"] == [person(house, "ada").id]


@pytest.mark.fault(109)
def test_operations_read_nobodys_words(house: House, spy_on_text: Callable[[], list[str]]) -> None:
    """Admin gives no reading of chats: counts and ids, and no key of the configuration."""
    before = len(spy_on_text())
    said = words(page("operations", "ada"))

    assert [verb for verb in spy_on_text()[before:] if verb != "usage_entries"] == []
    assert "Late fee" not in said and "late fee" not in said
