"""What people meet before a page: the sample accounts, the consent and what the plan is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.domain.chats import clean_title
from chatpro.models import ModelSource
from tests.cast import PLAN, Source, person, write_chat
from tests.pages.conftest import html_of, page, rows_of, site, title_of, words

ASKED = "Before your words go to an AI model"


def with_settings(house: House, model: ModelSource | None = None, **settings: object) -> House:
    """The same house after a restart with other settings: services read them through the house, so all are swapped."""
    changed = replace(house.settings, **settings)  # type: ignore[arg-type]
    for service in (house.accounts, house.history, house.answering):
        service._settings = changed
    swapped = replace(house, settings=changed, model=model or house.model)
    bootstrap.install(swapped)
    return swapped


# --- Sign-in ----------------------------------------------------------------------------------------------------------


def test_the_sign_in_page_offers_one_account_for_each_role_and_state(shared_house: House) -> None:
    """Ten cards, each saying what that person sees; the notice that no password is asked stands before them."""
    test = page("help")

    text = words(test)
    ways_in = re.findall(r'class="card wide" href="[^"]*as=(\w+)"', html_of(test))
    assert ways_in == ["mara", "tomas", "lea", "hal", "nia", "priya", "jude", "ana", "otto", "ada"]
    assert text.index("No password is asked") < text.index("Mara, freelancer")
    for said in (
        f"{PLAN}, nothing of the month used",
        f"{PLAN}, 96 % of the month used",
        f"Never had {PLAN}",
        f"Had {PLAN}: reads what was written, sends nothing",
        f"{PLAN}, not asked for a consent yet",
        "Sees counts and warnings, never anybody's words",
    ):
        assert said in text


def test_the_notice_says_when_strangers_may_come_in(house: House) -> None:
    """Open demo mode does not claim that it answers only on this computer."""
    with_settings(house, host="0.0.0.0", demo_open=True, demo_open_confirmed=True)

    assert "whoever reaches this page can come in" in words(page("help"))
    assert "only on this computer" not in words(page("help"))


def test_a_card_leads_to_the_page_that_was_asked_for_where_this_account_may_open_it(house: House) -> None:
    """With what the address held; everybody else's card leads to their first page."""
    html = html_of(site("history", chat="abc"))

    assert 'href="?chat=abc&amp;as=mara"' in html
    assert 'href="./?as=priya"' in html


def test_an_address_with_a_chat_opens_that_chat_after_signing_in(house: House) -> None:
    """A link to a chat survives the sign-in by address."""
    chat = write_chat(house, person(house, "mara"), ("How do I ask for a deposit", "Before the work begins."))

    assert "Before the work begins." in words(site("chat", "mara", chat=chat))


# --- Consent ----------------------------------------------------------------------------------------------------------


def test_consent_says_who_gets_what_where_and_for_how_long(house: House) -> None:
    """Everything that the promise names, from the settings in force, dated and versioned, with the terms a click away and apart."""
    with_settings(
        house,
        provider_name="Example Models",
        provider_country="Iceland",
        provider_keeps_days=14,
        consent_version=3,
        terms_version="7",
        terms_url="https://example.com/terms",
        privacy_url="https://example.com/privacy",
    )

    test = page("chat", "lea")
    text = words(test)

    assert title_of(test) == ASKED
    for said in (
        "Sent to Example Models",
        "Country Iceland",
        "At most 14 days",
        "Used for training No",
        "Consent version 3",
        "Terms, version 7",
        "Signed in as Lea Moreau",
    ):
        assert said in text
    assert '<a href="https://example.com/terms" target="_blank" rel="noopener noreferrer">' in html_of(test)


def test_consent_says_that_nothing_leaves_this_computer_where_that_is_so(house: House) -> None:
    """With the local demo model no provider and no country are named."""
    with_settings(house, model=Source(house.model.model, is_local=True))

    text = words(page("chat", "lea"))

    assert "Nothing leaves this computer." in text
    assert "OpenAI" not in text and "United States" not in text


def test_yes_and_no_weigh_the_same_and_nothing_is_ticked(house: House) -> None:
    """Two buttons of one kind and one width, no box that could be ticked beforehand; neither is the page's main button."""
    test = page("chat", "lea")
    yes, no = test.button(key="consent_yes").proto, test.button(key="consent_no").proto

    assert (yes.type, yes.disabled, yes.icon, yes.help) == (no.type, no.disabled, no.icon, no.help)
    assert len(test.checkbox) + len(test.toggle) + len(test.radio) == 0


def test_a_yes_is_dated_versioned_and_opens_the_chat(house: House) -> None:
    """And asked once: the next visit goes straight to the chat."""
    lea = person(house, "lea")
    test = page("chat", "lea")
    assert not house.accounts.opted_in(lea)

    test.button(key="consent_yes").click().run()

    said = house.accounts.consents(lea)
    assert [(c.version, c.given, c.at) for c in said] == [(1, True, house.now())]
    assert title_of(test) != ASKED
    assert title_of(page("chat", "lea")) != ASKED


