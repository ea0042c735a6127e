"""Closing an account: what goes, what stays under a random number, and what somebody finds who comes back."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatpro import bootstrap, sample
from chatpro.bootstrap import House
from chatpro.config import Settings
from chatpro.domain.accounts import COOKIE_DAYS, Account, PlanState, Role, identity_from, sign_in_digest
from chatpro.domain.allowance import Accepted, Charge, SendKind, cycle_at
from chatpro.domain.chats import UNDO
from chatpro.domain.disputes import first_broken
from chatpro.errors import AccountClosed, ChatProError, NotAllowed, NotFound
from chatpro.models.scripted import Hold, ScriptedModel, ScriptedSource
from chatpro.services.accounts import LastAdmin
from chatpro.services.answering import InLine, NotSent
from chatpro.services.export import Form
from chatpro.services.history import View
from chatpro.storage import Unit, rewrite
from chatpro.storage.duckdb import DuckStore
from tests.cast import ISSUER, PLAN, Clock, Echo, Source, build_house, person, spend, write_chat
from tests.running import running, send, until
from tests.services.test_export import fetch, many, unzipped
from tests.storage.children import child
from tests.storage.test_purge import going_on, hits

AUTH = {"redirect_uri": "https://chat.example/oauth2callback", "cookie_secret": "made up, " * 8}
M, KEPT = "k3strel7f3a9c51e2", "w4gtail5b1d0e77aa"
"""Markers: of what has to go with the account, and of somebody else's things, which have to stay."""

pytestmark = pytest.mark.fault(113)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store packs no text, so that a search in its files finds what is there."""
    settings_ = DuckStore._settings
    monkeypatch.setattr(DuckStore, "_settings", lambda self: {**settings_(self), "force_compression": "uncompressed"})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house with sign-in; the cast comes from the provider."""
    built = build_house(tmp_path, auth=AUTH)
    yield built
    built.store.close()
    built.analytics.close()


def clock(house: House) -> Clock:
    assert isinstance(house.now, Clock)
    return house.now


def arrive(house: House, subject: str = "mara", *, said_at: datetime | None = None, plan: str = PLAN, **claims: Any) -> Account:
    """Somebody arrives with a cookie that the provider signed a second from now, or then."""
    at = said_at or house.now() + timedelta(seconds=1)
    given = {"iss": ISSUER, "sub": subject, "aud": "chat", "name": subject.title(), "iat": int(at.timestamp()), "plan": plan, **claims}
    return house.accounts.sign_in(identity_from(given, roles_claim=None, plan_claim="plan"))


def meter(house: House, account: Account) -> Any:
    found = house.accounts.meter(account, house.answering.sizes())
    assert found is not None
    return found


def row(house: House, account_id: str) -> Account:
    """The account's row, closed or not."""
    found = house.store.read(lambda rows: rows.account(account_id))
    assert found is not None
    return found


# --- what goes and what stays -----------------------------------------------------------------------------------------


def test_a_closed_account_is_nobody_and_its_ledger_stays(house: House) -> None:
    """No name, no mail, no sign-in, no role, no chat; every figure, warning and word of consent is what it was, and the record says who closed it."""
    tomas = person(house, "tomas")
    write_chat(house, tomas, ("A question", "An answer"))
    before = (house.accounts.receipts(tomas), house.accounts.warnings(tomas), house.accounts.consents(tomas), house.accounts.entitlements(tomas))
    assert all(before)

    house.accounts.close(tomas)

    left = row(house, tomas.id)
    assert (left.name, left.email, left.issuer, left.subject, left.roles, left.closed) == ("", None, "closed", tomas.id, frozenset(), True)
    assert house.accounts.find(tomas.id) is None
    assert house.store.read(lambda rows: rows.account_by_subject(tomas.issuer, tomas.subject)) is None
    assert house.store.read(lambda rows: rows.chats(tomas.id, house.now() - timedelta(days=90))) == []
    assert (house.accounts.receipts(tomas), house.accounts.warnings(tomas), house.accounts.consents(tomas), house.accounts.entitlements(tomas)) == before
    newest = house.store.read(lambda rows: rows.audit_entries())[-1]
    assert (newest.actor, newest.action, newest.subject, newest.reason) == (tomas.id, "account.closed", tomas.id, "chats 2")
    assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    assert house.store.read(lambda rows: first_broken(rows.audit_entries())) is None


