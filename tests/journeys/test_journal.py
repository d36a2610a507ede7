"""P4: a paid job survives the process that paid for it."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import (
    Client,
    ConfigurationError,
    Image,
    Job,
    JobFailedError,
    JournalError,
    RateLimitError,
    Retry,
    SourceError,
    SubmissionUnknownError,
    Timeouts,
    Txt2Embedding,
)
from dryapi_async.io.journal import Journal
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, begin, edit, files_in, finish, give_up, make_client, make_sim, now, seen, settle

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def read(path: Path) -> bytes:
    return path.read_bytes() + path.with_name(f"{path.name}-wal").read_bytes()


async def states(client: Client) -> list[str]:
    return [row.state for row in await client.journal.list()]


async def test_p04_a_job_goes_through_its_states(sim: Simulator, path: Path, tmp_path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        job = await client.call(FOX, label="the fox")
        (row,) = await client.journal.list()
        assert (row.state, row.request_id, row.ticket, row.operation, row.attempt) == ("submitted", job.id, job.ticket, "txt2img", 1)
        assert (row.base_url, row.label, len(row.digest)) == (sim.url, "the fox", 64)
        assert sim.key.encode() not in read(path)
        image = await job.result()
        assert await states(client) == ["done"]
        await image.save(tmp_path / "fox.png")
        assert await states(client) == ["saved"]
        assert await client.journal.prune() == 1
        assert await states(client) == []
    assert files_in(tmp_path) == ["fox.png", "jobs.db"]


async def test_p04_a_text_is_saved_when_it_is_given_and_a_stream_when_it_was_read(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        await client.call(Txt2Embedding(input=["a"], model="Bge_M3_FP16")).result()
        await (await client.call(FOX).result()).read()
        await client.prompt_image(prompt="a fox")
        await client.balance()
        assert await states(client) == ["saved"] * 3


async def test_p04_the_intent_is_on_disk_before_the_headers_leave(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        sim.script("txt2img", Fault.delay(5))
        task = await begin(sim, client.call(FOX))
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT state, request_id FROM calls").fetchall() == [("intent", None)]
        other.close()
        await task
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT state FROM calls").fetchall() == [("submitted",)]
        other.close()


@pytest.mark.parametrize(
    ("fault", "kind", "state"),
    [
        (Fault.reset(), SubmissionUnknownError, "unknown"),
        (Fault.html(502), SubmissionUnknownError, "unknown"),
        (Fault.truncate(), SubmissionUnknownError, "unknown"),
        (Fault.status(422, {"message": "No."}), Exception, "refused"),
        (Fault.rate_limited("daily"), RateLimitError, "refused"),
        (Fault.job_error("WORKER_ERROR", "It broke."), JobFailedError, "failed"),
    ],
    ids=str,
)
async def test_p04_every_end_is_written_down(sim: Simulator, path: Path, fault: Fault, kind: type[Exception], state: str) -> None:
    async with make_client(sim, journal=path) as client:
        sim.script("txt2img", fault)
        with pytest.raises(kind):
            await client.call(FOX).result()
        assert await states(client) == [state]
        (row,) = await client.journal.list(state)
        assert row.cause or state == "failed"


async def test_p04_between_two_attempts_it_is_waiting_and_not_unknown(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        sim.script("txt2img", Fault.rate_limited(retry_after=20))
        task = await begin(sim, client.call(FOX))
        await asyncio.sleep(10)
        assert await states(client) == ["waiting"]
        await task
        (row,) = await client.journal.list()
        assert (row.state, row.attempt) == ("submitted", 2)
        sim.script("txt2img", Fault.rate_limited(retry_after=20))
        other = asyncio.create_task(finish(client.call(FOX)))
        await asyncio.sleep(10)
        await give_up(other)
        await settle()
        assert await states(client) == ["submitted", "refused"]


async def test_p04_each_lost_attempt_of_a_resubmit_is_a_row_of_its_own(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        sim.script("txt2img", Fault.reset(), times=2)
        await client.call(FOX, resubmit=True)
        assert await states(client) == ["unknown", "unknown", "submitted"]
        assert sim.jobs_billed == 3


async def test_p01_cancelled_on_its_way_the_journal_knows_the_late_answer(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        sim.script("txt2img", Fault.delay(10))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.call(FOX)
        assert now() < 0.5
        await asyncio.sleep(15)
        (row,) = await client.journal.list()
        (orphan,) = client.orphans
        assert (row.state, row.ticket) == ("submitted", orphan.ticket)


async def test_p01_cancelled_on_its_way_without_an_answer_the_journal_says_unknown(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path, timeouts=Timeouts(orphan=5)) as client:
        sim.script("txt2img", Fault.hang())
        await give_up(await begin(sim, client.call(FOX)))
        await asyncio.sleep(10)
        assert await states(client) == ["unknown"]


async def test_settle_finds_in_the_journal_what_another_life_learned(sim: Simulator, path: Path) -> None:
    sim.script("txt2img", Fault.delay(10))
    async with make_client(sim, journal=path) as client:
        with pytest.raises(SubmissionUnknownError) as caught:
            await client.call(FOX, timeout=5)
        await asyncio.sleep(10)
    async with make_client(sim, journal=path) as client:
        job = await client.settle(caught.value)
        assert job is not None
        assert list(sim.jobs) == [job.id]
        sim.script("txt2img", Fault.reset())
        with pytest.raises(SubmissionUnknownError) as other:
            await client.call(FOX)
        assert await client.settle(other.value) is None


async def test_p04_unfinished_gives_a_dead_clients_jobs_back_once(sim: Simulator, path: Path, tmp_path: Path) -> None:
    async with make_client(sim, journal=path) as first:
        jobs = [await first.call(FOX) for _ in range(3)]
        await jobs[0].result()
        await jobs[1].save(tmp_path / "saved.png")
        async with make_client(sim, journal=path) as beside:
            assert await beside.unfinished() == (), "its owner lives"
    async with make_client(sim, journal=path) as second, make_client(sim, journal=path) as third:
        found = (*await second.unfinished(), *await third.unfinished())
        assert [job.ticket for job in found] == [jobs[0].ticket, jobs[2].ticket]
        for job in found:
            await job.save(tmp_path / f"{job.id}.png")
        assert await states(second) == ["saved"] * 3
    async with make_client(sim, journal=path) as last:
        assert await last.unfinished() == ()
    assert sim.jobs_billed == 3


async def test_p04_other_accounts_and_hosts_keep_their_rows(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        await client.call(FOX)
    async with make_sim() as other_host, make_client(other_host, journal=path) as other:
        assert await other.unfinished() == ()
        assert await other.journal.list() == ()
    async with make_client(sim, journal=path, api_key="2|another") as other:
        assert await other.unfinished() == ()
    async with make_client(sim, journal=path) as client:
        assert len(await client.unfinished()) == 1


async def test_p04_a_journal_that_breaks_after_the_payment_loses_no_id(
    sim: Simulator, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise JournalError("the disk is full")

    async with make_client(sim, journal=path) as client:
        monkeypatch.setattr(Journal, "record", fail)
        job = await client.call(FOX)
        assert list(sim.jobs) == [job.id]
        assert job.ticket in caplog.text


async def test_a_file_that_cant_be_sent_leaves_no_row(sim: Simulator, path: Path, tmp_path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        with pytest.raises(SourceError):
            await edit(client, image=tmp_path / "missing.png")
        assert await states(client) == []
        await edit(client, image=PNG)
        assert await states(client) == ["submitted"]


async def test_cancelled_while_its_intent_is_written_it_is_no_unknown_payment(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        for steps in range(1, 40):
            task = asyncio.create_task(finish(client.call(FOX)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await asyncio.sleep(5)
        assert len(await client.journal.list("submitted")) == sim.jobs_billed
        assert set(await states(client)) <= {"submitted", "refused"}


async def test_without_a_journal_that_is_said(client: Client) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("Client(journal='jobs.db')")):
        await client.unfinished()


@pytest.mark.parametrize("wrong", ["folder", "missing/jobs.db", "text.db", "other.db", "newer.db"])
async def test_p04_a_journal_that_cant_be_trusted_stops_before_anything_is_sent(sim: Simulator, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("not a database, however long this text is made" * 50)
    for name, statement in (("other.db", "CREATE TABLE mine (x)"), ("newer.db", "PRAGMA user_version = 99")):
        with sqlite3.connect(tmp_path / name) as database:
            database.execute(statement)
        database.close()
    client = make_client(sim, journal=tmp_path / wrong)
    with pytest.raises(JournalError, match=re.escape(str(tmp_path / wrong))):
        await client.call(FOX)
    with pytest.raises(JournalError):
        async with client:
            pytest.fail("it was opened")
    await client.aclose()
    assert not sim.requests


async def test_p04_a_locked_journal_stops_before_anything_is_sent(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path) as client:
        await client.call(FOX)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        journal = Journal(path, base_url=sim.url, account="a", busy_seconds=0.05)
        with pytest.raises(JournalError, match="locked"):
            await journal.open()
        holder.execute("ROLLBACK")
        holder.close()
        await journal.open()
        await journal.close()


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.processes
def test_p04_a_full_disk_and_a_read_only_file_stop_before_anything_is_sent(how: str, tmp_path: Path) -> None:
    """Both are real: a limit on file sizes, and a user that may not write."""
    program = """
