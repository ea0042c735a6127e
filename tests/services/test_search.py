"""Finding the sentence from last week: all of one's own, nothing of anybody else's, and nothing that can't be read any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatpro.bootstrap import House
from chatpro.domain.search import parse
from chatpro.errors import NotAllowed, NotSearchable
from chatpro.models.scripted import scripted, words
from chatpro.services.history import Found, Hit
from tests.cast import build_house, person, spend, write_chat
from tests.conftest import trials
from tests.running import ended, running, send


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no search ends early."""
    monkeypatch.setattr("chatpro.services.history.SEARCH_SECONDS", 1e9)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = build_house(tmp_path)
    yield built
    built.store.close()
    built.analytics.close()


def search(house: House, typed: str, name: str = "mara", limit: int = 20) -> list[Hit]:
    """All hits, page by page."""
    hits: list[Hit] = []
    found = Found([], None)
    while True:
        found = house.history.search(person(house, name), typed, found.more, limit)
        hits += found.hits
        assert len(found.hits) <= limit and not found.ended_early
        if found.more is None:
            return hits


def marked(hit: Hit) -> list[str]:
    return [hit.snippet.text[begin:end] for begin, end in hit.snippet.marks]


def test_messages_answers_and_titles_are_found_with_what_hits_marked(house: House) -> None:
    """Newest first; a title stands above the messages of its chat's last moment. Each hit says its chat and message."""
    mara = person(house, "mara")
    old = write_chat(house, mara, ("How do I word a late fee?", "Name the day and the amount."), at=house.now() - timedelta(days=20), title="Invoices")
    new = write_chat(house, mara, ("Hello", "A LATE invoice bears a Fee."), title="Late fees")

    hits = search(house, "late fee")

    assert [(h.chat_id, h.title, h.own) for h in hits] == [(new, "Late fees", True), (new, "Late fees", False), (old, "Invoices", True)]
    assert [marked(h) for h in hits] == [["Late", "fee"], ["LATE", "Fee"], ["late", "fee"]]
    ids = [m.id for chat in (new, old) for m in house.history.open(mara, chat).messages]
    assert hits[0].message_id is None and [h.message_id for h in hits[1:]] == [ids[1], ids[2]]
    assert [h.at for h in hits] == sorted((h.at for h in hits), reverse=True)


def test_several_words_mean_all_of_them_in_one_message(house: House) -> None:
    """Not one here and the other there; a phrase as it stands, also over a line's end."""
    mara = person(house, "mara")
    write_chat(house, mara, ("late", "fee"), ("a fee that is late", "the late\n\nfee"), title="x")

    assert len(search(house, "late fee")) == 2
    assert [marked(h) for h in search(house, '"late fee"')] == [["late\n\nfee"]]


@pytest.mark.fault(105)
@pytest.mark.parametrize("typed", ["cafe strasse", "CAFÉ STRASSE", "“café” straße", "cafe\u0301 Straẞe"])
def test_case_and_accents_do_not_matter(house: House, typed: str) -> None:
    """The words of the text are marked as they stand there."""
    write_chat(house, person(house, "mara"), ("Das Café in der Straße", "Ja."), title="x")

    assert [marked(h) for h in search(house, typed)] == [["Café", "Straße"]]


@pytest.mark.fault(104)
@pytest.mark.parametrize("sign", ["50%", "a_b", "c:\\new", "it's", "x*y", "[1]", "(sic)", "';--"])
def test_signs_are_signs(house: House, sign: str) -> None:
    """Found where they stand, and matching nothing else."""
    mara = person(house, "mara")
    write_chat(house, mara, (f"There is {sign} in it", "Every 50x and aXb, cnew, its xay 1 sic"), title="x")

    assert [marked(h) for h in search(house, sign)] == [[sign]]


@pytest.mark.fault(104)
@pytest.mark.parametrize("typed", ["", "   ", '""', "e", "%a" * 5_000, "x" * 10_000, " ".join("abcdefghijklmnop")])
def test_what_can_not_be_looked_for_is_said(house: House, typed: str) -> None:
    """A sentence, not an error of the store and not everything there is."""
    with pytest.raises(NotSearchable) as caught:
        house.history.search(person(house, "mara"), typed)
    assert str(caught.value).endswith(".")


