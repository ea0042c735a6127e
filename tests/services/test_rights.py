"""Every verb of the services, tried by every role. A verb that is not entered here turns this file red on the day it is written.

Most holes in products of this kind were one verb that forgot to ask who wants it. Pages are gated too, but a page is only
one of the ways to a verb.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import chatpro.services
from chatpro.bootstrap import House
from chatpro.domain.accounts import Account, Role
from chatpro.errors import ChatProError, NotAllowed, NotFound
from chatpro.services.history import View
from tests.cast import TODAY, build_house, person, write_chat

FREELANCER, EVERYBODY = frozenset({Role.FREELANCER}), frozenset(Role)
ONE_OF_EACH = dict(zip(Role, ("mara", "priya", "jude", "ana", "otto", "ada"), strict=True))


@dataclass(frozen=True)
class Right:
    """Who may, and how to call it beside the actor. `{chat}`, `{answer}`, `{question}`, `{mara}` in an argument are Mara's."""

    roles: frozenset[Role]
    arguments: tuple[Any, ...] = ()


MATRIX: dict[str, Right] = {
    "accounts.sign_out_everywhere": Right(EVERYBODY),
    "accounts.learn_zone": Right(EVERYBODY, ("Asia/Tokyo",)),
    "accounts.set_zone": Right(EVERYBODY, ("Asia/Tokyo",)),
    "accounts.set_roles": Right(frozenset({Role.ADMIN}), ("{mara}", FREELANCER)),
    "accounts.entitle": Right(frozenset({Role.ADMIN}), ("{mara}", "Freelancer Plus", 200_000)),
    "accounts.end_plan": Right(frozenset({Role.ADMIN}), ("no such account",)),
    "accounts.grant": Right(EVERYBODY),
    "accounts.entitlements": Right(EVERYBODY),
    "accounts.opted_in": Right(EVERYBODY),
    "accounts.consents": Right(EVERYBODY),
    "accounts.opt_in": Right(FREELANCER),
    "accounts.opt_out": Right(FREELANCER),
    "accounts.meter": Right(EVERYBODY, ("{sizes}",)),
    "accounts.set_own_limit": Right(FREELANCER, (100_000,)),
    "accounts.lift_own_limit": Right(FREELANCER),
    "accounts.receipts": Right(EVERYBODY),
    "accounts.carried": Right(EVERYBODY, (TODAY,)),
    "accounts.kept_until": Right(EVERYBODY),
    "accounts.warnings": Right(EVERYBODY),
    "accounts.warned": Right(EVERYBODY, ("{meter}",)),
    "accounts.dismiss": Right(FREELANCER, ("75", TODAY, 200_000)),
    "history.chats": Right(FREELANCER),
    "history.listing": Right(FREELANCER, (View(),)),
    "history.open": Right(FREELANCER, ("{chat}",)),
    "history.search": Right(FREELANCER, ("Zanzibarmarker",)),
    "history.draft": Right(FREELANCER, ("{chat}",)),
    "history.rename": Right(FREELANCER, ("{chat}", "Another title")),
    "history.delete": Right(FREELANCER, ("{chat}",)),
    "history.delete_all": Right(FREELANCER),
    "history.restore": Right(FREELANCER, ("{chat}",)),
    "export.order": Right(FREELANCER, ("markdown", ("{chat}",))),
    "answering.send": Right(FREELANCER, ("{chat}", "Hello", None)),
    "history.seen": Right(FREELANCER, ("{chat}",)),
    "answering.edit": Right(FREELANCER, ("{chat}", "{question}", "Other words")),
    "answering.again": Right(FREELANCER, ("{chat}", "{question}", 10**9)),
    "answering.go_on": Right(FREELANCER, ("{chat}", "{answer}")),
    "answering.keep": Right(FREELANCER, ("{chat}", "Half a sentence")),
    "answering.remember_more": Right(FREELANCER, ("{chat}", True)),
    "answering.live": Right(EVERYBODY, ("{chat}",)),
    "answering.running_chats": Right(EVERYBODY),
    "answering.unsent": Right(EVERYBODY, ("{chat}",)),
    "answering.put_by": Right(EVERYBODY, ("{chat}",)),
    "answering.thumb": Right(FREELANCER, ("{answer}", "up")),
    "answering.stop": Right(EVERYBODY, ("{answer}",)),
    "analytics.tokens_by_day": Right(frozenset({Role.ANALYST}), (30,)),
    "analytics.warnings_by_day": Right(frozenset({Role.ANALYST}), (30,)),
    "analytics.totals": Right(frozenset({Role.ANALYST}), (30,)),
    "analytics.as_of": Right(frozenset({Role.ANALYST})),
    "housekeeping.report": Right(frozenset({Role.ADMIN})),
    "housekeeping.purge_now": Right(frozenset({Role.ADMIN})),
}
"""Verbs for EVERYBODY tell an account about itself: they take its id from the actor and from nowhere else (tried below)."""

