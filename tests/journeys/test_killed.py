"""P4: two thousand jobs, faults all around, and a client that is killed with -9 ten times: nothing paid twice, nothing lost.

Real processes and real time, in a run of its own.
"""

import asyncio
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from dryapi_async.io.journal import Journal, JournalRow
from dryapi_async.simulator import Fault, Simulator

from ..conftest import make_client, make_sim, sha256

pytestmark = pytest.mark.processes

JOBS = 2_000
KILLS = 10
SHARE = 0.15

PROGRAM = """
import asyncio, sys
from pathlib import Path
from dryapi_async import Client, DownloadError, JobFailedError, Limits, Retry, SubmissionUnknownError, Timeouts, Txt2Img

key, url, folder, count = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])


async def save(job, label):
    while True:
        try:
            await job.save(folder / "out" / f"{label}.png", timeout=None, poll=0.2)
        except JobFailedError:
            pass
        except DownloadError:
            continue
        return


async def submit(client, index):
    request = Txt2Img(prompt="a fox", model="Flux1schnell", width=256, height=192, steps=4, seed=index)
    try:
        job = await client.call(request, label=str(index), timeout=None)
    except SubmissionUnknownError:
        return
    await save(job, index)


async def main():
    for part in (folder / "out").glob(".dryapi-*.part"):
        part.unlink()
    retry = Retry(attempts=50, polls=1000)
    options = {"max_in_flight": 64, "pool_size": 200, "timeouts": Timeouts(idle=2), "retry": retry, "limits": Limits.none()}
    async with Client(key, base_url=url, journal=folder / "jobs.db", **options) as client:
        left = await client.unfinished()
        rows = await client.journal.list()
        labels = {row.ticket: row.label for row in rows}
        known = {int(row.label) for row in rows if row.state not in {"refused", "waiting"}}
        async with asyncio.TaskGroup() as group:
            for job in left:
                group.create_task(save(job, labels[job.ticket]))
            for index in range(count):
                if index not in known:
                    group.create_task(submit(client, index))

asyncio.run(main())
"""

SUBMIT_FAULTS = (
    Fault.reset("before_body"),
    Fault.reset(),
    Fault.close(),
    Fault.garbage(),
    Fault.truncate(),
    Fault.html(502),
    Fault.html(504),
    Fault.rate_limited(retry_after=0.2),
    Fault.delay(0.3),
    Fault.job_error(),
)
READ_FAULTS = (Fault.reset(), Fault.close(), Fault.html(502), Fault.truncate(), Fault.rate_limited(retry_after=0.1))
FILE_FAULTS = (Fault.reset("payload"), Fault.close("payload", at=0.6), Fault.html(503), Fault.truncate(at=0.3))


async def run_client(sim: Simulator, folder: Path, seconds: float | None) -> int:
    """Run the program, for so long or to its end; give its exit status."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, sim.key, sim.url, str(folder), str(JOBS))
    try:
        async with asyncio.timeout(seconds):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


def check(sim: Simulator, rows: tuple[JournalRow, ...], folder: Path) -> None:
    """Hold what the journal says and what is on disk against what was billed."""
    states = Counter(row.state for row in rows)
    print(states)  # noqa: T201  a failing run tells more
    assert max(sim.billed.values()) == 1, "paid twice"
    assert set(states) <= {"saved", "failed", "unknown", "refused"}
    ended = {row.label for row in rows if row.state in {"saved", "failed", "unknown"}}
    assert ended == {str(index) for index in range(JOBS)}, "a job is lost"
    assert sum(states[state] for state in ("saved", "failed", "unknown")) == JOBS
    known = {row.request_id for row in rows if row.request_id}
    assert known <= set(sim.jobs)
    assert len(set(sim.jobs) - known) <= states["unknown"], "billed, and nobody knows"
    saved = {row.label: row.request_id for row in rows if row.state == "saved"}
    assert sorted(one.name for one in folder.iterdir()) == sorted(f"{label}.png" for label in saved)
    for label, request_id in saved.items():
        (blob,) = [blob for name, blob in sim.jobs[request_id or ""].blobs.items() if name.endswith(".png")]
        assert sha256(folder / f"{label}.png") == sha256(blob.read(0, blob.size))


def test_p04_killed_ten_times_nothing_is_paid_twice_and_nothing_is_lost(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201  a failing run can be made again
    chance = random.Random(seed)  # noqa: S311  kills, no secrets
    (tmp_path / "out").mkdir()

    async def main() -> None:
        async with make_sim(seed=seed, duration=0.3, result_size=20_000, most_records=1_000_000, limit_headers=False) as sim:
            sim.script("txt2img", *SUBMIT_FAULTS, probability=SHARE)
            sim.script("request-status", *READ_FAULTS, probability=SHARE)
            sim.script("storage", *FILE_FAULTS, probability=SHARE)
            ends = [await run_client(sim, tmp_path, 1 + chance.uniform(0, 1.5)) for _ in range(KILLS)]
            assert -signal.SIGKILL in ends
            assert await run_client(sim, tmp_path, None) == 0
            print(f"{ends.count(-signal.SIGKILL)} of {KILLS} were killed before their end")  # noqa: T201
            async with make_client(sim, journal=tmp_path / "jobs.db") as client:
                journal: Journal = client.journal
                check(sim, await journal.list(), tmp_path / "out")

    asyncio.run(main())