def crowd(house: House) -> None:
    """Thousands of others. Among few accounts DuckDB itself writes anew what lies around a row that goes, and nothing would be proved."""
    made = "SELECT 'crowd' || i, 'https://other.example', 'crowd' || i, 'Somebody', NULL, 'UTC', false, ? FROM range(6000) r(i)"
    house.store.write(lambda unit: unit._all(f"INSERT INTO accounts {made}", house.now()))
    until(house.store.checkpoint)


@pytest.mark.fault(55)
def test_text_name_mail_and_sign_in_are_in_no_file_after_the_next_rewrite(house: House, tmp_path: Path) -> None:
    """With controls: before it all of it is found, afterwards all of somebody else's still is."""
    kinds = ("name", "mail", "subject", "text", "title", "draft", "unbegun", "deleted")
    people = {}
    for mark in (M, KEPT):
        who = people[mark] = arrive(house, f"{mark}-subject", name=f"{mark}-name", email=f"{mark}-mail@example.com", email_verified=True)
        house.accounts.opt_in(who)
        chat = write_chat(house, who, (f"{mark}-text one", f"{mark}-text two"), title=f"{mark}-title")
        house.answering.keep(who, chat, f"{mark}-draft")
        house.answering.keep(who, house.answering.new_chat_id(), f"{mark}-unbegun")
        deleted = write_chat(house, who, (f"{mark}-deleted one", "Yes."))
        house.history.delete(who, deleted)
    crowd(house)
    house.housekeeping.purge()
    counts = [*(f"{M}-{kind}" for kind in kinds), *(f"{KEPT}-{kind}" for kind in kinds)]
    assert min(hits(tmp_path, *counts)) > 0, "the control: before it, all of it is found"
    entries = len(house.accounts.receipts(people[M]))

    house.accounts.close(people[M])
    clock(house).forward(minutes=11)
    house.housekeeping.purge()

    assert hits(tmp_path, M) == [0]
    assert min(hits(tmp_path, *(f"{KEPT}-{kind}" for kind in kinds if kind != "deleted"))) > 0, "the control: after it, what stays is found"
    assert len(house.accounts.receipts(people[M])) == entries == 2
    house.store.close()
    assert hits(tmp_path, M) == [0]


def test_names_go_with_the_next_rewrite_though_the_last_one_was_a_moment_ago(house: House, tmp_path: Path) -> None:
    """Accounts are written anew only after somebody closed theirs; also when the clock was set back since the last run."""
    who = arrive(house, f"{M}-1", name=f"{M}-1")
    crowd(house)
    house.housekeeping.purge()
    clock(house).forward(minutes=-30)
    house.accounts.close(who)
    assert hits(tmp_path, M)[0] > 0

    house.housekeeping.purge()

    assert hits(tmp_path, M) == [0]
    writing: list[str] = []
    last = house.store.read(lambda rows: rows.last_purge())
    clock(house).forward(days=1)
    house.store.purge(house.now() - timedelta(days=90), house.now(), last=replace(last, began_at=house.now()), tell=lambda doing, _: writing.append(doing))  # type: ignore[type-var]
    assert [doing for doing in writing if "accounts" in doing] == []


