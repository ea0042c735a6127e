"""The account page: what somebody is granted and agreed to, what it cost, their zone, and signing out."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from streamlit.testing.v1 import AppTest

from chatpro.bootstrap import House
from chatpro.domain.allowance import cycle_at
from chatpro.storage import Unit
from tests.cast import PLAN, person, write_chat
from tests.pages.conftest import SIGN_IN, html_of, page, site, title_of, words


def receipts(test: object) -> list[list[str]]:
    """The rows of the table of receipts."""
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", html_of(test))  # type: ignore[arg-type]
    return [re.sub(r"</?b>", "", row).split("</td><td>") for row in rows]


def test_receipts_add_up_to_the_meter(house: House) -> None:
    """To the token: the rows of this cycle, their sum below them, and the figure in the panel. Also those of a deleted chat."""
    tomas = person(house, "tomas")
    for number in range(7):
        chat = write_chat(house, tomas, ("Again", "Yes."), at=house.now() - timedelta(minutes=60 - number), tokens=(301 + number, 203))
    house.history.delete(tomas, chat)
    test = page("account", "tomas")

    anchor = house.store.read(lambda rows: rows.anchor(tomas.id))
    assert anchor is not None and cycle_at(anchor, house.now()).number == 0
    total = sum(int(row[1].replace(",", "")) for row in receipts(test))
    assert total == house.accounts.meter(tomas, house.answering.sizes()).used  # type: ignore[union-attr]
    assert f"{total:,} of 200,000 tokens" in words(test)
    assert f"8 answers, {total:,} tokens: what the meter shows." in words(test)
    assert f"<th>Together</th><td><b>{total:,}</b></td>" in html_of(test)


def test_a_receipt_says_when_how_much_how_counted_and_by_which_model(house: House) -> None:
    """In the person's zone."""
    write_chat(house, person(house, "mara"), ("Deposit", "Before."), tokens=(1858, 448))

    assert receipts(page("account", "mara")) == [["23 Nov, 11:15", "2,306", "1,858", "0", "448", "1.2 %", "measured", "gpt-4"]]


def test_fifty_receipts_at_first_then_more(house: House) -> None:
    """Newest first; the button says how many it adds, and goes when all are there."""
    mara = person(house, "mara")
    for number in range(120):
        write_chat(house, mara, ("Again", "Yes."), at=house.now() - timedelta(minutes=120 - number), tokens=(10 + number, 1))

    test = page("account", "mara")
    assert (len(receipts(test)), receipts(test)[0][1]) == (50, "130")
    test.button(key="more_receipts").click().run()
    assert (len(receipts(test)), test.button(key="more_receipts").label) == (100, "Show 20 more")
    test.button(key="more_receipts").click().run()

    assert len(receipts(test)) == 120
    assert "more_receipts" not in {b.key for b in test.button}


def test_receipts_go_by_month(house: House) -> None:
    """The month that runs first; an earlier one adds up by itself, under the figure that was in force then."""
    mara = person(house, "mara")
    write_chat(house, mara, ("In the first month", "Yes."), at=house.now() - timedelta(days=50), tokens=(1_000, 1_000))
    house.accounts.entitle(person(house, "ada"), mara.id, PLAN, 400_000)
    write_chat(house, mara, ("Today", "Yes."), tokens=(1_000, 1_000))
    test = page("account", "mara")

    assert test.selectbox(key="receipts_of").options == ["This month, since 4 Nov", "From 4 October 2026"]
    assert [(row[0], row[5]) for row in receipts(test)] == [("23 Nov, 11:15", "0.5 %")]
    test.selectbox(key="receipts_of").select_index(1).run()
    assert [(row[0], row[5]) for row in receipts(test)] == [("4 Oct, 12:15", "1.0 %")]
    assert "1 answer, 2,000 tokens together." in words(test)