CLOSES = "accounts.close"
"""Open to everybody, once: tried in test_closing.py, because the account is nobody's afterwards."""

OWN_THINGS = {name: right for name, right in MATRIX.items() if right.roles == EVERYBODY}

NO_ACTOR: dict[str, str] = {
    "accounts.sign_in": "makes the actor, from what the provider signed",
    "accounts.find": "makes the actor, from the id that the session keeps",
    "accounts.sample": "makes the actor, in demo mode only",
    "accounts.samples": "the sign-in page of demo mode, before anybody is somebody; holds no text",
    "answering.new_chat_id": "a random number",
    "answering.remembers_from": "reads nothing: figures about messages that the caller was allowed to read",
    "answering.more_costs": "reads nothing: figures about messages that the caller was allowed to read",
    "answering.tokens_of": "reads nothing: counts a text that the caller has",
    "answering.sizes": "figures of the settings and the model",
    "answering.watch": "called by the sockets, which carry the account's id; asks whose answer it is",
    "answering.stop_running": "called by the sockets, which carry the account's id; asks whose answer it is",
    "answering.forget_account": "called when an account was closed",
    "answering.stop_account": "called when an account opts out, closes or loses its role",
    "answering.stop_chat": "called when a chat is deleted",
    "answering.recover": "the server's start",
    "answering.expire_past": "housekeeping's clock",
    "answering.start": "the server's start",
    "answering.close": "the server's end",
    "export.collect": "the export's route; the token stands for an account and its session, which are asked for again",
    "export.progress": "counts without text, by a random id that only who asked for the export was given",
    "analytics.close": "the server's end",
    "housekeeping.reconcile": "housekeeping's clock; changes no figure that the ledger does not give",
    "housekeeping.expire": "housekeeping's clock",
    "housekeeping.carry": "housekeeping's clock; carries rows without text",
    "housekeeping.purge": "housekeeping's clock; takes what nobody can read any more",
    "housekeeping.purge_late": "the server's start; takes what nobody can read any more",
    "housekeeping.start": "the server's start",
    "housekeeping.run": "housekeeping's clock",
    "housekeeping.close": "the server's end",
}
"""Verbs without an actor, each with the reason why nobody could misuse it. No page may call those of the server and of the clock."""


def verbs() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public verb of every service in the house, as "service.verb"."""
    for field, service in typing.get_type_hints(House).items():
        if getattr(service, "__module__", "").startswith("chatpro.services."):
            for name, function in inspect.getmembers(service, inspect.isfunction):
                if not name.startswith("_"):
                    yield f"{field}.{name}", function


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    built = build_house(tmp_path_factory.mktemp("house"))
    yield built
    built.store.close()
    built.analytics.close()


def arguments(house: House, right: Right) -> list[Any]:
    """The arguments with Mara's things filled in; each time a chat of its own, so that calls can't get into each other's way."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Zanzibarmarker", "Zanzibarmarker."))
    question, answer = house.history.open(mara, chat).messages
    known = {"{mara}": mara.id, "{chat}": chat, "{question}": question.id, "{answer}": answer.id, "{sizes}": house.answering.sizes()}
    known["{meter}"] = house.accounts.meter(mara, house.answering.sizes())
    return [known[a] if isinstance(a, str) and a in known else a for a in right.arguments]


def call(house: House, name: str, actor: Account, *given: Any) -> Any:
    service, verb = name.split(".")
    return getattr(getattr(house, service), verb)(actor, *given)