def test_nobody_brings_back_a_chat_of_a_closed_account(house: House) -> None:
    """Neither a page that is still open, nor whoever comes back: for ten minutes the text is in the files, and out of everybody's reach."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, (f"{M} question", "An answer"))
    house.accounts.close(mara)

    again = arrive(house)
    for account in (again, row(house, mara.id)):
        with pytest.raises(ChatProError):
            house.history.restore(account, chat)
        with pytest.raises(ChatProError):
            house.history.open(account, chat)
    assert house.history.chats(again) == [] and M not in repr(house.history.listing(again, View()))


# --- answers, sends and exports that run ------------------------------------------------------------------------------


@pytest.mark.fault(5)
def test_running_answers_stop_and_are_charged_and_waiting_sends_are_called_off(tmp_path: Path) -> None:
    """Input and what was written; the books agree, nothing new begins, and no waiting text is kept in memory."""
    go_on = threading.Event()
    model = ScriptedModel(("Half a sentence", Hold(go_on)), ("Half a sentence", Hold(go_on)))
    with running(tmp_path, ScriptedSource(model), auth=AUTH, running_per_account=2) as house:
        mara = person(house, "mara")
        sent = [send(house, mara, f"Question {n}") for n in range(2)]
        until(lambda: all((live := house.answering.watch(mara.id, s.answer_id)) and live.text for s in sent))
        waiting = house.answering.send(mara, (third := house.answering.new_chat_id()), f"{M} waits", None)
        assert isinstance(waiting, InLine)

        house.accounts.close(mara)

        until(lambda: not house.answering.running_chats(mara))
        until(lambda: house.store.read(lambda rows: rows.running_calls()) == [])
        entries = house.accounts.receipts(mara)
        assert [(e.outcome, e.receipt.tokens_in > 0, e.receipt.tokens_out > 0) for e in entries] == [("stopped", True, True)] * 2
        assert house.store.read(lambda rows: rows.counters_that_differ()) == []
        assert meter(house, mara).reserved == 0 and meter(house, mara).used == sum(e.receipt.total for e in entries)
        with pytest.raises(NotAllowed):
            house.answering.send(mara, house.answering.new_chat_id(), "From a page that is still open", None)
        assert house.answering.unsent(mara, third) is None
        assert len(model.prompts) == 2
        go_on.set()


def test_an_export_of_a_closed_account_breaks_off_and_its_tokens_die(house: House) -> None:
    """One that is being fetched, and one that was only asked for."""
    mara = person(house, "mara")
    many(house, mara, 1_200, chats=3)
    begun = house.export.collect(house.export.order(mara, Form.EVERYTHING).token)
    assert next(iter(begun.pieces)) is not None
    ordered = house.export.order(mara, Form.EVERYTHING)

    house.accounts.close(mara)

    with pytest.raises(NotAllowed):
        list(begun.pieces)
    begun.close()
    with pytest.raises(NotFound):
        house.export.collect(ordered.token)


@pytest.mark.fault(56)
def test_closing_while_a_purge_runs_loses_nothing_and_leaves_nothing(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of the run somebody closes their account. That run may miss them, the next one doesn't."""
    monkeypatch.setattr(rewrite, "SLICE_ROWS", 3)
    people = [arrive(house, f"{M}-{n}", name=f"{M}-name-{n}") for n in range(5)]
    for who in people:
        write_chat(house, who, (f"{M}-text", "Yes."))
    steps = iter(people)

    def closing() -> bool:
        if (who := next(steps, None)) is not None:
            house.accounts.close(who)
        return True

    house.store.purge(house.now() - timedelta(days=90), house.now() - UNDO, go_on=closing, gentle=False)
    assert next(steps, None) is None, "every one of them closed while it ran"
    clock(house).forward(minutes=11)
    house.housekeeping.purge()

    assert hits(tmp_path, M) == [0]
    assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    assert all(row(house, who.id).closed and len(house.accounts.receipts(who)) == 1 for who in people)


def test_while_people_close_their_accounts_others_sign_in_and_purges_run(house: House, tmp_path: Path) -> None:
    """In threads: nobody is refused or lost for what others do."""
    numbers, gone = itertools.count(), []

    def come_and_go() -> None:
        who = arrive(house, f"{M}-{next(numbers)}")
        write_chat(house, who, (f"{M} question", "Answer"))
        house.accounts.close(who)
        gone.append(who)

    with going_on(come_and_go, come_and_go):
        for _ in range(3):
            house.housekeeping.purge(gentle=False)
    clock(house).forward(minutes=11)
    house.housekeeping.purge(gentle=False)

    assert hits(tmp_path, M) == [0]
    assert len(gone) > 3 and all(row(house, who.id).closed and len(house.accounts.receipts(who)) == 1 for who in gone)
    assert house.store.read(lambda rows: rows.counters_that_differ()) == []


# --- who may close, once ----------------------------------------------------------------------------------------------