def test_an_own_limit_is_set_changed_and_lifted_here(house: House) -> None:
    """What it means stands beside it; one that limits nothing is refused with a sentence."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Deposit", "Before."), tokens=(1_858, 448))
    test = page("account", "mara")
    test.number_input(key="own_limit").set_value(50_000).run()
    test.button(key="set_own_limit").click().run()

    assert "You limited yourself to 50,000 tokens until 23 December." in words(test)
    assert "Your own limit: 50,000 tokens" in words(test) and 'class="own" style="left:25.0%"' in html_of(test)
    test.button(key="lift_own_limit").click().run()
    assert "You limited yourself" not in words(test) and "lift_own_limit" not in {b.key for b in test.button}

    house.accounts.entitle(person(house, "ada"), mara.id, PLAN, 40_000)
    test.number_input(key="own_limit").set_value(40_000)  # from a page that is behind
    test.button(key="set_own_limit").click().run()
    assert "Your own limit has to be below your allowance of 40,000 tokens" in words(test)


def test_opting_out_is_one_click_and_acts_at_once(house: House) -> None:
    """A dated no, answers called off, and the same button leads back."""
    mara, stopped = person(house, "mara"), []
    house.accounts.on_stopped.append(stopped.append)
    test = page("account", "mara")

    test.button(key="opt").click().run()

    assert (house.accounts.opted_in(mara), stopped) == (False, [mara.id])
    assert "You said no on 23 November 2026, 11:15. Nothing is sent to a model." in words(test)

    test.button(key="opt").click().run()

    assert house.accounts.opted_in(mara)
    assert [c.given for c in house.accounts.consents(mara)] == [True, False, True]
    assert words(test).count("to version 1") >= 3


def test_warnings_stand_there_with_their_time(house: House) -> None:
    """Tomás was warned twice, Mara never."""
    assert "75 % of 200,000 tokens were used 21 November 2026, 10:15" in words(page("account", "tomas"))
    assert "None was given." in words(page("account", "mara"))


def test_staff_have_no_sections_of_a_freelancer(house: House) -> None:
    """Name, mail, role, zone, signing out, closing: no plan, no consent, no receipts, no meter."""
    test = page("account", "jude")

    assert [h.value for h in test.header] == ["Sign out", "Close my account"]
    assert "opt" not in {b.key for b in test.button} and "New chat" not in words(test)


def test_somebody_who_never_had_the_plan_is_told_where_to_read_about_it(house: House) -> None:
    """No meter of nothing, no receipts of nothing."""
    text = words(page("account", "nia"))

    assert "is not part of this account yet" in text and "None was given." in text


def test_another_zone_shows_at_once_and_moves_no_cycle(house: House) -> None:
    """Dates follow the choice; the day of renewal, which was fixed by the first message, does not."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Deposit", "Before."))
    before = house.accounts.meter(mara, house.answering.sizes())
    test = page("account", "mara")

    test.selectbox(key="zone").select("Pacific/Auckland").run()

    assert person(house, "mara").zone == "Pacific/Auckland"
    assert receipts(test)[0][0] == "23 Nov, 23:15"
    after = house.accounts.meter(person(house, "mara"), house.answering.sizes())
    assert before is not None and after is not None and before.cycle == after.cycle


def test_choosing_utc_is_kept_against_what_the_browser_says(house: House) -> None:
    """A plain UTC is what a new account has until its browser names a zone; a UTC chosen by hand stays."""
    test = page("account", "mara")
    test.selectbox(key="zone").select("UTC").run()

    house.accounts.learn_zone(person(house, "mara"), "Asia/Tokyo")

    assert person(house, "mara").zone == "Etc/UTC"
    assert page("account", "mara").selectbox(key="zone").value == "UTC"


@pytest.mark.fault(22)
@pytest.mark.parametrize("zone", ["../../etc/passwd", "Mars/Olympus", "", "<b>", "\u202eUTC"])
def test_a_zone_that_is_none_is_never_stored(house: House, zone: str) -> None:
    """Neither from the browser nor from a widget."""
    from chatpro.errors import NotFound

    jude = person(house, "jude")
    house.accounts.learn_zone(jude, zone)
    with pytest.raises(NotFound):
        house.accounts.set_zone(jude, zone)

    assert person(house, "jude").zone == "UTC"


def test_the_browsers_zone_is_learned_at_the_first_sign_in_only(house: House) -> None:
    """A new person's dates are right before the first message; somebody who travels keeps the zone they have."""
    from streamlit.testing.v1 import AppTest

    from chatpro.config import ROOT

    for who, expected in (("jude", "America/New_York"), ("mara", "Europe/Stockholm")):
        test = AppTest.from_file(str(ROOT / "pages" / "account.py"), default_timeout=30)
        test.context = {"timezone": "America/New_York"}
        test.query_params["as"] = who
        test.run()

        assert (person(house, who).zone, [e.message for e in test.exception]) == (expected, [])


