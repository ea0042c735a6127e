"""The sample people, those with names and the three hundred behind them: consistent to the token, made once, and never outside demo mode."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest

from chatpro import sample
from chatpro.config import Settings
from chatpro.domain.accounts import Account, PlanState, Role, consents_to, grant_at
from chatpro.domain.allowance import cycle_at, warnings_due
from chatpro.domain.chats import AnswerState, conversation, readable_since
from chatpro.domain.disputes import first_broken
from chatpro.domain.months import AROUND, MadeUp
from chatpro.models import Turn
from chatpro.services.answering import Answering
from chatpro.storage import Unit
from chatpro.storage.analytics import Copy
from chatpro.storage.duckdb import DuckStore
from chatpro.tokens import count_turns
from tests.cast import Source
from tests.domain.test_months import SIZES

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
ALL_DAYS = NOW - timedelta(days=3_650)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckStore]:
    """A store with the sample people and seven load-test accounts; the tests of this file only read it."""
    filled = DuckStore(tmp_path_factory.mktemp("demo") / "chatpro.duckdb", memory="256MB", threads=1)
    sample.fill(filled, Settings(sample_accounts=7), NOW)
    yield filled
    filled.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[DuckStore]:
    fresh = DuckStore(tmp_path / "demo" / "chatpro.duckdb", memory="256MB", threads=1)
    yield fresh
    fresh.close()


@pytest.fixture(scope="module")
def others(store: DuckStore) -> list[str]:
    """Ids of the freelancers without names."""
    found = store.read(lambda rows: rows._all("SELECT id FROM accounts WHERE issuer = 'sample' AND sample AND subject LIKE 'freelancer-%'"))
    assert len(found) == 300
    return [row[0] for row in found]


def used_now(rows: Unit, subject: str) -> float:
    """The share of the allowance that somebody has used in the current cycle."""
    account = rows.account_by_subject("sample", subject)
    assert account is not None
    anchor = rows.anchor(account.id)
    assert anchor is not None
    return rows.standing(account.id, cycle_at(anchor, NOW).starts_at, 200_000).used / 200_000


def test_the_counters_are_what_the_ledger_says(store: DuckStore) -> None:
    """Receipts sum to the meter for every made-up person and cycle."""
    assert store.read(lambda rows: rows.counters_that_differ()) == []
    assert store.read(lambda rows: rows.pending_past(NOW + timedelta(days=1))) == []


def test_each_state_of_the_plan_and_each_role_has_somebody(store: DuckStore) -> None:
    """A visitor can sign in as every kind of person there is."""

    def work(rows: Unit) -> tuple[dict[str, PlanState], dict[str, bool], set[Role]]:
        people = {a.subject: a for a in rows.sample_accounts()}
        states = {name: grant_at(rows.entitlements(a.id), NOW).state for name, a in people.items()}
        yes = {name: consents_to(1, rows.consents(a.id)) for name, a in people.items()}
        assert all(a.sample and a.issuer == "sample" for a in people.values())
        return states, yes, {role for a in people.values() for role in a.roles}

    states, yes, roles = store.read(work)

    assert roles == set(Role)
    assert (states["mara"], states["tomas"], states["nia"], states["hal"], states["lea"]) == (
        PlanState.HAS, PlanState.HAS, PlanState.NEVER, PlanState.HAD, PlanState.HAS,
    )  # fmt: skip
    assert (yes["mara"], yes["lea"]) == (True, False)


def test_the_meters_stand_where_they_are_told_to(store: DuckStore) -> None:
    """Mara in the calm part, Tomás past both warnings, Greta used up; each by whole receipts."""

    def work(rows: Unit) -> tuple[list[float], list[str], list[str]]:
        tomas, greta = rows.account_by_subject("sample", "tomas"), rows.account_by_subject("sample", "greta")
        assert tomas is not None and greta is not None
        newest = rows.latest_cycle_starts_at(tomas.id), rows.latest_cycle_starts_at(greta.id)
        kinds = [[w.kind for w in rows.warnings(a.id) if w.cycle_starts_at == c] for a, c in ((tomas, newest[0]), (greta, newest[1]))]
        assert newest[1] is not None
        assert rows.standing(greta.id, newest[1], 200_000).last_charged
        return [used_now(rows, "mara"), used_now(rows, "tomas")], kinds[0], kinds[1]

    shares, warned, used_up = store.read(work)

    assert shares == [0.62, 0.97]
    assert warned == ["75", "95"]
    assert used_up == ["75", "95", "last_message"]


def reserved(rows: Unit, account_id: str) -> dict[str, tuple[int, datetime, datetime]]:
    """Of each answer of an account: the tokens set aside for it, when it began, and the start of its cycle."""
    sql = (
        "SELECT u.answer_id, r.tokens, r.made_at, r.cycle_starts_at FROM usage_entries u JOIN reservations r ON r.id = u.reservation_id WHERE u.account_id = ?"
    )
    return {row[0]: (row[1], row[2].replace(tzinfo=UTC), row[3].replace(tzinfo=UTC)) for row in rows._all(sql, account_id)}


@pytest.mark.parametrize("subject", ["mara", "tomas", "bruno", "greta"])
def test_no_reservation_took_more_than_was_free(store: DuckStore, subject: str) -> None:
    """Replayed in the order of time, each send left the smallest useful send free, and no charge was beyond its reservation."""

    def work(rows: Unit) -> None:
        account = rows.account_by_subject("sample", subject)
        assert account is not None
        used: dict[datetime, int] = {}
        set_aside = reserved(rows, account.id)
        for entry in reversed(rows.usage_entries(account.id)):
            tokens, _, _ = set_aside[entry.answer_id]
            before = used.get(entry.cycle_starts_at, 0)
            free = 0 if before + tokens == 200_000 else 2_000  # a last message takes all that is left
            assert before + tokens <= 200_000 - free
            assert entry.receipt.total <= tokens
            assert entry.receipt.tokens_resent <= entry.receipt.tokens_in
            used[entry.cycle_starts_at] = before + entry.receipt.total

    store.read(work)


@pytest.mark.parametrize("subject", ["mara", "hal", "aiko", "yara"])
def test_cycles_begin_on_the_day_of_first_use(store: DuckStore, subject: str) -> None:
    """Every entry stands in the cycle that its own time and the anchor give, and the anchor is the day of the first message."""

    def work(rows: Unit) -> None:
        account = rows.account_by_subject("sample", subject)
        assert account is not None
        anchor, began = rows.anchor(account.id), reserved(rows, account.id).values()
        assert anchor is not None
        assert min(at for _, at, _ in began).astimezone(ZoneInfo(anchor.zone)).date() == anchor.day
        assert all(starts_at == cycle_at(anchor, at).starts_at for _, at, starts_at in began)

    store.read(work)


def test_warnings_were_given_where_usage_passed_them(store: DuckStore) -> None:
    """For each cycle the kinds that its sum has reached, no other, and the one for a last message only where there was one."""

    def given_to(rows: Unit, account: Account) -> int:
        given, warnings = 0, rows.warnings(account.id)
        sums: dict[datetime, int] = {}
        for entry in rows.usage_entries(account.id):
            sums[entry.cycle_starts_at] = sums.get(entry.cycle_starts_at, 0) + entry.receipt.total
        for starts_at, used in sums.items():
            kinds = {w.kind for w in warnings if w.cycle_starts_at == starts_at}
            assert kinds - {"last_message"} == set(warnings_due(200_000, used))
            assert ("last_message" in kinds) == rows.standing(account.id, starts_at, 200_000).last_charged
            given += len(kinds)
        return given

    people = store.read(lambda rows: rows.sample_accounts())
    assert sum(store.read(lambda rows, a=account: given_to(rows, a)) for account in people) > 10  # type: ignore[misc]


def test_the_others_were_warned_exactly_as_their_ledger_says(store: DuckStore, others: list[str]) -> None:
    """Reckoned from entries, reservations and entitlements alone, in the order of time: each kind when usage reached it under the figure that was
    in force, once, and the last message where one was reserved."""
    events: dict[str, list[tuple[datetime, int, Any]]] = {who: [] for who in others}
    ask = {
        "entry": "SELECT u.account_id, u.settled_at, u.cycle_starts_at, u.tokens_in + u.tokens_out, r.allowance FROM usage_entries u JOIN reservations r "
        "ON r.id = u.reservation_id ORDER BY u.sequence",
        "grant": "SELECT account_id, recorded_at, allowance, ends_at FROM entitlements ORDER BY sequence",
        "cycle": "SELECT account_id, starts_at, ends_at FROM cycles",
        "given": "SELECT account_id, cycle_starts_at, kind, allowance, given_at FROM warnings",
        "last": "SELECT account_id, cycle_starts_at, 'last_message', allowance, min(made_at) FROM reservations WHERE kind = 'last' GROUP BY 1, 2, 3, 4",
    }
    found = {name: [row for row in store.read(lambda rows, q=sql: rows._all(q)) if row[0] in events] for name, sql in ask.items()}  # type: ignore[misc]
    for row in found["entry"]:
        events[row[0]].append((row[1], 0, row))
    for row in found["grant"]:
        events[row[0]].append((row[1], 1, row))
    ends = {(who, start): end for who, start, end in found["cycle"]}

    due: dict[tuple[object, ...], datetime] = {}
    for who, moments in events.items():
        used: dict[datetime, int] = {}
        figure = None
        for at, kind, row in sorted(moments, key=lambda moment: moment[:2]):
            if kind == 1:
                figure = row[2] if row[3] is None else None
                cycles = [start for start in used if figure and at < ends[who, start]]
            else:
                used[row[2]] = used.get(row[2], 0) + row[3]
                cycles = [row[2]]
            for start in cycles:
                reached = figure or row[4]
                for percent in (75, 95):
                    if used[start] * 100 >= reached * percent:
                        due.setdefault((who, start, str(percent), reached), at)
    due |= {tuple(row[:4]): row[4] for row in found["last"]}
    given = {tuple(row[:4]): row[4] for row in found["given"]}

    assert len(given) == len(found["given"]) > 100
    assert given == due


def test_nobody_can_read_a_word_of_the_others(store: DuckStore, others: list[str]) -> None:
    """They have figures and no text, so the demo stays small; and the sign-in page offers the people with names only."""
    written = store.read(lambda rows: {row[0] for table in ("messages", "titles", "drafts") for row in rows._all(f"SELECT account_id FROM {table}")})

    assert not set(others) & written
    roles = store.read(lambda rows: rows._all("SELECT account_id, role FROM roles"))
    assert {(who, role) for who, role in roles if who in set(others)} == {(who, "freelancer") for who in others}
    assert [a.subject for a in store.read(lambda rows: rows.sample_accounts())] == [person.subject for person in sample.PEOPLE]


def test_the_figures_show_a_living_product(store: DuckStore, tmp_path: Path) -> None:
    """The copy takes them all over: for most days of the last ninety at least ten people stand behind a figure, and its sums are the ledger's."""
    copy = Copy(tmp_path / "analytics.duckdb")
    copy.carry_over(store, NOW)
    cells = copy.cells(0, 1_000_000)
    copy.close()

    entries = store.read(lambda rows: rows.rows_after("usage_entries", 0, 1_000_000))
    last = cells[-1].last
    assert sum(c.tokens_in + c.tokens_out for c in cells) == sum(row[6] + row[7] for row in entries if row[17] <= last)
    assert len([c for c in cells if c.days == 1]) > 80
    assert sum(c.warned_75 for c in cells) > sum(c.warned_95 for c in cells) > sum(c.warned_last for c in cells) > 20


