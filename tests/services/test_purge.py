"""Retention as people live with it: the day they are shown, ten minutes to change their mind, and chats that go on while old text is taken out."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.domain.chats import GONE_WITHIN, UNDO, deleted_on, readable_since
from chatpro.errors import Busy, NotAllowed, NotFound, PurgeFailed, StoreUnavailable, TooLate
from chatpro.models import Ended
from chatpro.models.scripted import Hold, ScriptedModel, words
from chatpro.services.housekeeping import PURGE_AGAIN_SECONDS, PURGE_FIRST_SECONDS
from chatpro.storage.duckdb import DuckStore
from tests.cast import Clock, build_house, person, write_chat
from tests.running import ended, running, send, started, until
from tests.storage.test_purge import hits

M = "k3strel7f3a9c51e2"
"""Stands in every text that has to go."""


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store packs no text, so that a search in its files finds what is there."""
    settings = DuckStore._settings
    monkeypatch.setattr(DuckStore, "_settings", lambda self: {**settings(self), "force_compression": "uncompressed"})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = build_house(tmp_path)
    yield built
    built.store.close()
    built.analytics.close()


def clock(house: House) -> Clock:
    assert isinstance(house.now, Clock)
    return house.now


def chat_ids(house: House, name: str = "mara") -> set[str]:
    return {chat.id for chat in house.history.chats(person(house, name))}


# --- the day that is shown -----------------------------------------------------------------------------------------------

ZONES = (
    "UTC", "Europe/Stockholm", "America/Sao_Paulo", "Pacific/Kiritimati", "Etc/GMT+12", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns",
    "Africa/Casablanca", "Pacific/Apia", "America/Los_Angeles",
)  # fmt: skip


@pytest.mark.fault(58)
@given(
    seconds=st.integers(0, 2_000 * 86_400),
    zone=st.sampled_from(ZONES),
    days=st.sampled_from([1, 7, 90, 366]),
)
def test_the_day_that_is_shown_is_the_day_of_the_purge(seconds: int, zone: str, days: int) -> None:
    """In any zone, over summer time and leap days: readable on every day before it, by nobody on any day after it, and on it up to the instant."""
    sent_at = datetime(2023, 11, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    gone_at = deleted_on(sent_at, days)
    shown = gone_at.astimezone(ZoneInfo(zone)).date()

    def midnight(day: date) -> datetime:
        return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)

    def readable(now: datetime) -> bool:
        return sent_at > readable_since(now, days)

    assert readable(gone_at - timedelta(microseconds=1)) and not readable(gone_at)
    assert readable(min(midnight(shown), gone_at) - timedelta(microseconds=1))
    assert not readable(max(midnight(shown + timedelta(days=1)), gone_at))
    assert midnight(shown) <= gone_at <= midnight(shown + timedelta(days=1))


@pytest.mark.fault(58)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_a_purge_on_the_day_before_takes_nothing_and_on_the_day_after_all(house: House, zone: str) -> None:
    """As far east and as far west as people live."""
    mara = person(house, "mara")
    house.accounts.set_zone(mara, zone)
    chat = write_chat(house, mara, ("A question", "An answer"))
    gone_at = house.history.open(mara, chat).last_deleted_on
    shown = gone_at.astimezone(ZoneInfo(zone)).date()

    clock(house).at = datetime.combine(shown, time(), ZoneInfo(zone)).astimezone(UTC) - timedelta(seconds=1)
    house.housekeeping.purge()
    assert len(house.history.open(mara, chat).messages) == 2
    clock(house).at = datetime.combine(shown + timedelta(days=1), time(), ZoneInfo(zone)).astimezone(UTC)
    assert house.housekeeping.purge() >= 2
    with pytest.raises(NotFound):
        house.history.open(mara, chat)


# --- deleting by the person ------------------------------------------------------------------------------------------------