def test_a_long_name_and_mail_stay_one_line_each(house: House) -> None:
    """Whatever a provider sent as a name is one visible line of at most sixty characters."""
    mara = person(house, "mara")
    house.store.write(lambda unit: unit._all("UPDATE accounts SET name = ? WHERE id = ?", "Maximiliana\n" * 30, mara.id))

    name = re.search(r"<dt>Name</dt><dd>([^<]*)</dd>", html_of(page("account", "mara")))

    assert name is not None and len(name[1]) <= 60 and "\n" not in name[1]


# --- What is one's own ------------------------------------------------------------------------------------------------


def test_all_chats_are_deleted_after_a_question_and_can_be_brought_back(house: House) -> None:
    """For ten minutes; receipts stay, and nobody else's chats are touched."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    for _ in range(3):
        write_chat(house, mara, ("How", "So."))
    others = len(house.history.chats(tomas))
    test = page("account", "mara")

    test.button(key="delete_all").click().run()
    assert "Delete all 3 chats?" in words(test) and len(house.history.chats(mara)) == 3
    test.button(key="delete_all_no").click().run()
    assert "delete_all_yes" not in {b.key for b in test.button}
    test.button(key="delete_all").click().run()
    test.button(key="delete_all_yes").click().run()

    assert house.history.chats(mara) == [] and "3 chats deleted." in words(test) and len(house.accounts.receipts(mara)) == 3
    assert len(house.history.chats(tomas)) == others
    test.button(key="seen_plain").click().run()
    assert len(house.history.chats(mara)) == 3 and "chats deleted." not in words(test)

    test.button(key="delete_all").click().run()
    test.button(key="delete_all_yes").click().run()
    house.now.forward(minutes=11)  # type: ignore[attr-defined]
    test.button(key="seen_plain").click().run()
    assert house.history.chats(mara) == [] and "for ten minutes, and these are over" in words(test)


def test_everything_and_the_receipts_are_exported_from_here_too(house: House) -> None:
    """After the plan has ended as well: Hal's is over."""
    test = page("account", "hal")

    for key, name in (("export_all", "Chat Pro everything 2026-11-23.zip"), ("export_receipts", "Receipts 2026-11-23.csv")):
        test.button(key=key).click().run()
        assert test.session_state["export"].name == name and [e.message for e in test.exception] == []


def test_staff_have_no_chats_to_export_or_delete(house: House) -> None:
    """Their page is about who they are and their sessions."""
    test = page("account", "ada")

    assert not {"export_all", "delete_all"} & {b.key for b in test.button} and "Who looked" not in words(test)


# --- Months -----------------------------------------------------------------------------------------------------------


def test_the_months_stand_beside_each_other_as_bars_and_as_a_table(house: House) -> None:
    """Each with what was used of what was granted then; the same in words for whoever sees no bars. One month alone has its meter."""
    mara = person(house, "mara")
    write_chat(house, mara, ("In the first month", "Yes."), at=house.now() - timedelta(days=50), tokens=(90_000, 70_000))
    assert 'class="bars"' not in html_of(page("account", "lea"))
    house.store.write(lambda unit: unit.add_warning(mara.id, house.accounts.receipts(mara)[0].cycle_starts_at, "75", 200_000, PLAN, house.now()))
    house.accounts.entitle(person(house, "ada"), mara.id, PLAN, 400_000)
    write_chat(house, mara, ("Today", "Yes."), tokens=(1_000, 1_000))
    html = html_of(page("account", "mara"))

    assert "Tokens used each month, of the allowance. 4 October 2026: 160,000 of 200,000 tokens; 4 November 2026: 2,000 of 400,000 tokens" in html
    assert 'style="--u:40.0%;--a:50.0%"' in html and 'style="--u:0.5%;--a:100.0%"' in html
    rows = [re.sub(r"(<[^>]+>)+", "|", found).strip("|") for found in re.findall(r'<tr><th scope="row">.*?</tr>', html)]
    assert rows == ["From 4 November 2026|2,000|400,000|0.5 %|1|0", "From 4 October 2026|160,000|200,000|80 %|1|1"]