def test_earlier_versions_are_found_too(tmp_path: Path) -> None:
    """What was said in other words since is still what one looks for."""
    with running(tmp_path, scripted(words("First answer about kumquats."), words("Second answer about limes."))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "A question about kumquats")
        ended(house, mara, sent)
        question = house.history.open(mara, sent.chat_id).messages[0].id
        again = house.answering.edit(mara, sent.chat_id, question, "A question about limes")
        ended(house, mara, again)  # type: ignore[arg-type]

        assert [m.text for m in house.history.open(mara, sent.chat_id).messages] == ["A question about limes", "Second answer about limes."]
        hits = [h for h in search(house, "kumquats") if h.message_id is not None]
        assert [h.own for h in hits] == [False, True]
        assert [house.history.open(mara, h.chat_id, h.message_id).messages[0].text for h in hits] == ["A question about kumquats"] * 2


def test_what_was_sent_a_second_ago_is_found(tmp_path: Path) -> None:
    """The question while it is answered, the answer as soon as it has ended."""
    with running(tmp_path, scripted(words("One two three quokka.", gap=0.1))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Tell me of the wombat", None)
        assert [h.message_id for h in search(house, "wombat") if h.message_id] == [house.history.open(mara, sent.chat_id).messages[0].id]
        ended(house, mara, sent)
        assert [h.message_id for h in search(house, "quokka")] == [sent.answer_id]


@pytest.mark.parametrize("name", ["hal", "mara", "tomas"])
def test_it_works_without_plan_consent_or_tokens(house: House, name: str) -> None:
    """Hal's plan has ended, Tomás has used all of his tokens, Mara takes her yes back: their words are still theirs."""
    account = person(house, name)
    if name == "tomas":
        spend(house, account, 6_360)
    if name == "mara":
        write_chat(house, account, ("Of platypuses", "Yes."), title="x")
        house.accounts.opt_out(account)
    typed = {"hal": "late fee", "mara": "platypuses", "tomas": "milestones"}[name]

    assert [marked(h)[0].lower() for h in search(house, typed, name)][0] == typed.split()[0]


@pytest.mark.fault(17, 20)
def test_nobody_finds_what_is_not_theirs_or_gone(house: House) -> None:
    """Others' chats, deleted ones, and messages past their days, whether or not a purge has run."""
    mara, hal = person(house, "mara"), person(house, "hal")
    write_chat(house, hal, ("The axolotl of Hal", "Axolotl."), title="Axolotl", at=house.now() - timedelta(days=20))
    write_chat(house, mara, ("An axolotl of old", "Axolotl."), title="Axolotl", at=house.now() - timedelta(days=90))
    deleted = write_chat(house, mara, ("A deleted axolotl", "Axolotl."), title="Axolotl")
    house.history.delete(mara, deleted)
    assert search(house, "axolotl") == []

    house.history.restore(mara, deleted)
    assert {h.chat_id for h in search(house, "axolotl")} == {deleted}
    for name in ("priya", "jude", "ana", "otto", "ada"):
        with pytest.raises(NotAllowed):
            house.history.search(person(house, name), "axolotl")


@pytest.mark.fault(58, 105)
def test_at_the_instant_its_days_are_over_nobody_finds_it(house: House) -> None:
    """Message for message, the title with the message that it came from; whether or not a purge has run."""
    mara, first = person(house, "mara"), house.now()
    chat = write_chat(house, mara, ("axolotl one", "axolotl two"))
    house.store.write(lambda unit: unit.add_message(mara.id, "e" * 32, chat, None, "freelancer", "axolotl three", first + timedelta(hours=1)))

    def found(at: datetime) -> list[str]:
        house.now.at = at  # type: ignore[attr-defined]
        return sorted(hit.snippet.text for hit in search(house, "axolotl"))

    end = first + timedelta(days=90)
    moment = timedelta(microseconds=1)
    assert found(end - moment) == ["axolotl one", "axolotl one", "axolotl three", "axolotl two"]  # one of them is the title
    assert found(end) == ["axolotl three"] == found(end + timedelta(hours=1) - moment)
    assert found(end + timedelta(hours=1)) == []
    house.housekeeping.purge()
    assert found(end - moment) == [], "and after a purge not even for a clock that goes wrong"


WORDS = ("late", "fee", "Café", "STRASSE", "50%", "a_b", "c:\\new", "naïve", "’tis")
said = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
talks = st.lists(st.tuples(said, said), min_size=1, max_size=3)


@pytest.mark.trials
@settings(max_examples=trials(20, 200), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    chats=st.lists(st.tuples(st.sampled_from(["mara", "tomas"]), st.booleans(), st.integers(85, 95), talks), max_size=5),
    typed=st.lists(st.sampled_from([*WORDS, '"late fee"', "strasse", "cafe", "NAIVE", "late"]), min_size=1, max_size=3).map(" ".join),
    limit=st.integers(1, 9),
)  # fmt: skip
def test_whatever_was_written_what_is_found_is_what_one_may_read_and_meets_the_query(
    house: House, chats: list[tuple[str, bool, int, list[tuple[str, str]]]], typed: str, limit: int
) -> None:
    """Held against the chats as their owner opens them: each readable entry that meets the query once, newest first, and nothing else."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    for owner in (mara, tomas):
        house.history.delete_all(owner)
    for name, deleted, age, talk in chats:
        chat = write_chat(house, mara if name == "mara" else tomas, *talk, at=house.now() - timedelta(days=age), tokens=(1, 1))
        if deleted and age < 90:
            house.history.delete(mara if name == "mara" else tomas, chat)
    query = parse(typed)

    hits = search(house, typed, limit=limit)

    opened = [house.history.open(mara, chat.id) for chat in house.history.chats(mara)]
    wanted = [message.id for chat in opened for message in chat.messages if query.meets(message.text)] + [chat.id for chat in opened if query.meets(chat.title)]
    assert sorted(hit.message_id or hit.chat_id for hit in hits) == sorted(wanted)
    assert [hit.at for hit in hits] == sorted((hit.at for hit in hits), reverse=True)
    assert all(any(part in parse(f'"{word}"').keys[0] for part in query.keys) for hit in hits for word in marked(hit))
    groups = Found(hits, None).by_chat
    assert [len({hit.chat_id for hit in group}) for group in groups] == [1] * len(groups)
    assert sorted(map(repr, hits)) == sorted(repr(hit) for group in groups for hit in group)
    assert [group[0].at for group in groups] == sorted((group[0].at for group in groups), reverse=True)


def test_pages_together_hold_every_hit_once(house: House) -> None:
    """However many there are on a page, also where many share one instant."""
    mara = person(house, "mara")
    for n in range(6):
        at = house.now() - timedelta(days=3 + n // 3)
        write_chat(house, mara, *[(f"needle {n}", "hay" if k % 2 else f"needle answer {n}") for k in range(4)], title=f"A needle {n % 2}", at=at)
    whole = search(house, "needle", limit=1_000)
    assert len(whole) == 6 + 6 * 4 + 6 * 2
    assert sorted(whole, key=lambda h: h.at, reverse=True) == whole

    for limit in (1, 2, 5, 7, len(whole)):
        assert search(house, "needle", limit=limit) == whole


def test_the_last_full_page_promises_no_more(house: House) -> None:
    """Nobody is asked to turn to an empty page."""
    mara = person(house, "mara")
    write_chat(house, mara, *[("needle", "hay")] * 4, title="x")

    assert house.history.search(mara, "needle", limit=4).more is None
    assert house.history.search(mara, "needle", limit=3).more is not None


def test_a_person_who_wrote_very_much_is_looked_through_in_parts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of some thousand messages each, and nothing falls between two of them."""
    mara = person(house, "mara")
    write_chat(house, mara, *[(f"needle number {n}", "hay") for n in range(30)], title="x")
    whole = search(house, "needle", limit=100)
    monkeypatch.setattr("chatpro.services.history.SEARCHED", 7)

    assert len(whole) == 30 and search(house, "needle", limit=100) == whole


def test_a_search_that_takes_too_long_ends_and_can_be_gone_on_with(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is shown, and it is said that it isn't all."""
    mara = person(house, "mara")
    write_chat(house, mara, ("needle", "hay"), ("hay", "hay"), ("hay", "hay"), title="x")
    with monkeypatch.context() as patch:
        patch.setattr("chatpro.services.history.SEARCH_SECONDS", -1.0)
        found = house.history.search(mara, "needle")
        assert found.ended_early and found.hits == [] and found.more is not None
    rest = house.history.search(mara, "needle", found.more)
    assert len(rest.hits) == 1 and not rest.ended_early


def test_a_search_writes_nothing(house: House) -> None:
    """What people look for is nobody's business: no row, no audit entry, no trace in the store."""
    mara = person(house, "mara")
    write_chat(house, mara, ("needle", "hay"))
    before = house.store.read(lambda rows: [rows._all(f"SELECT count(*) FROM {t}") for t in ("audit_entries", "messages", "usage_entries", "refusals")])
    search(house, "needle of mine")
    assert before == house.store.read(lambda rows: [rows._all(f"SELECT count(*) FROM {t}") for t in ("audit_entries", "messages", "usage_entries", "refusals")])
