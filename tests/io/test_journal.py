"""The journal's file: states, owners, groups, and what a kill -9 leaves of it."""

import asyncio
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from dryapi_async import ConfigurationError, JournalError
from dryapi_async.io.journal import Journal
from dryapi_async.io.ledger import COMES_FROM, is_alive, lock_file

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


def make_journal(path: Path, account: str = "a") -> Journal:
    return Journal(path, base_url="https://api.example", account=account, busy_seconds=0.5)


def modes(folder: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


async def begin(journal: Journal, key: str = "k") -> None:
    await journal.intend(key, operation="txt2img", digest="d" * 64, attempt=1)


async def state_of(journal: Journal, key: str = "k") -> str | None:
    row = await journal.find(key)
    return None if row is None else row.state


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
    file, user = lock_file(tmp_path / "j.db", "0123456789abcdef"), os.geteuid()
    file.touch(0)
    # Root may open anything.
    os.seteuid(user or 65534)
    try:
        alive = is_alive(tmp_path / "j.db", "0123456789abcdef")
    finally:
        os.seteuid(user)
    assert alive


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


HOLDER = """
import asyncio, sys
from dryapi_async.io.journal import Journal
async def main():
    journal = Journal(sys.argv[1], base_url="https://api.example", account="a")
    for number in range(int(sys.argv[2])):
        key = f"{sys.argv[3]}-{number}"
        await journal.intend(key, operation="txt2img", digest="d", attempt=1)
        if sys.argv[4] != "intent":
            await journal.record(key, sys.argv[4], request_id=f"r-{key}")
        print(key, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def start_holder(path: Path, count: int, prefix: str, state: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(path), str(count), prefix, state]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_keys(process: "subprocess.Popen[str]", count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


@pytest.mark.processes
def test_p04_a_killed_owners_rows_are_free_at_once_and_a_living_ones_never(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def take() -> list[str]:
        journal = make_journal(path)
        try:
            return [row.key for row in await journal.take_over()]
        finally:
            await journal.close()

    async def states() -> dict[str, str]:
        journal = make_journal(path)
        try:
            return {row.key: row.state for row in await journal.list()}
        finally:
            await journal.close()

    dead, alive = start_holder(path, 3, "dead", "submitted"), start_holder(path, 3, "alive", "submitted")
    flying = start_holder(path, 2, "flying", "intent")
    try:
        keys = read_keys(dead, 3)
        read_keys(alive, 3)
        read_keys(flying, 2)
        assert asyncio.run(take()) == []
        assert set(asyncio.run(states()).values()) == {"submitted", "intent"}
        for process in (dead, flying):
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert {state for key, state in asyncio.run(states()).items() if key.startswith("flying")} == {"unknown"}
        assert asyncio.run(take()) == keys
        assert len(list(tmp_path.glob("j.db.*.lock"))) == 1, "the locks of the dead are swept"
    finally:
        for process in (dead, alive, flying):
            process.kill()
            process.communicate()


@pytest.mark.processes
async def test_p04_two_journals_of_one_process_keep_the_file_from_a_third_that_closes(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    program = (
        "import asyncio\nfrom dryapi_async.io.journal import Journal\nasync def main():\n"
        f"    journal = Journal({str(path)!r}, base_url='https://api.example', account='a')\n"
        "    print(*[row.key for row in await journal.list()])\n    await journal.close()\nasyncio.run(main())\n"
    )

    async def list_elsewhere() -> list[str]:
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, second = make_journal(path), make_journal(path)
    await begin(first, "first")
    await begin(second, "second")
    assert await list_elsewhere() == ["first", "second"]
    await begin(first, "late")
    # A log that the third took for its own, and removed, would have it alone.
    assert await list_elsewhere() == ["first", "second", "late"]
    await second.close()
    await first.close()


@pytest.mark.processes
def test_p04_two_that_take_over_at_once_share_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    holder = start_holder(path, 200, "k", "submitted")
    read_keys(holder, 200)
    holder.kill()
    holder.communicate()
    taker = (
        "import asyncio, sys\nfrom dryapi_async.io.journal import Journal\nasync def main():\n"
        f"    journal = Journal({str(path)!r}, base_url='https://api.example', account='a')\n"
        "    print(*[row.key for row in await journal.take_over()], flush=True)\n    await asyncio.sleep(5)\nasyncio.run(main())\n"
    )
    takers = [subprocess.Popen([sys.executable, "-c", taker], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        found = [key for process in takers for key in read_keys(process, 1)[0].split()]
    finally:
        for process in takers:
            process.kill()
            process.communicate()
    assert sorted(found) == sorted(f"k-{number}" for number in range(200))


@pytest.mark.processes
@pytest.mark.parametrize("round_", range(3))
def test_p04_what_was_acknowledged_survives_kill_9(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "j.db"
    holder = start_holder(path, 1_000_000, "k", "submitted")
    acknowledged = read_keys(holder, 50 + 200 * round_)
    holder.send_signal(signal.SIGKILL)
    out, _ = holder.communicate()
    acknowledged += [line for line in out.splitlines(keepends=False) if line]

    async def rows() -> dict[str, str]:
        journal = make_journal(path)
        try:
            return {row.key: row.state for row in await journal.list()}
        finally:
            await journal.close()

    found = asyncio.run(rows())
    # The kill may cut the last line.
    assert [key for key in acknowledged[:-1] if found.get(key) != "submitted"] == []
    assert len(found) - len(acknowledged) <= 2


@pytest.mark.processes
def test_p04_a_fork_of_a_killed_owner_doesnt_keep_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    fork = "import os, time\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)\n    print('forked', flush=True)\n    "
    quiet = "import asyncio, sys, warnings\nwarnings.simplefilter('ignore')"
    forking = HOLDER.replace("await asyncio.sleep(60)", fork + "await asyncio.sleep(60)").replace("import asyncio, sys", quiet)
    command = [sys.executable, "-c", forking, str(path), "2", "k", "submitted"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert read_keys(process, 3)[-1] == "forked"
        process.send_signal(signal.SIGKILL)
        process.wait()

        async def take() -> int:
            journal = make_journal(path)
            try:
                return len(await journal.take_over())
            finally:
                await journal.close()

        assert asyncio.run(take()) == 2
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_p04_a_forked_child_isnt_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = make_journal(path)

    async def hold() -> str:
        await begin(journal)
        row = await journal.find("k")
        assert row is not None
        return row.owner

    loop = asyncio.new_event_loop()
    owner = loop.run_until_complete(hold())
    assert is_alive(path, owner)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # The child lives on while its parent "dies", and uses the journal on its own account.
        code = 1
        # It ends even where it hangs.
        signal.alarm(20)
        try:
            os.read(reader, 1)
            asyncio.run(begin(journal, "child"))
            code = int(is_alive(path, owner))
        finally:
            os._exit(code)
    loop.run_until_complete(journal.close())
    loop.close()
    assert not lock_file(path, owner).exists()
    os.write(writer, b"x")
    _, status = os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert os.waitstatus_to_exitcode(status) == 0
    other = make_journal(path)
    rows = asyncio.run(other.list())
    assert {row.key for row in rows} == {"k", "child"}
    asyncio.run(other.close())


FULL = """
import asyncio, resource, signal, sys
from dryapi_async import JournalError
from dryapi_async.io.journal import Journal
async def begin(journal, key):
    await journal.intend(key, operation="txt2img", digest="d" * 64, attempt=1)
async def main():
    journal = Journal(sys.argv[1], base_url="h", account="a")
    await begin(journal, "before")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most))
    journal.note("before", "waiting")
    for error in await asyncio.gather(*(begin(journal, f"full-{n}") for n in range(5)), return_exceptions=True):
        assert isinstance(error, JournalError) and sys.argv[1] in str(error), error
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    await begin(journal, "after")
    print([row.key for row in await journal.list()])
    await journal.close()