import asyncio, os, resource, sys
from dryapi_async import Client, JournalError
from dryapi_async.simulator import Simulator
async def main():
    path, how = sys.argv[1:]
    async with Simulator(pictures=False, speed=float("inf")) as sim:
        async with Client(sim.key, base_url=sim.url, journal=path) as client:
            await client.txt2img(prompt="a fox", model="Flux1schnell", width=256, height=256, steps=4, seed=1)
        before = len(sim.requests)
        if how == "full":
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        else:
            os.chmod(path, 0o400)
            os.seteuid(65534)
        try:
            async with Client(sim.key, base_url=sim.url, journal=path) as client:
                await client.txt2img(prompt="a fox", model="Flux1schnell", width=256, height=256, steps=4, seed=1)
        except JournalError as error:
            print("JournalError:", error)
        print("sent", len(sim.requests) - before)
asyncio.run(main())
"""
    if how == "read-only" and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/") and "pytest" in str(folder):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "jobs.db"), how], capture_output=True, text=True, timeout=60, check=False
    )
    assert "JournalError: Journal" in done.stdout, done.stdout + done.stderr
    assert "sent 0" in done.stdout


@pytest.mark.processes
def test_p04_killed_right_after_the_submit_another_process_finishes_the_job(tmp_path: Path) -> None:
    """Real processes: the submitter is killed with -9 in the moment that it has its job."""

    async def main() -> None:
        async with make_sim(duration=0.5) as sim:
            program = f"""
