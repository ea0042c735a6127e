"""kill -9 at any moment: what was acknowledged is there, what was not is whole or absent, and a half-made migration never was.

Without these nobody would know that a power cut costs answers until the first one does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from chatpro.errors import StoreDamaged
from chatpro.storage import migrate
from tests.conftest import trials
from tests.storage.children import child, open_store, raw, roles

KILL_IN_A_COMMIT_LOOP = """
    import json, random, signal
    from chatpro.domain.disputes import first_broken

    def unit_of(n):
        def work(unit):
            for role in ("freelancer", "analyst", "support"):
                raw(unit, "INSERT INTO roles VALUES (?, ?)", str(n), role)
            charged(unit)
            audited(unit)
        return work

    def commit_for_ever(first, say):
        store, n = open_store(folder), first
        while True:
            futures = [store.submit(unit_of(n + k)) for k in range(4)]
            for future in futures:
                future.result()
                os.write(say, f"{n}\\n".encode())
                n += 1

    def look():
        began = time.perf_counter()
        store = open_store(folder)
        ms = (time.perf_counter() - began) * 1_000
        rows = store.read(lambda unit: raw(unit, "SELECT account_id, count(*) FROM roles GROUP BY 1"))
        chain = store.read(lambda unit: unit.audit_entries())
        ledger = store.read(lambda unit: raw(unit, "SELECT count(*), max(sequence) FROM usage_entries"))[0]
        found = {"whole": [int(a) for a, k in rows if k == 3], "torn": [a for a, k in rows if k != 3], "gap": str(store.gap),
                 "broken": first_broken(chain), "audit": len(chain), "ledger": ledger[0], "last": ledger[1], "ms": ms}
        store.close() if random.random() < 0.3 else None
        return found

    def in_a_child(work):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(reading)
            os.write(writing, json.dumps(work()).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as said:
            found = said.read()
        os.waitpid(pid, 0)
        return json.loads(found)

    acknowledged, reports = set(), []
    for n in range(%d):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            commit_for_ever(n * 100_000, writing)
        os.close(writing)
        said = os.fdopen(reading)
        acknowledged.add(int(said.readline()))
        time.sleep(random.random() * 0.12)
        os.kill(pid, signal.SIGKILL)
        acknowledged |= {int(line) for line in said.read().split("\\n")[:-1]}
        os.waitpid(pid, 0)
        found = in_a_child(look)
        whole = set(found.pop("whole"))
        reports.append({**found, "lost": sorted(acknowledged - whole), "units": len(whole), "unheard": len(whole - acknowledged)})
    print(json.dumps(reports))
"""


@pytest.mark.fault(28)
@pytest.mark.trials
def test_no_kill_loses_or_tears_an_acknowledged_unit(tmp_path: Path) -> None:
    """Killed at random moments of a commit loop and opened again, over and over on one store, closed properly now and then."""
    reports = json.loads(child(KILL_IN_A_COMMIT_LOOP % trials(20, 200), tmp_path))
    print(f"open after a kill: mean {sum(r['ms'] for r in reports) / len(reports):.0f} ms, longest {max(r['ms'] for r in reports):.0f} ms")
    for report in reports:
        assert (report["lost"], report["torn"], report["broken"], report["gap"]) == ([], [], None, "None")
        assert report["audit"] == report["ledger"] == report["last"] == report["units"]
    assert reports[-1]["units"] > len(reports)


def test_a_kill_between_commit_and_witness_is_no_gap(tmp_path: Path) -> None:
    """The witness is behind the store then, which is no loss."""
    open_store(tmp_path).close()
    child(
        """
        import signal
        engine.WITNESS_SECONDS = 0.1
        store = open_store(folder)
        os.environ["CHATPRO_TEST_FAULTS"] = "store.witness"
        store.write(audited)
        signal.pause()
        """,
        tmp_path,
        expect=-9,
    )
    store = open_store(tmp_path)
    assert store.gap is None
    assert len(store.read(lambda unit: unit.audit_entries())) == 1
    store.close()


def test_fault_points_mean_nothing_unless_a_test_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's stray variable ends no process."""
    monkeypatch.setenv("CHATPRO_TEST_FAULTS", "store, witness, store.migrate, 1")
    open_store(tmp_path).close()


# --- migrations -------------------------------------------------------------------------------------------------------

SECOND = """
-- A second step; with a semicolon in a comment, and one in a string.
CREATE TABLE seconds (a INTEGER PRIMARY KEY, b VARCHAR CHECK (b <> ';')); -- trailing; words
INSERT INTO seconds SELECT i, 'from; before -- not a comment' FROM generate_series(1, 3) AS t(i);
ALTER TABLE seconds ADD COLUMN c INTEGER;
UPDATE seconds SET c = a * 2
-- and an end without one
"""


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """The product's migrations and one more."""
    folder = tmp_path / "steps"
    shutil.copytree(migrate.FOLDER, folder)
    next_number = max(m.number for m in migrate.known()) + 1
    (folder / f"{next_number:04}_seconds.sql").write_text(SECOND)
    return folder


def _seconds(folder: Path, steps: Path) -> list[tuple[int, str, int]]:
    store = open_store(folder, migrations=steps)
    rows = store.read(lambda unit: raw(unit, "SELECT a, b, c FROM seconds ORDER BY a"))
    applied = store.read(lambda unit: raw(unit, "SELECT number FROM schema_migrations ORDER BY number"))
    store.close()
    assert [number for (number,) in applied] == [m.number for m in migrate.known(steps)]
    return [(a, b, c) for a, b, c in rows]


EXPECTED = [(a, "from; before -- not a comment", 2 * a) for a in (1, 2, 3)]


def test_a_step_is_applied_whole_whatever_stands_in_its_comments_and_strings(tmp_path: Path, steps: Path) -> None:
    """Parted by the engine's own parser; the old rows are there."""
    store = open_store(tmp_path)
    store.write(lambda unit: raw(unit, "INSERT INTO roles VALUES ('casey', 'freelancer')"))
    store.close()
    assert _seconds(tmp_path, steps) == EXPECTED
    again = open_store(tmp_path, migrations=steps)
    assert roles(again) == {"casey"}
    again.close()


@pytest.mark.fault(67)
@pytest.mark.trials
def test_a_start_killed_at_any_statement_of_a_migration_is_made_good_by_the_next(tmp_path: Path, steps: Path) -> None:
    """Also at the record, at the commit, and before the file stands under its name. Each point on a fresh store and on one with the earlier steps."""
    said = child(
        f"""
        import shutil, signal
        from chatpro.storage import migrate
        steps = Path({str(steps)!r})
        parts = {{m.number: len(engine.duckdb.extract_statements(m.text)) for m in migrate.known(steps)}}
        ends = {{n: count + 3 for n, count in parts.items()}}
        last = max(parts)
        some = lambda n: [k for k in range(1, ends[n]) if n == last or k < 2 or k > ends[n] - 3 or k % {trials(6, 1)} == 0]
        points = ["store.create", *(f"store.migrate:{{n:04}}:{{k}}" for n in parts for k in some(n))]

        def ended(work):
            if (pid := os.fork()) == 0:
                work()
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        def killed(place, point):
            os.environ["CHATPRO_TEST_FAULTS"] = point
            open_store(place, migrations=steps)

        def made_good(place):
            store = open_store(place, migrations=steps)
            rows = store.read(lambda unit: raw(unit, "SELECT count(*), sum(c) FROM seconds"))
            assert rows == [(3, 12)], rows
            assert store.write(audited) == 1
            store.close()

        for n, point in enumerate(points):
            place = folder / str(n)
            print(point, ended(lambda: killed(place, point)), ended(lambda: made_good(place)), flush=True)
        """,
        tmp_path,
    )
    outcomes = [line.split() for line in said.splitlines()]
    assert len(outcomes) >= 15
    assert [line for line in outcomes if line[1:] != ["-9", "0"]] == []


@pytest.mark.fault(67, 120)
def test_a_store_made_by_a_newer_version_refuses_the_start(tmp_path: Path, steps: Path) -> None:
    """An older program would write rows that lack what the newer one counts on."""
    assert _seconds(tmp_path, steps) == EXPECTED
    before = (tmp_path / "store.duckdb").read_bytes()
    with pytest.raises(StoreDamaged, match="newer version"):
        open_store(tmp_path)
    assert (tmp_path / "store.duckdb").read_bytes() == before
    assert _seconds(tmp_path, steps) == EXPECTED


@pytest.mark.fault(67)
def test_a_step_that_was_edited_after_it_was_applied_refuses_the_start(tmp_path: Path, steps: Path) -> None:
    """Two installations would have two shapes under one number."""
    assert _seconds(tmp_path, steps) == EXPECTED
    step = next(steps.glob("*_seconds.sql"))
    step.write_text(SECOND + "\n-- one more word")
    with pytest.raises(StoreDamaged, match="another form"):
        open_store(tmp_path, migrations=steps)
    step.write_text(SECOND)
    assert _seconds(tmp_path, steps) == EXPECTED


@pytest.mark.fault(67)
@pytest.mark.parametrize("wrong", ["SELECT nothing FROM nowhere", "CREAT TABLE", "INSERT INTO seconds VALUES (1, 'again', 1)"])
def test_a_step_that_fails_changes_nothing_and_names_itself(tmp_path: Path, steps: Path, wrong: str) -> None:
    """The version before still starts; with the step put right, this one does."""
    open_store(tmp_path).close()
    step = next(steps.glob("*_seconds.sql"))
    step.write_text(SECOND + ";\n" + wrong)
    with pytest.raises(StoreDamaged, match=step.stem):
        open_store(tmp_path, migrations=steps)
    open_store(tmp_path).close()
    step.write_text(SECOND)
    assert _seconds(tmp_path, steps) == EXPECTED


@pytest.mark.parametrize("wrong", ["0001_again.sql", "seconds.sql"])
def test_a_copy_of_the_program_with_a_step_twice_or_without_a_number_refuses_the_start(tmp_path: Path, steps: Path, wrong: str) -> None:
    """Half an upgrade is worse than none. Numbers may have holes: steps are made beside each other."""
    step = next(steps.glob("*_seconds.sql"))
    step.rename(step.with_name(wrong))
    with pytest.raises(StoreDamaged, match="not whole"):
        open_store(tmp_path, migrations=steps)
