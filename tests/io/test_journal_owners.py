"""Whose the journal's rows are: owners that live, die, fork and share a file. Real processes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dryapi_async.io.owners import is_alive, lock_file

from .journals import begin, make_journal

pytestmark = pytest.mark.anyio
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
    # The child says it: on a busy machine its parent may be killed before it has run at all, and let go of what it inherited.
    fork = "import os, time\n    if os.fork() == 0:\n        print('forked', flush=True)\n        time.sleep(30)\n        os._exit(0)\n    "
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