# --- Closing ----------------------------------------------------------------------------------------------------------


def close(test: AppTest, typed: str) -> AppTest:
    test.text_input(key="closing_words").set_value(typed)
    button = next(b for b in test.button if b.label == "Close my account for good")
    return button.click().run()


@pytest.mark.fault(113)
def test_an_account_is_closed_by_typing_it_and_says_what_becomes_of_it(house: House) -> None:
    """What goes and what stays stands before it; afterwards too, with the hour and the day. Then the sign-in page, and nothing of the person."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Zanzibarmarker", "Yes."))
    test, other = site("account", "mara"), site("history", "mara")
    told = words(test)
    for said in (
        "All your chats, with titles and drafts",
        "Your name, your mail and your sign-in",
        "charged for what was written",
        "Until 24 December 2026: a keyed",
    ):
        assert said in told
    assert "export everything first" in told and "Closing does not cancel what you pay elsewhere" in told

    close(test, "close my acount")
    assert 'Nothing was changed. To close it, type the words "close my account".' in words(test) and house.accounts.find(mara.id) is not None
    close(test, '  Close  my Account". ')

    assert title_of(test) == "Your account is closed" and house.accounts.find(mara.id) is None and [e.message for e in test.exception] == []
    assert "out of all files of this service by 24 November 2026, 11:15" in words(test) and "Until 24 December 2026 a keyed hash" in words(test)
    assert "Zanzibarmarker" not in words(test.run()) and title_of(test) == "Your account is closed"
    assert title_of(other.run()) == SIGN_IN and "Zanzibarmarker" not in words(other)
    test.button(key="left_for_good").click().run()
    assert title_of(test) == SIGN_IN and "Mara" not in words(test)


@pytest.mark.fault(113)
def test_a_tab_that_is_left_open_closes_nothing_and_nobody_a_second_time(house: House) -> None:
    """Typed in two tabs: the second one is signed out, like any other."""
    tabs = [site("account", "mara"), site("account", "mara")]
    for tab in tabs:
        close(tab, "close my account")

    assert [title_of(tab) for tab in tabs] == ["Your account is closed", SIGN_IN]
    assert [e.action for e in house.store.read(lambda rows: rows.audit_entries())].count("account.closed") == 1


@pytest.mark.fault(26, 113)
def test_staff_close_theirs_here_too_but_not_the_last_admin(house: House) -> None:
    """Without words about chats that they have none of."""
    test = site("account", "ada")
    assert "All your chats" not in words(test) and "export everything" not in words(test)

    close(test, "close my account")

    assert "Your account is not closed. This is the last admin. Make somebody else admin first." in words(test) and title_of(test) == "Account"
    assert title_of(close(site("account", "jude"), "close my account")) == "Your account is closed"


@pytest.mark.fault(113)
def test_tokens_used_under_a_closed_account_stand_among_the_receipts(house: House) -> None:
    """So that the sum below them is the meter's, on this page and in the window over the chat; also before the first answer."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Before", "Yes."), tokens=(90_000, 10_000))
    starts_at = house.accounts.receipts(mara)[0].cycle_starts_at
    lea = person(house, "lea")

    def carry(unit: Unit) -> None:
        anchor = unit.anchor(mara.id)
        assert anchor is not None
        unit.add_anchor(lea.id, anchor, house.now())
        unit.carry_over(lea.id, mara.id, cycle_at(anchor, house.now()), house.now())

    house.store.write(carry)
    test = page("account", "lea")
    assert "0 answers, 0 tokens and 100,000 that you used before under an account that you closed: what the meter shows." in words(test)
    assert "<th>Together</th><td><b>100,000</b></td>" in html_of(test) and "100,000 of 200,000 tokens" in words(test)

    write_chat(house, lea, ("Back", "Good."), tokens=(700, 300))
    test = page("account", "lea")
    assert "1 answer, 1,000 tokens and 100,000 that you used before under an account that you closed: what the meter shows." in words(test)
    assert '<tr><td>Before</td><td><b>100,000</b></td><td colspan="6">under an account that you closed</td></tr>' in html_of(test)
    assert "<th>Together</th><td><b>101,000</b></td><td>700</td>" in html_of(test)
    assert house.accounts.carried(lea, starts_at) == 100_000
