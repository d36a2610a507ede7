"""The journal's file: states, owners, groups, and what a kill -9 leaves of it."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from dryapi_async import ConfigurationError
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


def make_journal(path: Path) -> Journal:
    return Journal(path, base_url="https://api.example", account="a", busy_seconds=0.5)


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
    assert len(await journal.list("intent")) == 100
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


async def test_the_files_are_the_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        journal = make_journal(tmp_path / "j.db")
        await begin(journal)
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