@pytest.mark.fault(16)
def test_every_verb_is_entered_here() -> None:
    """A new verb stands in the matrix, or is named among those without an actor with a reason; what is gone is struck out."""
    found = {name for name, _ in verbs()}

    assert found == set(MATRIX) | set(NO_ACTOR) | {CLOSES}
    assert set(MATRIX).isdisjoint(NO_ACTOR)
    assert all(NO_ACTOR.values())


@pytest.mark.fault(16)
def test_every_service_is_in_the_house() -> None:
    """A service that the house does not name would be tried by nobody."""
    files = {f"chatpro.services.{path.stem}" for path in Path(chatpro.services.__path__[0]).glob("*.py") if path.stem != "__init__"}
    named = {service.__module__ for service in typing.get_type_hints(House).values() if getattr(service, "__module__", "").startswith("chatpro.services.")}

    assert files == named


@pytest.mark.fault(16)
def test_every_verb_in_the_matrix_takes_its_actor_first() -> None:
    """By that name and as an account, so that nobody passes an id that came from an address."""
    wrong = []
    for name, function in verbs():
        parameters = list(inspect.signature(function).parameters.values())[1:]
        hints = typing.get_type_hints(function, vars(sys.modules[function.__module__]))
        has_actor = bool(parameters) and parameters[0].name == "actor" and hints.get("actor") is Account
        if has_actor != (name in MATRIX or name == CLOSES):
            wrong.append(name)

    assert wrong == []


@pytest.mark.fault(16)
@pytest.mark.parametrize("name", sorted(MATRIX))
@pytest.mark.parametrize("role", list(Role), ids=str)
def test_a_verb_does_its_work_for_its_roles_only(house: House, role: Role, name: str) -> None:
    """The wrong role is refused before anything else is said; the right one is not refused."""
    actor = person(house, ONE_OF_EACH[role])
    given = arguments(house, MATRIX[name])

    try:
        call(house, name, actor, *given)
        refused = False
    except NotAllowed:
        refused = True
    except ChatProError:
        refused = False  # another answer than "you may not": no engine runs here, or there was nothing to do

    assert refused == (role not in MATRIX[name].roles)


@pytest.mark.fault(16)
@pytest.mark.parametrize("name", sorted(n for n, r in MATRIX.items() if r.roles != EVERYBODY))
def test_a_closed_account_may_do_nothing(house: House, name: str) -> None:
    """Whatever roles it still has."""
    allowed = next(role for role in Role if role in MATRIX[name].roles)
    actor = replace(person(house, ONE_OF_EACH[allowed]), closed=True)
    given = arguments(house, MATRIX[name])

    with pytest.raises(NotAllowed):
        call(house, name, actor, *given)


@pytest.mark.fault(16)
@pytest.mark.parametrize("name", sorted(OWN_THINGS))
def test_a_verb_for_everybody_tells_and_changes_ones_own_only(house: House, name: str) -> None:
    """Called by Tomás with Mara's ids, it gives nothing of hers and leaves her as she was."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    given = arguments(house, MATRIX[name])
    before = (person(house, "mara"), house.accounts.receipts(mara), house.accounts.consents(mara))

    try:
        told = repr(call(house, name, tomas, *given))
    except NotFound:
        told = ""

    assert "Zanzibarmarker" not in told and mara.id not in told and "Mara" not in told
    assert (person(house, "mara"), house.accounts.receipts(mara), house.accounts.consents(mara)) == before


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    "name", ["history.open", "history.rename", "history.delete", "history.restore", "answering.stop", "answering.again", "answering.remember_more"]
)
def test_a_foreign_a_deleted_and_a_made_up_id_get_the_same_words(house: House, name: str) -> None:
    """From every verb that takes an id: NotFound, the same sentence, and nothing changed."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    foreign = arguments(house, MATRIX[name])
    deleted = write_chat(house, tomas, ("Gone", "Gone."))
    question, answer = house.history.open(tomas, deleted).messages
    if name != "history.restore":
        house.history.delete(tomas, deleted)
    before = [c.title for c in house.history.chats(mara)]

    said = set()
    for ids in (foreign, ["0" * 32, *foreign[1:]], [deleted if name.startswith("history") else "", *foreign[1:]]):
        with pytest.raises(NotFound) as error:
            call(house, name, tomas, *ids)
        said.add(str(error.value))

    assert said == {"Not found."}
    assert [c.title for c in house.history.chats(mara)] == before