def test_a_deletion_can_be_taken_back_for_ten_minutes(house: House) -> None:
    """Also when a purge ran in between; to the second."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("A question", "An answer"))
    until_when = house.history.delete(mara, chat)

    assert until_when == house.now() + UNDO == house.now() + timedelta(minutes=10)
    clock(house).at = until_when - timedelta(seconds=1)
    house.housekeeping.purge()
    house.history.restore(mara, chat)

    assert [m.text for m in house.history.open(mara, chat).messages] == ["A question", "An answer"]


def test_after_ten_minutes_it_can_not_and_the_next_rewrite_takes_the_text(house: House, tmp_path: Path) -> None:
    """The sentence says why; after the rewrite there is nothing of that id, as if it had never been."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, (f"A question {M}-q", f"An answer {M}-a"), title=f"A title {M}-t")
    house.store.write(lambda unit: unit.keep_draft(mara.id, chat, "d", f"A draft {M}-d", house.now()))
    house.store.checkpoint()  # type: ignore[attr-defined]
    assert min(hits(tmp_path, *(f"{M}-{kind}" for kind in "qatd"))) > 0
    clock(house).at = house.history.delete(mara, chat)

    with pytest.raises(TooLate, match="ten minutes"):
        house.history.restore(mara, chat)
    house.housekeeping.purge()

    assert hits(tmp_path, M) == [0]
    for attempt in (house.history.restore, house.history.delete, house.history.open):
        with pytest.raises(NotFound):
            attempt(mara, chat)


def test_the_ten_minutes_end_when_the_turn_comes_not_when_it_was_asked(house: House) -> None:
    """Otherwise a purge that began meanwhile has copied half of the chat without it, and half comes back."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("A question", "An answer"))
    until_when = house.history.delete(mara, chat)
    clock(house).at = until_when - timedelta(seconds=1)
    waits = threading.Event()
    turn = house.store.submit(lambda unit: (waits.wait(), setattr(house.now, "at", until_when))[0])
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            house.history.restore(mara, chat)
        except TooLate as error:
            caught.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: len(house.store._queue) == 1)  # type: ignore[attr-defined]
    waits.set()
    asking.join()

    assert turn.result() and len(caught) == 1


def test_all_own_chats_are_deleted_at_once_and_nobody_elses(house: House) -> None:
    """Each can be taken back; receipts stay."""
    mara, hal = person(house, "mara"), person(house, "hal")
    chats = {write_chat(house, mara, (f"Question {n}", "Answer")) for n in range(3)}
    receipts = house.accounts.receipts(mara)
    told: list[str] = []
    house.history.on_deleted.append(lambda account, chat: told.append(chat))
    his = chat_ids(house, "hal")

    gone = house.history.delete_all(mara)

    assert set(gone) == chats == set(told) and chat_ids(house) == set()
    assert house.accounts.receipts(mara) == receipts and chat_ids(house, "hal") == his != set()
    house.history.restore(mara, gone[1])
    assert chat_ids(house) == {gone[1]}
    assert house.history.delete_all(hal) and house.history.delete_all(hal) == []


def test_what_others_deleted_or_keep_is_untouched(house: House) -> None:
    """A purge takes what has to go and nothing younger, of everybody."""
    mara, hal = person(house, "mara"), person(house, "hal")
    old = write_chat(house, mara, ("Old", "Old"), at=house.now() - timedelta(days=91))
    young = write_chat(house, mara, ("Young", "Young"))
    house.history.delete(hal, next(iter(chat_ids(house, "hal"))))

    assert house.housekeeping.purge() == 2

    assert chat_ids(house) == {young}
    assert old not in {row[0] for row in house.store.read(lambda rows: rows._all("SELECT id FROM chats"))}
    assert len(house.store.read(lambda rows: rows._all("SELECT id FROM messages WHERE account_id = ?", hal.id))) == 2


def test_the_books_stay_as_they_are(house: House) -> None:
    """Receipts, counters, warnings and the audit's chain don't know of a purge."""
    tomas = person(house, "tomas")
    house.history.delete(tomas, next(iter(chat_ids(house, "tomas"))))
    before = (house.accounts.receipts(tomas), house.accounts.warnings(tomas), house.accounts.meter(tomas, house.answering.sizes()))
    clock(house).forward(minutes=20)

    assert house.housekeeping.purge() == 2

    assert (house.accounts.receipts(tomas), house.accounts.warnings(tomas), house.accounts.meter(tomas, house.answering.sizes())) == before
    report = house.housekeeping.report(person(house, "ada"))
    assert (report.counters_that_differ, report.audit_first_broken) == (0, None)


# --- while chats go on ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(56)
def test_twenty_chats_stream_while_their_old_messages_are_taken_out(tmp_path: Path) -> None:
    """Each chat survives with its new message, every answer comes to its end, and the old words are in no file."""
    text = " ".join(f"word{n}" for n in range(40))
    over = threading.Event()
    model = ScriptedModel(otherwise=(*words(text, gap=0.03, end=None), Hold(over), " And the end.", Ended("stop")))
    with running(tmp_path, model, running_per_account=20) as house:
        mara = person(house, "mara")
        chats = [write_chat(house, mara, (f"Old {M} {n}", f"Old {M} answer"), at=house.now() - timedelta(days=91)) for n in range(20)]
        house.store.checkpoint()  # type: ignore[attr-defined]
        assert hits(tmp_path, M)[0] >= 40
        sent = [send(house, mara, f"New {n}", chat) for n, chat in enumerate(chats)]
        assert model.wait_for_calls(20)

        assert house.housekeeping.purge() >= 40

        assert model.running == 20, "the control: all of them were being written meanwhile"
        over.set()
        for n, one in enumerate(sent):
            assert ended(house, mara, one, 20).text == f"{text} And the end."
            opened = house.history.open(mara, one.chat_id)
            assert ([m.text for m in opened.messages], opened.title) == ([f"New {n}", f"{text} And the end."], f"New {n}")
        assert hits(tmp_path, M) == [0]
        house.housekeeping.purge()
        assert chat_ids(house) >= set(chats)


@pytest.mark.fault(56)
def test_a_chat_deleted_while_its_answer_runs_is_stopped_charged_and_does_not_come_back(tmp_path: Path) -> None:
    """What was produced is charged; the purge takes question, parts and answer, also what was settled after the deletion."""
    model = ScriptedModel(otherwise=words(" ".join([f"{M}-said"] * 200), gap=0.02))
    with running(tmp_path, model) as house:
        mara = person(house, "mara")
        sent = send(house, mara, f"{M}-asked")
        until(lambda: house.store.read(lambda rows: rows.parts(sent.answer_id)))
        house.store.checkpoint()  # type: ignore[attr-defined]
        assert min(hits(tmp_path, f"{M}-asked", f"{M}-said")) > 0

        clock(house).at = house.history.delete(mara, sent.chat_id)
        until(lambda: house.answering.watch(mara.id, sent.answer_id) is None)
        house.housekeeping.purge()

        assert house.accounts.receipts(mara)[0].answer_id == sent.answer_id and house.accounts.receipts(mara)[0].receipt.total > 0
        assert chat_ids(house) == set()
        with pytest.raises(NotFound):
            house.history.open(mara, sent.chat_id)
        assert hits(tmp_path, M) == [0]


def test_nobody_goes_on_in_a_chat_that_was_purged(tmp_path: Path) -> None:
    """From a page that was open since: the same words before the purge and after it; the page puts the text into a new chat."""
    with running(tmp_path, ScriptedModel()) as house:
        mara = person(house, "mara")
        chat = write_chat(house, mara, ("Gone", "Gone"))
        last = house.history.open(mara, chat).messages[-1].id
        clock(house).at = house.history.delete(mara, chat)
        for _ in range(2):
            for attempt in (
                lambda: house.answering.send(mara, chat, "And now?", last),
                lambda: house.answering.go_on(mara, chat, last),
                lambda: house.answering.again(mara, chat, last, 10**9),
            ):
                with pytest.raises(NotFound):
                    attempt()
            house.housekeeping.purge()
        assert chat_ids(house) == set()


# --- by itself, and on request ------------------------------------------------------------------------------------------------


def test_it_runs_by_itself_soon_after_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody asking; its run is on record with its figures."""
    monkeypatch.setattr("chatpro.services.housekeeping.PURGE_FIRST_SECONDS", 0.05)
    house = build_house(tmp_path)
    write_chat(house, person(house, "mara"), (f"Old {M}", "Old"), at=house.now() - timedelta(days=90, hours=1))
    with started(house):
        ada = person(house, "ada")
        run = until(lambda: house.housekeeping.report(ada).last_purge, 10)
    assert (run.messages, run.chats, run.asked_by) == (2, 1, None)
    assert hits(tmp_path, M) == [0]


