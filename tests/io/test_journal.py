"""The journal's file: states, owners, groups, and what a kill -9 leaves of it."""

import asyncio
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from dryapi_async import ConfigurationError, JournalError
from dryapi_async.io.ledger import COMES_FROM
from dryapi_async.io.owners import is_alive, lock_file

from ..conftest import without_root
from .journals import begin, make_journal, state_of

pytestmark = pytest.mark.anyio
STATES = ("intent", *COMES_FROM)
ALLOWED = {
    ("intent", "waiting"),
    ("intent", "refused"),
    ("intent", "unknown"),
    ("intent", "submitted"),
    ("intent", "saved"),
    ("waiting", "refused"),
    ("waiting", "unknown"),
    ("waiting", "submitted"),
    ("unknown", "submitted"),
    ("submitted", "done"),
    ("submitted", "failed"),
    ("submitted", "saved"),
    ("done", "saved"),
}
WAY = {
    "intent": (),
    "waiting": ("waiting",),
    "refused": ("refused",),
    "unknown": ("unknown",),
    "submitted": ("submitted",),
    "done": ("submitted", "done"),
    "failed": ("submitted", "failed"),
    "saved": ("submitted", "saved"),
}


def modes(folder: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


@pytest.mark.parametrize(("before", "after"), list(product(STATES, COMES_FROM)))
async def test_p04_a_state_never_goes_back(tmp_path: Path, before: str, after: str) -> None:
    journal = make_journal(tmp_path / "j.db")
    await begin(journal)
    for state in WAY[before]:
        await journal.record("k", state, request_id="r" if state == "submitted" else None)
    assert await state_of(journal) == before
    await journal.record("k", after, cause="why")
    assert await state_of(journal) == (after if (before, after) in ALLOWED else before)
    await journal.close()


@pytest.mark.parametrize("before", STATES)
async def test_p04_only_what_waited_is_an_intent_again(tmp_path: Path, before: str) -> None:
    journal = make_journal(tmp_path / "j.db")
    await begin(journal)
    for state in WAY[before]:
        await journal.record("k", state)
    if before in {"intent", "waiting"}:
        await begin(journal)
    else:
        with pytest.raises(JournalError, match="Nothing may be sent"):
            await begin(journal)
    assert await state_of(journal) == ("intent" if before == "waiting" else before)
    await journal.close()


async def test_notes_are_found_by_the_jobs_id_and_written_within_a_second(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    await begin(journal)
    await journal.record("k", "submitted", request_id="r-1")
    journal.note("r-1", "done")
    journal.note("r-1", "saved")
    journal.note("r-2", "saved")
    before = journal.commits
    await asyncio.sleep(1.5)
    assert journal.commits == before + 1
    with sqlite3.connect(tmp_path / "j.db") as other:
        assert other.execute("SELECT state FROM calls").fetchall() == [("saved",)]
    other.close()
    await journal.close()


async def test_a_hundred_at_once_are_a_few_groups(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    await journal.open()
    before = journal.commits
    await asyncio.gather(*(begin(journal, f"k{number}") for number in range(100)))
    assert journal.commits - before == 1

    async def begin_later(steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        await begin(journal, f"later-{steps}")

    await asyncio.gather(*map(begin_later, range(100)))
    assert journal.commits - before < 50, "what comes while a group is written is the next one"
    assert len(await journal.list("intent")) == 200
    await journal.close()


async def test_a_cancelled_waiters_row_is_written_all_the_same(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    await journal.open()
    task = asyncio.create_task(begin(journal))
    await asyncio.sleep(0)
    task.cancel()
    other = asyncio.create_task(begin(journal, "other"))
    await asyncio.wait([task, other])
    assert task.cancelled()
    assert await state_of(journal) == await state_of(journal, "other") == "intent"
    await journal.close()


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
async def test_the_files_are_the_owners_alone(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        journal = make_journal(tmp_path / "j.db")
        await begin(journal)
        if umask == 0o022:
            # A copy, say, that anybody may read.
            await journal.close()
            (tmp_path / "j.db").chmod(0o644)
            await begin(journal, "again")
        found = modes(tmp_path)
    finally:
        os.umask(old)
    assert {"j.db", "j.db-wal", "j.db-shm"} < set(found)
    assert len(found) == 4
    assert set(found.values()) == {0o600}
    await journal.close()
    assert list(modes(tmp_path)) == ["j.db"]


async def test_what_isnt_a_state_is_refused(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    with pytest.raises(ConfigurationError, match="no state 'finished'"):
        await journal.list("finished")
    with pytest.raises(ConfigurationError, match="no state"):
        await journal.prune(states=["all"])
    await journal.close()


async def test_pruning_leaves_what_isnt_known_yet(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    for state, way in WAY.items():
        await begin(journal, state)
        for step in way:
            await journal.record(state, step)
    assert await journal.prune(older_than=3600) == 0
    assert await journal.prune() == 3
    assert {row.state for row in await journal.list()} == {"intent", "waiting", "unknown", "submitted", "done"}
    assert await journal.prune(states=["unknown"]) == 1
    await journal.close()


async def test_a_call_that_cant_be_written_leaves_the_others_of_its_group_alone(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    wrong = journal.intend("wrong", operation="txt2img", digest="d", attempt=1, label="\ud800")
    found = await asyncio.gather(begin(journal, "a"), wrong, begin(journal, "b"), return_exceptions=True)
    assert [type(one) for one in found] == [type(None), JournalError, type(None)]
    assert [row.key for row in await journal.list()] == ["a", "b"]
    await journal.close()


async def test_listing_ends_while_others_go_on_writing(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")

    async def write(name: int) -> None:
        for number in range(200):
            await begin(journal, f"{name}-{number}")

    writers = [asyncio.create_task(write(name)) for name in range(5)]
    await begin(journal, "first")
    for _ in range(3):
        await asyncio.sleep(0)
    # The others' next group is being written.
    journal.note("first", "waiting")
    before = journal.commits
    found = {row.key: row.state for row in await journal.list()}
    assert found["first"] == "waiting", "what was noted before is listed"
    assert len(found) < 500
    assert journal.commits - before < 20
    await asyncio.gather(*writers)
    await journal.close()


async def test_what_goes_wrong_inside_a_transaction_ends_it(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    await begin(journal)
    strange = lock_file(tmp_path / "j.db", "0123456789abcdef")
    strange.mkdir()
    with pytest.raises(JournalError, match="directory"):
        await journal.take_over()
    strange.rmdir()
    await begin(journal, "after")
    assert await journal.take_over() == ()
    await journal.close()


async def test_p04_one_account_never_touches_anothers_calls(tmp_path: Path) -> None:
    mine, other = make_journal(tmp_path / "j.db"), make_journal(tmp_path / "j.db", account="b")
    for journal, key in ((mine, "k"), (other, "l")):
        await begin(journal, key)
        await journal.record(key, "submitted", request_id="the same")
    other.note("the same", "failed")
    other.note("k", "saved")
    await other.record("k", "done")
    assert (await state_of(mine), await state_of(other), await state_of(other, "l")) == ("submitted", None, "failed")
    await other.close()
    await mine.close()


async def test_p04_who_learns_the_id_or_takes_over_has_the_job(tmp_path: Path) -> None:
    first, second = make_journal(tmp_path / "j.db"), make_journal(tmp_path / "j.db")
    await begin(first)
    await begin(first, "late")
    await first.record("k", "submitted", request_id="r")
    await first.close()
    (row,) = await second.take_over()
    assert row == await second.find("k")
    assert await state_of(first, "late") == "unknown"
    await first.record("late", "submitted", request_id="r2")
    assert await second.take_over() == ()
    assert is_alive(tmp_path / "j.db", row.owner)
    await second.close()
    assert [row.key for row in await first.take_over()] == ["k"]
    await first.close()


async def test_notes_left_by_a_closed_journal_or_loop_are_written_by_the_next_close(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    await begin(journal)
    await journal.record("k", "submitted", request_id="r")
    await journal.close()
    journal.note("r", "saved")
    await journal.close()
    with sqlite3.connect(tmp_path / "j.db") as other:
        assert other.execute("SELECT state FROM calls").fetchall() == [("saved",)]
    other.close()
    assert list(modes(tmp_path)) == ["j.db"]


def test_an_intent_that_died_with_its_loop_was_never_sent(tmp_path: Path) -> None:
    journal, loop = make_journal(tmp_path / "j.db"), asyncio.new_event_loop()
    waiter = begin(journal, "dead")

    def start() -> None:
        waiter.send(None)
        loop.stop()

    loop.call_soon(start)
    loop.run_forever()
    waiter.close()
    loop.close()
    asyncio.run(begin(journal, "next"))
    assert [row.key for row in asyncio.run(journal.list())] == ["next"]
    asyncio.run(journal.close())


def make_foreign(path: Path, version: int) -> None:
    database = sqlite3.connect(path)
    database.executescript(f"CREATE TABLE mine (x); PRAGMA user_version = {version}")
    database.close()


WRONG: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "no regular file": os.mkfifo,
    "not a database": lambda path: path.write_text("no database, however long " * 100),
    "another program's": lambda path: make_foreign(path, 0),
    "another program": lambda path: make_foreign(path, 1),
    "newer": lambda path: make_foreign(path, 2),
}


@pytest.mark.parametrize("words", WRONG)
async def test_p04_a_file_that_isnt_a_journal_is_refused_and_left_as_it_was(tmp_path: Path, words: str) -> None:
    path = tmp_path / "j.db"
    WRONG[words](path)
    was = (path.read_bytes() if path.is_file() else b"", modes(tmp_path))
    with pytest.raises(JournalError, match=f"{re.escape(str(path))}.*{words}"):
        await begin(make_journal(path))
    assert (path.read_bytes() if path.is_file() else b"", modes(tmp_path)) == was


async def test_p04_a_file_that_was_removed_or_is_locked_takes_no_intent(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    await begin(journal)
    holder = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked"):
        await begin(journal, "locked")
    holder.close()
    await begin(journal, "free")
    (tmp_path / "j.db").rename(tmp_path / "old.db")
    with pytest.raises(JournalError, match="removed"):
        await begin(journal, "late")
    await journal.close()
    await begin(journal, "new")
    assert [row.key for row in await journal.list()] == ["new"]
    await journal.close()


def test_p04_another_users_owner_is_let_alone(tmp_path: Path) -> None:
    lock_file(tmp_path / "j.db", "0123456789abcdef").touch(0)
    with without_root():
        assert is_alive(tmp_path / "j.db", "0123456789abcdef")


async def test_p04_an_owner_lives_whatever_the_file_is_called(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real[1].db")
    (tmp_path / "real[1].db.mine.lock").touch()
    real, link = make_journal(tmp_path / "real[1].db"), make_journal(tmp_path / "link.db")
    await begin(real)
    await real.record("k", "submitted", request_id="r")
    assert await link.take_over() == ()
    dead = lock_file(tmp_path / "real[1].db", "0123456789abcdef")
    dead.touch()
    await link.take_over()
    assert not dead.exists()
    assert (tmp_path / "real[1].db.mine.lock").exists(), "it is another program's"
    await link.close()
    await real.close()


def test_one_journal_serves_one_loop_after_another(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "j.db")
    for number in range(5):
        asyncio.run(begin(journal, f"k{number}"))
    # The last loop left it open: it is the same owner's, and its intents are no dead one's.
    assert len(asyncio.run(journal.list("intent"))) == 5
    asyncio.run(journal.close())
