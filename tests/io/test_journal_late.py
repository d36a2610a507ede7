"""What can't be written to the journal at once is written later: no job is forgotten over a file that was locked or full for a moment."""

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from dryapi_async import JournalError
from dryapi_async.io.journal import Journal
from dryapi_async.io.writer import MOST_LATE

from .journals import CountedLedger, begin, lock_file_of, make_journal, read_states, state_of

pytestmark = pytest.mark.anyio


def make_counted(path: Path) -> tuple[Journal, CountedLedger]:
    ledger = CountedLedger(path)
    return make_journal(path, ledger=ledger), ledger


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def make_late(journal: Journal, path: Path) -> None:
    """Learn a job's id and end while the file is locked."""
    await begin(journal)
    with lock_file_of(path):
        with pytest.raises(JournalError, match="locked"):
            await journal.record("k", "submitted", request_id="r-1")
        journal.note("r-1", "done")
        await asyncio.sleep(3)
        assert read_states(path) == {"k": "intent"}


@pytest.mark.parametrize("way", ["by itself", "with the next group", "by the close"])
async def test_p04_a_jobs_id_that_couldnt_be_written_is_written_later(tmp_path: Path, way: str) -> None:
    path = tmp_path / "j.db"
    journal, _ = make_counted(path)
    await make_late(journal, path)
    if way == "by itself":
        await asyncio.sleep(10)
        assert read_states(path) == {"k": "done"}
    elif way == "with the next group":
        await begin(journal, "next")
        assert read_states(path) == {"k": "done", "next": "intent"}
    await journal.close()
    # The next process doesn't bury it.
    after = make_journal(path)
    (row, *_) = await after.list()
    assert (row.state, row.ticket) == ("done", "txt2img:r-1")
    await after.close()