def test_mara_has_chats_worth_reading(store: DuckStore) -> None:
    """At least five, in one path each, with a table, code, a list, a long title, a stopped and an interrupted answer, none past its 90 days."""

    def work(rows: Unit) -> tuple[list[str], str, set[AnswerState]]:
        mara = rows.account_by_subject("sample", "mara")
        assert mara is not None
        since = readable_since(NOW, 90)
        chats = rows.chats(mara.id, since)
        read = [rows.messages(mara.id, chat.id, since) for chat in chats]
        assert [len(conversation(messages)) for messages in read] == [chat.messages for chat in chats]
        states = {m.answer.state for messages in read for m in messages if m.answer}
        assert all(m.answer.receipt for messages in read for m in messages if m.answer)
        return [chat.title for chat in chats], "\n".join(m.text for messages in read for m in messages), states

    titles, text, states = store.read(work)

    assert len(titles) >= 5
    assert max(map(len, titles)) == 60
    assert "```python" in text and "|---|" in text and "\n1. " in text
    assert states == {AnswerState.FINISHED, AnswerState.STOPPED, AnswerState.INTERRUPTED}


def test_hal_wrote_nothing_after_his_plan_ended(store: DuckStore) -> None:
    """His old chats are there to read; the last of them is older than the end."""

    def work(rows: Unit) -> tuple[int, datetime]:
        hal = rows.account_by_subject("sample", "hal")
        assert hal is not None
        return len(rows.chats(hal.id, readable_since(NOW, 90))), rows.usage_entries(hal.id)[0].at

    chats, last = store.read(work)

    assert chats == 2
    assert last < NOW - timedelta(days=12)