def at_once(*works: Any) -> list[type | None]:
    """What each raised (None: nothing), all begun together."""
    start, said = threading.Barrier(len(works)), [None] * len(works)  # type: ignore[var-annotated]

    def run(place: int, work: Any) -> None:
        start.wait()
        try:
            work()
        except ChatProError as error:
            said[place] = type(error)  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=item) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_two_tabs_close_it_once(house: House) -> None:
    """The second is told that it can't; there is one entry in the record and one hash."""
    mara = person(house, "mara")

    said = at_once(*[lambda: house.accounts.close(mara)] * 4)

    assert said.count(None) == 1 and said.count(NotAllowed) == 3
    assert [e.action for e in house.store.read(lambda rows: rows.audit_entries())].count("account.closed") == 1
    assert len(house.store.read(lambda rows: rows._all("SELECT 1 FROM closed_sign_ins"))) == 1


@pytest.mark.fault(26)
def test_the_last_admin_can_not_close_and_one_of_two_at_once_can(house: House) -> None:
    """Somebody has to be able to make an admin."""
    ada, otto = person(house, "ada"), person(house, "otto")
    with pytest.raises(LastAdmin, match="Make somebody else admin first"):
        house.accounts.close(ada)
    assert house.accounts.find(ada.id) == ada
    house.accounts.set_roles(ada, otto.id, frozenset({Role.ADMIN}))

    said = at_once(lambda: house.accounts.close(ada), lambda: house.accounts.close(otto))

    assert sorted(said, key=str) == [LastAdmin, None]
    assert len(house.store.read(lambda rows: rows.admins())) == 1


def test_staff_may_close_theirs_too_and_nobody_gives_a_closed_account_anything(house: House) -> None:
    """No role, no plan."""
    ada, jude = person(house, "ada"), person(house, "jude")
    house.accounts.close(jude)

    for call in (lambda: house.accounts.set_roles(ada, jude.id, frozenset({Role.ADMIN})), lambda: house.accounts.entitle(ada, jude.id, PLAN, 1_000)):
        with pytest.raises(NotFound):
            call()
    assert row(house, jude.id).roles == frozenset() and house.accounts.find(jude.id) is None