import asyncio, os, signal
from dryapi_async import Client
async def main():
    client = Client({sim.key!r}, base_url={sim.url!r}, journal={str(tmp_path / "jobs.db")!r})
    job = await client.txt2img(prompt="a fox", model="Flux1schnell", width=256, height=256, steps=4, seed=1)
    print(job.ticket, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            assert process.returncode == -signal.SIGKILL
            async with make_client(sim, journal=tmp_path / "jobs.db") as client:
                (job,) = await client.unfinished()
                assert job.ticket == out.decode().strip()
                assert isinstance(await job.result(), Image)
                by_ticket: Job[Any] = client.job(out.decode().strip())
                assert isinstance(await by_ticket.result(), Image)
            assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1

    asyncio.run(main())


async def test_retry_one_attempt_is_still_journaled(sim: Simulator, path: Path) -> None:
    async with make_client(sim, journal=path, retry=Retry(attempts=1)) as client:
        await client.call(FOX)
        assert await states(client) == ["submitted"]


async def test_a_journal_that_was_only_read_is_closed_with_its_client(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        await client.call(FOX)
    client = make_client(sim, journal=tmp_path / "jobs.db")
    assert len(await client.journal.list()) == 1
    await client.aclose()
    assert files_in(tmp_path) == ["jobs.db"]