def test_the_times_of_the_purge(house: House) -> None:
    """Not in the first seconds, when everybody comes back; again in ten minutes where it failed."""
    job = next(job for job in house.housekeeping.jobs if job.name == "purge")
    assert (job.first, job.again) == (PURGE_FIRST_SECONDS, PURGE_AGAIN_SECONDS) == (20.0, 600.0)
    assert 2 * job.seconds <= GONE_WITHIN.total_seconds()


@pytest.mark.fault(59, 68)
def test_what_is_late_is_taken_out_before_the_first_page_is_served(tmp_path: Path) -> None:
    """A copy that was restored, or a server that was off for ten days."""
    house = build_house(tmp_path)
    write_chat(house, person(house, "mara"), (f"Old {M}", "Old"), at=house.now() - timedelta(days=85))
    house.store.checkpoint()  # type: ignore[attr-defined]
    clock(house).forward(days=10)
    assert hits(tmp_path, M)[0] > 0
    report = house.housekeeping.report(person(house, "ada"))
    assert (report.late_messages, report.last_purge) == (2, None)

    with started(house):
        assert hits(tmp_path, M) == [0]
        report = house.housekeeping.report(person(house, "ada"))
        assert report.late_messages == 0 and report.last_purge is not None and report.last_purge.messages == 2


