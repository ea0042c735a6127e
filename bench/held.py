"""Stores with millions of messages in them, made by a few statements over whole columns. For the benchmarks of the store.

Everybody writes at all times, so the rows of one person lie scattered over the file in order of arrival, as they do before the first
purge has sorted them. Texts are drawn from a fixed vocabulary with a few common and many rare words, half of them with the
typographic signs that models use; each ends with a number that no other text has.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from functools import cache

from chatpro.storage import Unit
from chatpro.storage.duckdb import DuckStore

POOL = 20_000
STEP = 500_000
SYLLABLES = "ba be bi bo da de di do fa fe ga go ha ka ke la le lo ma me mi na ne no pa pe ra re ri ro sa se si ta te ti to va ve zu".split()


@cache
def texts(chars: int) -> list[str]:
    """The same ones in each run, `chars` long on average."""
    dice = random.Random(5)
    words = ["".join(dice.choices(SYLLABLES, k=dice.randint(1, 4))) for _ in range(4_000)]
    weights = [1 / (n + 3) for n in range(len(words))]
    pool = []
    for n in range(POOL):
        said = dice.choices(words, weights, k=round(chars / 5.4 * dice.uniform(0.3, 1.7)))
        pool.append(" ".join(said) if n % 2 else " ".join(said[::2]) + " – it’s “" + " ".join(said[1::2]) + "” naïve")
    return pool


def person(number: int) -> str:
    """The account id of one of them, in SQL."""
    return f"md5('person {number}')"


def fill(
    store: DuckStore, *, people: int, exchanges: int, chars: int, first: datetime, last: datetime, chats: int = 20, ledger: bool = True, begin: int = 0
) -> None:
    """Add messages with their answers, evenly spread over the time and over people numbered from 0, who have so many chats each. `begin` is the
    number of the first exchange, for a second filling; `ledger`: with answers, reservations and usage entries."""
    pool = texts(chars)
    step = (last - first) / max(1, exchanges)
    store.write(lambda unit: _pool(unit, pool))
    if begin == 0:
        store.write(lambda unit: _chats(unit, people, chats, first))
    for lowest in range(begin, begin + exchanges, STEP):
        until = min(lowest + STEP, begin + exchanges)
        store.write(lambda unit, a=lowest, z=until: _exchanges(unit, a, z, people, chats, first - begin * step, step, ledger))  # type: ignore[misc]
        while not store.checkpoint():
            pass
    store.write(lambda unit: unit._all("DROP TABLE pool"))


def _pool(unit: Unit, pool: list[str]) -> None:
    unit._all("CREATE TABLE pool AS SELECT unnest(CAST(? AS VARCHAR[])) AS text, unnest(range(?)) AS n", pool, len(pool))


def _chats(unit: Unit, people: int, chats: int, first: datetime) -> None:
    everybody = "FROM range(?) a(p), range(?) b(c) ORDER BY hash(c, p)"
    unit._all(f"INSERT INTO chats SELECT md5('person ' || p), md5(p || ' chat ' || c), ?, NULL {everybody}", first, people, chats)
    title = "row_number() OVER (), NULL, 'Chat ' || c || ' of ' || p"
    unit._all(f"INSERT INTO titles SELECT md5('person ' || p), md5(p || ' chat ' || c), {title}, ? {everybody}", first, people, chats)


def _exchanges(unit: Unit, lowest: int, until: int, people: int, chats: int, first: datetime, step: timedelta, ledger: bool) -> None:
    made = f"""
        SELECT e, md5('person ' || (hash(e) % {people})) AS account_id, md5((hash(e) % {people}) || ' chat ' || (hash(e * 7) % {chats})) AS chat_id,
               md5('question ' || e) AS question_id, md5('answer ' || e) AS answer_id, to_microseconds(e * {step / timedelta(microseconds=1):.0f}) + ? AS moment
        FROM range({lowest}, {until}) r(e)
    """
    unit._all(
        f"""
        INSERT INTO messages
        SELECT account_id, if(own, question_id, answer_id), chat_id, if(own, NULL, question_id), 2 * e + if(own, 1, 2), if(own, 'freelancer', 'answer'),
               text || ' n' || (2 * e + own::INTEGER), moment
        FROM ({made}) x, (VALUES (true), (false)) v(own), pool p WHERE p.n = hash(e * 2 + own::INTEGER) % {POOL} ORDER BY e, own DESC
        """,
        first,
    )
    if not ledger:
        return
    unit._all(
        f"INSERT INTO answers SELECT account_id, answer_id, chat_id, question_id, question_id, 0, 'r' || answer_id, 2 * e + 2, 'finished', NULL, 'gpt-4', '1', "
        f"0, false, moment, moment FROM ({made}) x",
        first,
    )
    reserved = "question_id, TIMESTAMP '2026-01-01', 200000, 'ordinary', 2000, 400, 100, 1500, 'settled', moment, moment, moment"
    unit._all(f"INSERT INTO reservations SELECT account_id, 'r' || answer_id, {reserved} FROM ({made}) x", first)
    charged = "TIMESTAMP '2026-01-01', 'Freelancer Plus', 400, 300, 100, 'measured', 0, 'gpt-4', '1', 400, 3000, 'finished', moment, 20000"
    unit._all(f"INSERT INTO usage_entries SELECT account_id, e + 1, answer_id, 'r' || answer_id, {charged} FROM ({made}) x", first)


def fill_sorted(store: DuckStore, counts: dict[int, int], *, chars: int, first: datetime, last: datetime, chats: int = 20) -> None:
    """Messages with their chats, in the order in which the purge leaves them: by account and time. `counts`: person → how many messages."""
    pool, people = texts(chars), sorted(counts)
    store.write(lambda unit: _pool(unit, pool))
    store.write(lambda unit: _people(unit, people, [counts[p] for p in people], first, chats))
    begin = held = 0
    amounts = [row[0] for row in store.read(lambda rows: rows._all("SELECT amount FROM people ORDER BY n"))]
    for n, amount in enumerate(amounts):
        held += amount
        if held >= STEP or n == len(amounts) - 1:
            store.write(lambda unit, a=begin, z=n + 1: _sorted(unit, a, z, chats, first, last))  # type: ignore[misc]
            begin, held = n + 1, 0
            while not store.checkpoint():
                pass
    store.write(lambda unit: unit._all("DROP TABLE pool"))
    store.write(lambda unit: unit._all("DROP TABLE people"))


def _people(unit: Unit, people: list[int], amounts: list[int], first: datetime, chats: int) -> None:
    given = "SELECT unnest(CAST(? AS BIGINT[])) AS p, unnest(CAST(? AS BIGINT[])) AS amount"
    unit._all(
        f"CREATE TABLE people AS SELECT *, row_number() OVER (ORDER BY account_id) - 1 AS n FROM (SELECT *, md5('person ' || p) AS account_id FROM ({given}))",
        people,
        amounts,
    )
    each = "FROM people, range(?) b(c)"
    unit._all(f"INSERT INTO chats SELECT account_id, md5(p || ' chat ' || c), ?, NULL {each} ORDER BY hash(c, p)", first, chats)
    title = "row_number() OVER (), NULL, 'Chat ' || c || ' of ' || p"
    unit._all(f"INSERT INTO titles SELECT account_id, md5(p || ' chat ' || c), {title}, ? {each} ORDER BY account_id, c", first, chats)


def _sorted(unit: Unit, begin: int, until: int, chats: int, first: datetime, last: datetime) -> None:
    made = "SELECT *, unnest(range(amount)) AS m FROM people WHERE n >= ? AND n < ?"
    chat = f"md5(p || ' chat ' || (m * {chats} // amount))"
    number = "m * 1000000 + p"
    unit._all(
        f"""
        INSERT INTO messages
        SELECT account_id, md5(p || ' message ' || m), {chat}, NULL, {number}, if(m % 2 = 0, 'freelancer', 'answer'), text || ' n' || ({number}),
               ? + to_microseconds(CAST((m + (p % 977) / 977.0) / amount * ? AS BIGINT))
        FROM ({made}) x JOIN pool ON pool.n = hash({number}) % {POOL} ORDER BY x.n, m
        """,
        first, (last - first) // timedelta(microseconds=1), begin, until,
    )  # fmt: skip