asyncio.run(main())
"""


@pytest.mark.processes
def test_p04_a_disk_that_fills_up_fails_its_group_and_nothing_later(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "j.db")], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "['before', 'after']\n", done.stderr
    assert "waiting of before isn't in the journal" in done.stderr


FORKER = """
import asyncio, os, sys, threading
from dryapi_async.io.journal import Journal
journal = Journal(sys.argv[1], base_url="https://api.example", account="a")
async def begin(key):
    await journal.intend(key, operation="txt2img", digest="d", attempt=1)
async def parent():
    writers = [asyncio.create_task(write(name)) for name in range(4)]
    await asyncio.sleep(0.05)
    pairs = [(os.pipe(), os.pipe()) for _ in range(5)]
    for number, ((wait, _), (_, tell)) in enumerate(pairs):
        if not os.fork():
            # A thread of its own, since this one has a running loop.
            threading.Thread(target=lambda: asyncio.run(child(number, wait, tell))).start()
            threading.Event().wait()
        await asyncio.sleep(0.02)
    for _, (heard, _) in pairs:
        os.read(heard, 1)
    for writer in writers:
        writer.cancel()
    await asyncio.wait(writers)
    await journal.close()
    for (_, go), (heard, _) in pairs:
        os.write(go, b"x")
        print(os.read(heard, 99).decode(), flush=True)
    os.killpg(0, 9)
async def write(name):
    for number in range(1_000_000):
        await begin(f"{name}-{number}")
async def child(number, wait, tell):
    await begin(f"first-{number}")
    os.write(tell, b"x")
    os.read(wait, 1)
    await begin(f"second-{number}")
    os.write(tell, f"second-{number}".encode())
asyncio.run(parent())
"""


@pytest.mark.processes
def test_p04_children_forked_in_the_middle_of_writes_write_to_the_same_file_after_their_parent_closed_it(tmp_path: Path) -> None:
    """Parent and children are killed with -9; what the children were told is on disk is there."""
    command = [sys.executable, "-W", "ignore", "-c", FORKER, str(tmp_path / "j.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert out.split() == [f"second-{number}" for number in range(5)]
    journal = make_journal(tmp_path / "j.db")
    keys = {row.key for row in asyncio.run(journal.list("unknown"))}
    asyncio.run(journal.close())
    assert {f"{which}-{number}" for which in ("first", "second") for number in range(5)} <= keys