def test_a_purge_that_fails_at_the_start_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Reading what is one's own still helps people; the timer tries again."""
    house = build_house(tmp_path)
    write_chat(house, person(house, "mara"), (f"Old {M}", "Old"), at=house.now() - timedelta(days=100))
    monkeypatch.setattr(house.store, "free_bytes", lambda: -(10**12))
    with started(house):
        assert house.housekeeping.report(person(house, "ada")).late_messages == 2
    assert "PurgeFailed" in caplog.text and M not in caplog.text


@pytest.mark.fault(61)
def test_why_it_can_not_run_stands_on_the_operations_page_until_it_can(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence with the megabytes, not one for everything."""
    job = next(job for job in house.housekeeping.jobs if job.name == "purge")
    with monkeypatch.context() as patch:
        patch.setattr(house.store, "free_bytes", lambda: -(10**12))
        asyncio.run(house.housekeeping.run(job))
        assert "MB of free disk" in house.housekeeping.report(person(house, "ada")).troubles["purge"]
    asyncio.run(house.housekeeping.run(job))
    assert house.housekeeping.report(person(house, "ada")).troubles == {}


def test_an_admin_may_ask_for_it_and_that_is_on_record(house: House) -> None:
    """Who asked, and what went; a run of the clock that took nothing writes nothing."""
    ada = person(house, "ada")
    write_chat(house, person(house, "mara"), ("Old", "Old"), at=house.now() - timedelta(days=91))
    house.housekeeping.purge_now(ada)
    house.housekeeping.purge()

    entries = [e for e in house.store.read(lambda rows: rows.audit_entries()) if e.action.startswith("purge.")]
    assert [(e.actor, e.action, e.reason) for e in entries] == [
        (ada.id, "purge.asked", None),
        ("housekeeping", "purge.done", "messages 2, titles 1, drafts 0, chats 1"),
    ]
    last = house.housekeeping.report(ada).last_purge
    assert last is not None and last.asked_by is None and last.messages == 0
    with pytest.raises(NotAllowed):
        house.housekeeping.purge_now(person(house, "mara"))


def test_while_one_runs_its_progress_is_told_and_no_second_begins(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin who asks again is told so; the clock that comes round does nothing."""
    ada = person(house, "ada")
    write_chat(house, person(house, "mara"), ("Old", "Old"), at=house.now() - timedelta(days=91))
    purge, seen = house.store.purge, []

    def look(*given: Any, **more: Any) -> Any:
        more["tell"]("writing messages anew", 0.4)
        seen.append(house.housekeeping.report(ada).purging)
        with pytest.raises(Busy):
            house.housekeeping.purge_now(ada)
        assert house.housekeeping.purge() == 0
        return purge(*given, **more)

    monkeypatch.setattr(house.store, "purge", look)
    house.housekeeping.purge()

    assert [(p.doing, p.share) for p in seen] == [("writing messages anew", 0.4)]
    assert house.housekeeping.report(ada).purging is None


def test_the_end_of_the_server_ends_it_quietly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Between two steps, without a fault on record; the next start begins it again."""
    house = build_house(tmp_path)
    write_chat(house, person(house, "mara"), (f"Old {M}", "Old"), at=house.now() - timedelta(days=91))
    asyncio.run(house.housekeeping.close())
    with caplog.at_level(logging.INFO):
        assert house.housekeeping.purge() == 0
    assert house.store.read(lambda rows: rows.last_purge()) is None and "purge" not in caplog.text
    asyncio.run(bootstrap.stop(house))


@pytest.mark.fault(94)
def test_no_word_of_what_goes_stands_in_a_log_or_in_the_audit(house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it fails in the middle."""
    mara = person(house, "mara")
    write_chat(house, mara, (f"Old {M}", f"Old {M}"), title=M, at=house.now() - timedelta(days=91))

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable

    with caplog.at_level(logging.DEBUG), monkeypatch.context() as patch:
        patch.setattr("chatpro.storage.rewrite._replace", fail)
        with pytest.raises((StoreUnavailable, PurgeFailed)):
            house.housekeeping.purge()
    with caplog.at_level(logging.DEBUG):
        house.housekeeping.purge()
    assert M not in caplog.text
    assert M not in repr(house.store.read(lambda rows: rows.audit_entries()))