KILLED = """
    from chatpro.domain.accounts import Role
    from chatpro.services.accounts import Accounts
    from chatpro.storage.sql import Unit
    from tests.cast import build_house, person, write_chat
    from tests.services.test_closing import AUTH, MOMENTS

    def die(*args, **given):
        os.kill(os.getpid(), 9)

    house = build_house(folder, auth=AUTH)
    mara = person(house, "mara")
    write_chat(house, mara, ("A question", "An answer"))
    place, verb = MOMENTS[%r]
    setattr({"unit": Unit, "accounts": Accounts, "store": engine._Session}[place], verb, die)
    house.accounts.close(mara)
"""
MOMENTS = {
    "before the hash": ("unit", "add_closed_sign_in"),
    "before the chats": ("unit", "delete_chats"),
    "before the account": ("unit", "close_account"),
    "before the record": ("unit", "append_audit"),
    "before the commit": ("store", "commit"),
    "after the commit": ("accounts", "_stopped"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_the_middle_it_is_closed_or_it_is_not(tmp_path: Path, moment: str) -> None:
    """Never half: with its name and without its chats, or nobody's and without the hash."""
    child(KILLED % moment, tmp_path, expect=-9)

    built = build_house_again(tmp_path)
    try:
        rows = built.store.read(lambda rows: rows._all("SELECT id FROM accounts WHERE issuer = 'closed'"))
        hashes = built.store.read(lambda rows: rows._all("SELECT account_id FROM closed_sign_ins"))
        entries = [e.action for e in built.store.read(lambda rows: rows.audit_entries())]
        if moment == "after the commit":
            assert rows == hashes and len(rows) == 1 and entries.count("account.closed") == 1
            assert built.store.read(lambda u: u.chats(rows[0][0], built.now() - timedelta(days=90))) == []
        else:
            assert (rows, hashes, entries.count("account.closed")) == ([], [], 0)
            assert len(built.history.chats(person(built, "mara"))) == 1
    finally:
        built.store.close()
        built.analytics.close()


def build_house_again(folder: Path) -> House:
    """On the store that a dead process left."""
    given = Settings(demo_dir=folder / "demo", data_dir=folder / "var", weights_dir=folder / "weights", models=("gpt-4",), auth=AUTH)
    with mock.patch("chatpro.sample.fill"):
        return bootstrap.build(given, Source(Echo()), Clock())


# --- cookies from before ----------------------------------------------------------------------------------------------


@pytest.mark.fault(5)
def test_a_cookie_from_before_makes_no_account_and_opens_no_newer_one(house: House) -> None:
    """Streamlit's cookies live for thirty days, on every device. Only who signs in anew has asked for another account."""
    old = house.now() - timedelta(hours=1)
    mara = arrive(house, said_at=old)
    house.accounts.close(mara)
    before = len(house.store.read(lambda rows: rows._all("SELECT id FROM accounts")))

    for days in (0, 1, 29):
        clock(house).forward(days=days)
        with pytest.raises(AccountClosed, match="Sign in anew"):
            arrive(house, said_at=old)
    assert len(house.store.read(lambda rows: rows._all("SELECT id FROM accounts"))) == before

    again = arrive(house)
    assert again.id != mara.id
    with pytest.raises(AccountClosed):
        arrive(house, said_at=old)
    assert arrive(house, said_at=house.now()).id == again.id


def test_without_a_moment_of_its_own_a_sign_in_counts_as_old(house: House) -> None:
    """A provider that doesn't say when: rather no account for some weeks than one that nobody asked for."""
    house.accounts.close(arrive(house))
    with pytest.raises(AccountClosed):
        arrive(house, iat=None)
    clock(house).forward(days=COOKIE_DAYS, seconds=1)
    assert arrive(house, iat=None).roles == {Role.FREELANCER}


def test_two_tabs_that_come_back_at_once_make_one_account(house: House) -> None:
    """With what was used, once."""
    mara = person(house, "mara")
    spend(house, mara, 50_000)
    house.accounts.close(mara)
    made: list[Account] = []

    assert at_once(*[lambda: made.append(arrive(house))] * 6) == [None] * 6

    assert len({a.id for a in made}) == 1 and (meter(house, made[0]).used, meter(house, made[0]).carried) == (50_000, 50_000)


def test_signing_in_while_another_tab_closes_ends_in_a_sentence(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between finding the account and taking over what the provider claims: nothing is given to the closed one."""
    mara = arrive(house)
    taken = house.accounts._take_over

    def closed_meanwhile(unit: Unit, account: Account, identity: Any) -> bool:
        unit.close_account(account.id, house.now())
        return taken(unit, account, identity)

    monkeypatch.setattr(house.accounts, "_take_over", closed_meanwhile)
    with pytest.raises(AccountClosed):
        arrive(house, said_at=house.now() + timedelta(seconds=5))
    assert row(house, mara.id).roles == frozenset()


# --- coming back ------------------------------------------------------------------------------------------------------


def test_whoever_comes_back_has_an_empty_account_in_the_same_cycle_with_the_same_tokens_used(house: House) -> None:
    """The same renewal, the same anchor, nothing of before; what was used stands as carried, so that receipts and meter agree."""
    mara = person(house, "mara")
    spend(house, mara, 120_000)
    before = meter(house, mara)
    house.accounts.close(mara)
    clock(house).forward(days=3)

    again = arrive(house)
    now = meter(house, again)

    assert again.id != mara.id and house.accounts.consents(again) == [] and house.history.chats(again) == [] and house.accounts.receipts(again) == []
    assert (now.used, now.carried, now.remaining, now.cycle) == (120_000, 120_000, 80_000, before.cycle)
    house.accounts.opt_in(again)
    write_chat(house, again, ("Back again", "Good."), tokens=(700, 300))
    now = meter(house, again)
    assert now.used == 121_000 == now.carried + sum(e.receipt.total for e in house.accounts.receipts(again))
    assert house.accounts.carried(again, now.cycle.starts_at) == 120_000
    told = json.loads(unzipped(fetch(house, again, Form.EVERYTHING))["account.json"])
    assert sum(row["tokens"] for row in told["receipts"] + told["carried_usage"]) == now.used
    assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    assert house.housekeeping.reconcile() == 0

    clock(house).at = before.cycle.ends_at
    renewed = meter(house, again)
    assert (renewed.used, renewed.carried, renewed.cycle.number) == (0, 0, before.cycle.number + 1)


def test_after_the_end_of_the_cycle_nothing_is_carried_over(house: House) -> None:
    """And the month of a new account begins with its own first message. When the days of old cookies are over too, the hash goes with the next rewrite."""
    mara = person(house, "mara")
    spend(house, mara, 120_000)
    ends_at = meter(house, mara).cycle.ends_at
    kept_until = house.accounts.kept_until(mara)
    house.accounts.close(mara)
    assert kept_until == max(ends_at, house.now() + timedelta(days=COOKIE_DAYS))

    clock(house).at = ends_at
    again = arrive(house)
    assert (meter(house, again).used, meter(house, again).carried, meter(house, again).cycle) == (0, 0, None)

    clock(house).at = kept_until - timedelta(seconds=1)
    house.housekeeping.purge()
    assert len(house.store.read(lambda rows: rows._all("SELECT 1 FROM closed_sign_ins"))) == 1
    clock(house).at = kept_until + UNDO + timedelta(seconds=1)
    house.housekeeping.purge()
    assert house.store.read(lambda rows: rows._all("SELECT 1 FROM closed_sign_ins")) == []


def test_a_month_that_was_used_up_stays_used_up(house: House) -> None:
    """After its last message nothing more is sent, by whichever account."""
    tomas = person(house, "tomas")
    _last_message(house, tomas)
    assert meter(house, tomas).closed
    house.accounts.close(tomas)

    again = arrive(house, "tomas")

    assert meter(house, again).closed
    house.accounts.opt_in(again)
    outcome = house.answering.send(again, house.answering.new_chat_id(), "One more", None)
    assert isinstance(outcome, NotSent) and outcome.reason == "no_tokens"
    house.accounts.close(again)
    assert meter(house, arrive(house, "tomas", said_at=house.now() + timedelta(seconds=9))).closed


def _last_message(house: House, account: Account) -> None:
    """The rest of the cycle, for a last message that is charged with all but a little of it."""
    anchor = house.store.read(lambda rows: rows.anchor(account.id))
    assert anchor is not None
    cycle, left = cycle_at(anchor, house.now()), meter(house, account).remaining

    def work(unit: Unit) -> None:
        accepted = Accepted(SendKind.LAST, 0, left // 2, 0, left - left // 2, left, 0, False)
        assert unit.reserve(account.id, "res-last", "r-last", cycle, 200_000, 0, accepted, house.now(), house.now() + timedelta(minutes=6))
        unit.add_warning(account.id, cycle.starts_at, "last_message", 200_000, PLAN, house.now())
        unit.add_chat(account.id, "c-last", house.now())
        unit.add_answer(account.id, "a-last", "c-last", "q", "r-last", 0, "res-last", "gpt-4", "1", accepted, house.now())
        call = unit.call("a-last")
        assert call is not None
        charge = Charge(left // 2, 200, "measured", 0)
        unit.resolve(call, "settled", charge.total, house.now())
        unit.add_usage_entry(call, PLAN, charge, 0, 1, 1, "finished", house.now())

    house.store.write(work)


def test_what_is_being_answered_at_the_closing_counts_as_used(tmp_path: Path) -> None:
    """Whoever is back before the answer has ended finds its whole reservation used, and not less afterwards."""
    go_on = threading.Event()
    with running(tmp_path, ScriptedSource(ScriptedModel(("Half", Hold(go_on)))), auth=AUTH) as house:
        mara = person(house, "mara")
        send(house, mara, "A question")
        reserved = meter(house, mara).reserved
        assert reserved > 0
        house.accounts.on_stopped.clear()  # as if the server were slow

        house.accounts.close(mara)
        again = arrive(house)

        assert (meter(house, again).used, meter(house, again).reserved) == (reserved, 0)
        go_on.set()
        until(lambda: house.store.read(lambda rows: rows.running_calls()) == [])
        assert meter(house, again).used == reserved
        assert house.store.read(lambda rows: rows.counters_that_differ()) == []


@pytest.mark.fault(45)
def test_a_threshold_that_is_passed_already_is_said_at_once(house: House) -> None:
    """The new account begins beyond 75 %: its warning is there before its first send."""
    mara = person(house, "mara")
    spend(house, mara, 160_000)
    house.accounts.close(mara)

    again = arrive(house)

    assert [w.kind for w in house.accounts.warnings(again)] == ["75"]
    warned = house.accounts.warned(again, meter(house, again))
    assert warned is not None and warned.kind == "75"


def test_a_plan_that_the_provider_does_not_name_is_not_carried_over(house: House) -> None:
    """What somebody is granted is the provider's or an admin's to say, also the second time. What was used counts as soon as they do."""
    mara = person(house, "mara")
    spend(house, mara, 120_000)
    house.accounts.close(mara)
    again = arrive(house, plan="")
    assert house.accounts.grant(again).state is PlanState.NEVER

    house.accounts.entitle(person(house, "ada"), again.id, PLAN, 200_000)

    assert (meter(house, again).used, meter(house, again).carried) == (120_000, 120_000)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(acts=st.lists(st.one_of(st.integers(1_000, 60_000), st.sampled_from(["close", "wait a day", "wait a week"])), min_size=4, max_size=14))
def test_nobody_gets_more_out_of_a_month_by_closing(acts: list[int | str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever somebody uses, closes and begins anew: in a cycle it is what the meter says, all accounts together never more than the allowance."""
    house = build_house(tmp_path_factory.mktemp("house"), auth=AUTH)
    moments = itertools.count(1)

    def back() -> Account:
        return arrive(house, "eve", said_at=house.now() + timedelta(seconds=next(moments)))

    eve, used = back(), {}  # type: ignore[var-annotated]
    for act in acts:
        if act == "close":
            house.accounts.close(eve)
            clock(house).forward(minutes=1)
            eve = back()
        elif isinstance(act, str):
            clock(house).forward(days=1 if act == "wait a day" else 7)
        elif act <= meter(house, eve).remaining:
            write_chat(house, eve, ("Question", "Answer"), tokens=(act - 200, 200))
            starts_at = meter(house, eve).cycle.starts_at
            used[starts_at] = used.get(starts_at, 0) + act
        stand = meter(house, eve)
        if stand.cycle is not None and stand.used:
            assert stand.used == used[stand.cycle.starts_at] <= stand.allowance
            assert stand.used == stand.carried + sum(e.receipt.total for e in house.accounts.receipts(eve, stand.cycle.starts_at))
    assert all(total <= 200_000 for total in used.values())
    assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    house.store.close()
    house.analytics.close()


# --- the hash ---------------------------------------------------------------------------------------------------------


def test_the_hash_names_nobody_without_the_key(house: House) -> None:
    """Another service's key, another issuer, another cut between the two parts: another hash. The key is not in the store, nor in its folder."""
    mara = person(house, "mara")
    key = house.settings.closing_key
    house.accounts.close(mara)

    ((digest,),) = house.store.read(lambda rows: rows._all("SELECT digest FROM closed_sign_ins"))

    assert digest == sign_in_digest(key, mara.issuer, mara.subject) and len(digest) == 64
    others = [(bytes(32), mara.issuer, mara.subject), (key, mara.issuer + "m", "ara"), (key, mara.issuer, "mara "), (key, "", mara.issuer + mara.subject)]
    assert digest not in {sign_in_digest(*other) for other in others}
    other = replace(house.settings, auth={**AUTH, "cookie_secret": "another made up one, " * 3})
    assert other.closing_key != key and AUTH["cookie_secret"] not in digest


@given(st.text(), st.text(), st.text(), st.text())
def test_no_two_sign_ins_share_a_hash(a: str, b: str, c: str, d: str) -> None:
    assert (sign_in_digest(b"key", a, b) == sign_in_digest(b"key", c, d)) == ((a, b) == (c, d))


# --- demo mode ----------------------------------------------------------------------------------------------------------


def test_a_sample_account_that_was_closed_is_offered_to_nobody_and_not_made_again(tmp_path: Path) -> None:
    """The first of them too: the others are not made a second time at the next start."""
    house = build_house(tmp_path)
    mara = person(house, "mara")
    house.accounts.close(mara)

    assert house.accounts.sample("mara") is None
    assert mara.id not in {a.id for a in house.accounts.samples()} and "" not in {a.name for a in house.accounts.samples()}
    before = house.store.read(lambda rows: rows._all("SELECT count(*) FROM accounts"))
    sample.fill(house.store, house.settings, house.now())
    assert house.store.read(lambda rows: rows._all("SELECT count(*) FROM accounts")) == before
    house.store.close()
    house.analytics.close()