@pytest.mark.parametrize("state", ["waiting", "refused", "unknown", "submitted", "saved", "done", "failed"])
async def test_p04_a_note_that_couldnt_be_written_is_written_later(tmp_path: Path, state: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.db"
    journal, _ = make_counted(path)
    await begin(journal)
    if state in {"done", "failed"}:
        await journal.record("k", "submitted", request_id="k")
    before = read_states(path)
    with lock_file_of(path):
        journal.note("k", state, cause="why")
        await asyncio.sleep(5)
        assert read_states(path) == before
    await asyncio.sleep(5)
    assert read_states(path) == {"k": state}
    assert len(warnings_in(caplog)) == 1, "it is said once, not at each try"
    await journal.close()
    assert errors_in(caplog) == []


async def test_a_locked_file_is_tried_again_after_growing_pauses(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal, ledger = make_counted(path)
    await begin(journal)
    with lock_file_of(path):
        journal.note("k", "refused")
        await asyncio.sleep(200)
        times = [at for at, _ in ledger.tries[1:]]
        pauses = [after - before for before, after in pairwise(times)]
        assert pauses == pytest.approx([1, 1, 2, 4, 8, 16, 32, 60, 60], abs=0.1)
    await asyncio.sleep(60)
    assert read_states(path) == {"k": "refused"}
    count = len(ledger.tries)
    await asyncio.sleep(200)
    assert len(ledger.tries) == count, "what is written is done with"
    with lock_file_of(path):
        journal.note("k", "saved")
        await asyncio.sleep(2.5)
    assert len(ledger.tries) == count + 2, "the next time begins with a short pause"
    await journal.close()


async def test_p04_an_intent_that_couldnt_be_written_never_is(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal, ledger = make_counted(path)
    await begin(journal, "other")
    with lock_file_of(path), pytest.raises(JournalError, match="locked"):
        await begin(journal)
    await asyncio.sleep(200)
    await begin(journal, "next")
    await journal.close()
    assert set(read_states(path)) == {"next", "other"}
    assert [count for _, count in ledger.tries] == [1, 1, 1]


@pytest.mark.parametrize(("state", "cause"), [("finished", ""), ("refused", "\ud800")])
async def test_a_turn_that_is_wrong_itself_isnt_tried_again(
    tmp_path: Path, state: str, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.db"
    journal, ledger = make_counted(path)
    await begin(journal)
    with pytest.raises(JournalError, match="can't keep"):
        await journal.record("k", state, cause=cause)
    journal.note("k", state, cause=cause)
    await asyncio.sleep(200)
    assert len(ledger.tries) == 3
    assert len(warnings_in(caplog)) == 1
    with lock_file_of(path):
        journal.note("k", state, cause=cause)
        await asyncio.sleep(200)
    await journal.close()
    assert len(ledger.tries) == 4
    assert errors_in(caplog) == []


async def test_p04_turns_of_one_call_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal, _ = make_counted(path)
    await begin(journal)
    with lock_file_of(path):
        journal.note("k", "waiting")
        await asyncio.sleep(1.5)
    # It leaves once more before the file was tried again: it doesn't wait any longer.
    await begin(journal)
    assert read_states(path) == {"k": "intent"}
    await asyncio.sleep(200)
    assert read_states(path) == {"k": "intent"}
    with lock_file_of(path):
        for key, state in (("k", "submitted"), ("k", "done"), ("k", "saved")):
            with pytest.raises(JournalError, match="locked"):
                await journal.record(key, state)
    await asyncio.sleep(200)
    assert read_states(path) == {"k": "saved"}
    await journal.close()


REFUSE = """CREATE TRIGGER refuse BEFORE UPDATE ON calls WHEN NEW.state = '{}' BEGIN SELECT RAISE(ABORT, 'no room for this row'); END"""


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)


async def test_p04_what_follows_a_turn_that_alone_couldnt_be_written_is_written_after_it(tmp_path: Path) -> None:
    """Sqlite may take back one statement and keep the others of the transaction, where a disk is full, too."""
    path = tmp_path / "j.db"
    journal, _ = make_counted(path)
    for key in ("k", "other", "sent"):
        await begin(journal, key)
    execute(path, REFUSE.format("submitted"))
    failing = asyncio.create_task(journal.record("k", "submitted", request_id="r-1"))
    journal.note("sent", "waiting")
    await asyncio.sleep(0)
    journal.note("r-1", "done")
    journal.note("other", "refused")
    with pytest.raises(JournalError, match="no room"):
        await failing
    assert read_states(path) == {"k": "intent", "other": "refused", "sent": "waiting"}
    execute(path, "DROP TRIGGER refuse")
    await asyncio.sleep(5)
    assert read_states(path)["k"] == "done"
    execute(path, REFUSE.format("waiting"))
    await begin(journal, "sent")
    journal.note("sent", "waiting")
    # In one group: the call is on its way when it ends.
    await begin(journal, "sent")
    execute(path, "DROP TRIGGER refuse")
    await asyncio.sleep(200)
    assert read_states(path)["sent"] == "intent"
    await journal.close()


async def test_the_newest_notes_are_kept_where_there_are_too_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.db"
    journal, ledger = make_counted(path)
    await begin(journal, "old")
    await begin(journal, "new")
    with lock_file_of(path):
        journal.note("old", "refused")
        journal.note("new", "refused")
        for number in range(MOST_LATE - 1):
            journal.note(f"none-{number}", "refused")
        await asyncio.sleep(2.5)
        assert ledger.tries[-1][1] == MOST_LATE
        journal.note("none", "refused")
        journal.note("none", "refused")
        journal.note("new", "refused")
        await asyncio.sleep(10)
        (dropped,) = [one for one in warnings_in(caplog) if "oldest" in one]
        assert str(MOST_LATE) in dropped
        assert str(path) in dropped
    await journal.close()
    assert read_states(path) == {"new": "refused", "old": "intent"}
    assert errors_in(caplog) == []


async def test_p04_a_close_tries_once_more_and_says_what_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.db"
    journal, ledger = make_counted(path)
    await begin(journal)
    with lock_file_of(path):
        with pytest.raises(JournalError, match="locked"):
            await journal.record("k", "submitted", request_id="r-1")
        journal.note("r-1", "done")
        count = len(ledger.tries)
        await journal.close()
    assert len(ledger.tries) == count + 1
    (said,) = errors_in(caplog)
    assert said == f"the journal {path} was closed without 2 notes: submitted of k (job r-1), done of r-1"
    await asyncio.sleep(200)
    await journal.close()
    assert len(ledger.tries) == count + 1
    assert len(errors_in(caplog)) == 1
    assert read_states(path) == {"k": "intent"}


async def test_p04_a_close_tries_again_what_fails_while_it_waits(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal, ledger = make_counted(path)
    await begin(journal)
    with lock_file_of(path):
        writing = asyncio.create_task(journal.record("k", "submitted", request_id="r-1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        closing_journal = asyncio.create_task(journal.close())
        with pytest.raises(JournalError, match="locked"):
            await writing
    await closing_journal
    assert len(ledger.tries) == 3
    assert read_states(path) == {"k": "submitted"}


def test_p04_what_fails_after_its_loop_ended_is_written_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = make_journal(path)

    async def leave() -> None:
        writing = asyncio.create_task(journal.record("k", "submitted", request_id="r-1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not writing.done()

    async def ask() -> None:
        assert await state_of(journal) == "submitted"
        await journal.close()

    asyncio.run(begin(journal))
    with lock_file_of(path):
        asyncio.run(leave())
        # The journal's thread waits half a second for the file; what it is given then comes behind that.
        thread = journal._writer._thread
        assert thread is not None
        thread.submit(int).result()
    assert read_states(path) == {"k": "intent"}
    asyncio.run(ask())


class Threads:
    """Whether the journal may have a thread.

    A real limit can't be set here: RLIMIT_NPROC doesn't bind root, and counts all of a user's threads where it does.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = False
        start = threading.Thread.start

        def start_or_raise(thread: threading.Thread) -> None:
            if self.refused and thread.name.startswith("dryapi-journal"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_raise)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


async def test_p04_without_a_thread_nothing_is_submitted_and_nobody_waits_for_ever(tmp_path: Path, threads: Threads) -> None:
    path = tmp_path / "j.db"
    journal = make_journal(path)
    threads.refused = True
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(begin(journal, f"k{number}") for number in range(3)), return_exceptions=True)
        for error in found:
            assert isinstance(error, JournalError)
            assert str(path) in str(error)
            assert "can't start new thread" in str(error)
            assert "Nothing is submitted" in str(error)
        for asking in (journal.open(), journal.list(), journal.take_over(), journal.is_alive("x")):
            with pytest.raises(JournalError, match="can't start new thread"):
                await asking
        threads.refused = False
        await begin(journal, "after")
        await begin(journal, "k0")
        await journal.close()
    assert read_states(path) == {"after": "intent", "k0": "intent"}, "what was refused isn't written behind the caller's back"


async def test_p04_a_turn_that_found_no_thread_is_written_later(tmp_path: Path, threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.db"
    journal = make_journal(path)
    await begin(journal)
    await journal.close()
    threads.refused = True
    async with asyncio.timeout(60):
        with pytest.raises(JournalError, match="can't start new thread"):
            await journal.record("k", "submitted", request_id="r-1")
        threads.refused = False
        await begin(journal, "next")
        assert read_states(path) == {"k": "submitted", "next": "intent"}
        await journal.close()
        threads.refused = True
        with pytest.raises(JournalError, match="can't start new thread"):
            await journal.record("r-1", "done")
        await journal.close()
    assert errors_in(caplog) == [f"the journal {path} was closed without 1 notes: done of r-1"]
    assert read_states(path) == {"k": "submitted", "next": "intent"}