def test_a_no_is_kept_and_leaves_history_help_and_account_open(house: House) -> None:
    """Nothing is asked for twice in a row, and the way back to a yes stays."""
    lea = person(house, "lea")
    test = page("chat", "lea")

    test.button(key="consent_no").click().run()

    assert [c.given for c in house.accounts.consents(lea)] == [False]
    assert not house.accounts.opted_in(lea)
    assert "You said no on 23 November 2026, 10:15." in words(test)
    assert {b.key for b in test.button} >= {"consent_yes", "consent_history"}
    assert "consent_no" not in {b.key for b in test.button}
    assert [title_of(page(name, "lea")) for name in ("history", "account", "help")] == ["History", "Account", "Help"]


@pytest.mark.fault(112)
def test_a_new_version_of_the_consent_asks_again_and_history_stays_readable(house: House) -> None:
    """Mara said yes to version 1. Under version 2 that counts for nothing, says so with its date, and takes no reading away."""
    mara = person(house, "mara")
    write_chat(house, mara, ("How do I ask for a deposit", "Before the work begins."))
    with_settings(house, consent_version=2)

    test = page("chat", "mara")

    assert (title_of(test), house.accounts.opted_in(mara)) == (ASKED, False)
    assert "You said yes to version 1 on 20 August 2026. Now it is version 2" in words(test)
    assert "How do I ask for a deposit" in words(page("history", "mara"))

    test.button(key="consent_yes").click().run()

    assert house.accounts.opted_in(mara)
    assert [(c.version, c.given) for c in house.accounts.consents(mara)] == [(1, True), (2, True)]


def test_looking_at_the_consent_records_nothing(house: House) -> None:
    """Only a click is a yes or a no: neither opening the page nor leaving it."""
    page("chat", "lea").run()

    assert house.accounts.consents(person(house, "lea")) == []


# --- The plan ---------------------------------------------------------------------------------------------------------


def test_somebody_who_never_had_the_plan_reads_what_it_is_and_how_to_get_it(house: House) -> None:
    """And nothing else: no composer, no consent to give, no chats."""
    with_settings(house, plan_url="https://example.com/plus", allowance_tokens=150_000)

    test = page("chat", "nia")

    assert title_of(test) == f"Chat is part of {PLAN}"
    assert "150,000 tokens a month, about 75 messages" in words(test)
    assert [(b.label, b.proto.url) for b in test.get("link_button")] == [(f"Get {PLAN}", "https://example.com/plus")]
    assert len(test.chat_input) + len(test.text_area) == 0


def test_without_an_address_of_the_plan_demo_mode_says_that_nothing_is_sold(shared_house: House) -> None:
    """No button without a function."""
    test = page("chat", "nia")

    assert "nothing is sold here" in words(test)
    assert len(test.get("link_button")) == 0


def _offer_to_hal() -> None:
    from chatpro.bootstrap import house as current
    from chatpro.web import doors

    accounts = current().accounts
    hal = accounts.sample("hal")
    assert hal is not None
    doors.offer(hal, accounts.grant(hal))


def test_somebody_who_had_the_plan_reads_when_it_ended_and_what_is_left(shared_house: House) -> None:
    """The day, what can still be done, and the offer."""
    test = AppTest.from_function(_offer_to_hal, default_timeout=30).run()

    assert [e.message for e in test.exception] == []
    assert title_of(test) == f"{PLAN} has ended"
    assert "It ended on 11 November 2026." in words(test)
    assert "read_chats" in {b.key for b in test.button}


# --- Words of people --------------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)> **b** :red[x] :material/home: :smile: [y](https://evil.example) $x$"


@pytest.mark.fault(75)
@pytest.mark.fault(78)
def test_a_name_is_inert_wherever_it_is_drawn(house: House) -> None:
    """HTML, markdown, Streamlit's own signs and direction overrides in the name of an account: on every page of hers the text, and nothing of it works."""
    hostile = "\u202e\u200b<img src=x onerror=alert(1)> :red[x]"
    mara = person(house, "mara")
    with_name(house, mara.id, hostile)

    for name in ("account", "help", "history", "chat"):
        test = page(name, "mara")
        html = html_of(test)
        assert "<img" not in html and "\u202e" not in html and "\u200b" not in html, name
        assert "&lt;img src=x onerror=alert(1)&gt; :red[x]" in html, name
    card = html_of(page("help"))
    assert "<img" not in card and "\u202e" not in card and "\u200b" not in card


def with_name(house: House, account_id: str, name: str) -> None:
    """As a provider would have sent it: labels are written at sign-in."""
    house.store.write(lambda unit: unit._all("UPDATE accounts SET name = ? WHERE id = ?", name, account_id))


@pytest.mark.fault(75)
def test_a_title_is_inert_in_the_history(house: House) -> None:
    """It is handed to the table's program as a text, which draws it as one (table.js parses no HTML and no markdown); it stands nowhere else."""
    write_chat(house, person(house, "mara"), ("What about this", "Fine."), title=HOSTILE)

    test = page("history", "mara")

    assert [row["title"] for row in rows_of(test)] == [clean_title(HOSTILE)]
    assert "<img" not in html_of(test) and not [b.label for b in test.button if "img" in b.label]


@pytest.mark.fault(78)
def test_a_title_shows_no_hidden_characters(house: House) -> None:
    """Overrides that turn the line around and characters without width are gone from what is drawn."""
    write_chat(house, person(house, "mara"), ("Hello", "Hi."), title="in\u200bvoice \u202egpj.exe\u2066")

    assert [row["title"] for row in rows_of(page("history", "mara"))] == ["invoice gpj.exe"]
