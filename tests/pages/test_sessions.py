"""Sessions: rights withdrawn in the middle, signing out in one tab, two people after each other in one browser."""

from __future__ import annotations

from datetime import timedelta

import pytest
from streamlit.testing.v1 import AppTest

from chatpro.bootstrap import House
from chatpro.domain.accounts import PlanState, Role
from tests.cast import PLAN, person, write_chat
from tests.pages.conftest import NOT_FOUND, SIGN_IN, Table, go_to, html_of, page, site, title_of, words


@pytest.mark.fault(5)
def test_a_role_taken_away_counts_at_the_next_click(house: House) -> None:
    """Mara's history is open when she stops being a freelancer; the next click finds nothing, and reads nothing."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Zanzibarmarker", "Yes."))
    test = page("history", "mara")
    assert "Zanzibarmarker" in words(test)

    house.accounts.set_roles(person(house, "ada"), mara.id, frozenset({Role.ANALYST}))
    test.run()

    assert title_of(test) == NOT_FOUND
    assert "Zanzibarmarker" not in words(test)


@pytest.mark.fault(5)
def test_a_role_given_counts_at_the_next_click_too(house: House) -> None:
    """Nobody has to sign in again to get what they were given."""
    test = page("operations", "jude")
    assert title_of(test) == NOT_FOUND

    house.accounts.set_roles(person(house, "ada"), person(house, "jude").id, frozenset({Role.ADMIN}))

    assert title_of(test.run()) != NOT_FOUND


@pytest.mark.fault(5)
def test_a_closed_account_is_signed_out_at_the_next_click(house: House) -> None:
    """And its name in the address opens nothing any more."""
    mara = person(house, "mara")
    test = page("account", "mara")

    house.store.write(lambda unit: unit.change_account(mara.id, "closed", "yes", house.now()))

    assert title_of(test.run()) == SIGN_IN
    assert title_of(page("account", "mara")) == SIGN_IN


@pytest.mark.fault(5)
def test_a_plan_that_ended_shows_as_ended_at_the_next_click(house: House) -> None:
    """The account page is open while the plan ends: the meter goes, the day of the end is there, the receipts stay."""
    tomas = person(house, "tomas")
    test = page("account", "tomas")
    assert 'role="meter"' in html_of(test)

    started, ended = house.now() - timedelta(days=100), house.now()
    house.store.write(lambda unit: unit.add_entitlement(tomas.id, PLAN, 200_000, started, ended, house.now()))
    test.run()

    assert house.accounts.grant(tomas).state is PlanState.HAD
    assert 'role="meter"' not in html_of(test)
    assert "Ended 23 November 2026" in words(test)
    assert "193,640" in words(test)


@pytest.mark.fault(6)
def test_signing_out_in_one_tab_signs_out_the_other(house: House) -> None:
    """Two tabs of Mara's. She signs out in one; the other asks who is there at its next click, and has nothing of hers left."""
    write_chat(house, person(house, "mara"), ("Zanzibarmarker", "Yes."))
    here, there = site("account", "mara"), site("history", "mara")
    assert "Zanzibarmarker" in words(there)

    here.button(key="sign_out").click().run()
    there.run()

    assert (title_of(here), title_of(there)) == (SIGN_IN, SIGN_IN)
    assert "Zanzibarmarker" not in words(there)
    assert there.query_params == {}


@pytest.mark.fault(6)
def test_a_click_in_the_other_tab_does_nothing_any_more(house: House, table: Table) -> None:
    """Deleting a chat in a tab that was signed out from elsewhere deletes nothing."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Keep this", "Kept."))
    tab = page("history", "mara")

    house.accounts.sign_out_everywhere(mara)
    table.do(tab, **{"is": "delete", "ids": [chat]})

    assert title_of(tab) == SIGN_IN
    assert [c.id for c in house.history.chats(mara)] == [chat]


@pytest.mark.fault(7)
@pytest.mark.parametrize("how", ["signs out", "changes the address"])
def test_nothing_of_the_first_person_is_left_for_the_second(house: House, how: str) -> None:
    """Mara leaves, Tomás comes, same browser, same session: no word, no name, no id of hers in page, address or session."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Zanzibarmarker", "Yes."))
    test = site("history", "mara", chat=chat)
    test.session_state["draft"] = "Zanzibarmarker, half written"
    test.session_state["deleted_in_history"] = [chat]
    test.run()

    if how == "signs out":
        go_to(test, "account").button(key="sign_out").click().run()
        test.query_params["as"] = "tomas"
        test.run()
    else:
        test.query_params.clear()
        test.query_params["as"] = "tomas"
        test.run()

    left = words(test) + html_of(test) + repr(test.query_params) + repr(session_of(test))
    assert person(house, "tomas").id in left
    assert [secret for secret in ("Zanzibarmarker", "Mara", "mara", mara.id, chat) if secret in left] == []


def session_of(test: AppTest) -> dict[str, object]:
    """All that the session keeps, widgets included, without what AppTest itself notes beside it."""
    state = test.session_state._state._state
    kept = {"old": state._old_state, "new": state._new_session_state, "widgets": dict(state._new_widget_state.states)}
    return {name: {key: value for key, value in part.items() if not key.startswith("$$STREAMLIT_INTERNAL_KEY")} for name, part in kept.items()}


@pytest.mark.fault(8)
def test_two_people_at_once_see_each_their_own(house: House) -> None:
    """Two sessions in one process, run in turn: nothing of the one is drawn for the other, whoever came first."""
    write_chat(house, person(house, "mara"), ("Zanzibarmarker", "Yes."))
    write_chat(house, person(house, "tomas"), ("Timbuktumarker", "No."))
    mara, tomas = page("history", "mara"), page("history", "tomas")

    for _ in range(2):
        assert "Zanzibarmarker" in words(mara.run()) and "Timbuktumarker" not in words(mara)
        assert "Timbuktumarker" in words(tomas.run()) and "Zanzibarmarker" not in words(tomas)
    assert "Zanzibarmarker" not in words(page("account", "tomas"))