def test_at_least_ten_people_have_used_something(store: DuckStore) -> None:
    """Or the figures of the admin page could never be shown."""
    used = store.read(lambda rows: [a.subject for a in rows.sample_accounts() if rows.usage_entries(a.id, 1)])

    assert len(used) >= 12


def test_the_audit_chain_holds(store: DuckStore) -> None:
    """Making the samples is on record, in the chain like everything else."""
    entries = store.read(lambda rows: rows.audit_entries())

    assert first_broken(entries) is None
    assert [e.action for e in entries] == ["samples.made"]


def test_nothing_is_made_twice(empty: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start, also on another day, finds the samples there; more load-test accounts are added, none is taken away."""
    sample.fill(empty, Settings(sample_accounts=3, sample_freelancers=4), NOW)
    before = empty.read(lambda rows: (rows.sample_accounts(), len(rows.rows_after("usage_entries", 0, 10_000))))

    monkeypatch.setattr(MadeUp, "run", mock.Mock(side_effect=AssertionError("months were made up a second time")))
    sample.fill(empty, Settings(sample_accounts=5, sample_freelancers=9), NOW + timedelta(days=3))
    sample.fill(empty, Settings(), NOW + timedelta(days=4))

    assert empty.read(lambda rows: (rows.sample_accounts(), len(rows.rows_after("usage_entries", 0, 10_000)))) == before
    assert [n for n in range(1, 9) if empty.read(lambda rows, n=n: rows.account_by_subject("sample", f"bench-{n}"))] == [1, 2, 3, 4, 5]


def test_load_test_accounts_can_write_at_once(store: DuckStore) -> None:
    """They have the plan with a very large allowance and have said yes; the sign-in page does not list them."""

    def work(rows: Unit) -> None:
        seventh = rows.account_by_subject("sample", "bench-7")
        assert seventh is not None and seventh.roles == {Role.FREELANCER} and seventh.sample
        entitlement = grant_at(rows.entitlements(seventh.id), NOW).entitlement
        assert entitlement is not None and entitlement.allowance == 2_000_000_000
        assert consents_to(1, rows.consents(seventh.id))
        assert not [a for a in rows.sample_accounts() if a.subject.startswith("bench-")]

    store.read(work)


@pytest.mark.fault(9)
def test_outside_demo_mode_nothing_is_made(empty: DuckStore) -> None:
    """With sign-in configured the samples are refused loudly, even if somebody called for them."""
    with pytest.raises(RuntimeError):
        sample.fill(empty, Settings(auth={"provider": {}}), NOW)

    assert empty.read(lambda rows: rows.sample_accounts()) == []


@pytest.mark.parametrize("allowance", [7_500, 60_000, 1_000_000_000])
def test_another_allowance_still_adds_up(empty: DuckStore, allowance: int) -> None:
    """Under a smaller one everything shrinks, under a larger one nobody is near its end; the rules hold either way."""
    sample.fill(empty, Settings(allowance_tokens=allowance, sample_freelancers=5), NOW)

    assert empty.read(lambda rows: rows.counters_that_differ()) == []
    entries = empty.read(lambda rows: [e for a in rows.sample_accounts() for e in rows.usage_entries(a.id)])
    assert max(e.receipt.total for e in entries) <= min(allowance, 7_500)


def test_ten_thousand_load_test_accounts_are_a_matter_of_seconds(empty: DuckStore) -> None:
    """One row at a time it took a minute. Seconds of work, not of the clock: the machine is shared."""
    began = time.process_time()
    sample.fill(empty, Settings(sample_accounts=10_000, sample_freelancers=0), NOW)

    assert time.process_time() - began < 10
    assert empty.read(lambda rows: rows.account_by_subject("sample", "bench-10000")) is not None


def test_the_months_are_made_with_the_sizes_that_the_service_has(empty: DuckStore) -> None:
    """What `make trials` counts is this product: its instructions, its defaults, and what is counted around each turn."""
    service = Answering(empty, Settings(), Source(None), lambda: NOW).sizes()

    assert sample.scene(Settings(), NOW).sizes == service == SIZES
    assert count_turns((Turn("user", ""),), "cl100k_base") == AROUND
