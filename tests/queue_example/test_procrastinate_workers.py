"""P4: the example with a queue in PostgreSQL: workers killed with -9 pay for nothing twice and lose nothing.

Real processes and real time, in a run of its own. DRYAPI_QUEUE_JOBS says how many jobs: 400 unless said otherwise.
"""

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("procrastinate", reason="procrastinate isn't installed")
pytest.importorskip("psycopg_pool", reason="psycopg and its pool aren't installed")

from procrastinate import JobContext, PsycopgConnector
from psycopg import AsyncConnection, OperationalError

from dryapi_async import Client, Txt2Img
from dryapi_async.simulator import Fault, Simulator
from examples.procrastinate_workers.__main__ import ENDED, count_states, keep_worker, set_up
from examples.procrastinate_workers.ledger import HeldError, Ledger, Pool
from examples.procrastinate_workers.postgres import find_postgres, run_postgres
from examples.procrastinate_workers.tasks import Desk, app, enqueue, make_picture
from examples.procrastinate_workers.worker import make_pool
from tests.conftest import REPOSITORY, make_client, make_sim, seen, sha256

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(find_postgres() is None, reason="PostgreSQL isn't installed: apt-get install postgresql"),
]

JOBS = int(os.environ.get("DRYAPI_QUEUE_JOBS", "400"))
KILLS = 5
SECONDS = 600


def make_foxes(count: int) -> list[Txt2Img]:
    return [Txt2Img(prompt="a fox", model="Flux1schnell", width=256, height=192, steps=4, seed=seed) for seed in range(count)]


@asynccontextmanager
async def open_queue() -> AsyncIterator[tuple[str, Pool]]:
    # A connector of its own: procrastinate's keeps the pool that it was given first.
    with app.replace_connector(PsycopgConnector()):
        async with run_postgres() as database, make_pool(database) as pool, app.open_async(pool):
            await set_up(pool)
            yield database, pool


@asynccontextmanager
async def run_workers(count: int, database: str, sim: Simulator, out: Path, *words: str) -> AsyncIterator[dict[int, int]]:
    """Keep workers running, and give the process ids of those that run now."""
    environment = {"DATABASE": database, "DRYAPI_API_KEY": sim.key, "DRYAPI_BASE_URL": sim.url, "DRYAPI_LIMITS": "none"}
    said = ("--out", str(out), "--heartbeat", "1", *words)
    running: dict[int, int] = {}
    tasks = [asyncio.create_task(keep_worker(place, running, environment, *said)) for place in range(count)]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until_ended(pool: Pool) -> dict[str, int]:
    return await until(pool, lambda counts: set(counts) <= ENDED, SECONDS)


async def until(pool: Pool, reached: Callable[[dict[str, int]], bool], seconds: float = 60) -> dict[str, int]:
    """Wait until the rows' states are so, and give their counts."""
    async with asyncio.timeout(seconds):
        while not reached(counts := await count_states(pool)):  # noqa: ASYNC110  other processes' work has no event
            await asyncio.sleep(0.1)
    return counts


async def read_rows(pool: Pool) -> list[dict[str, Any]]:
    names = ("id", "request", "state", "request_id", "ticket", "path", "owner", "error")
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT id, request, state, request_id, ticket, path, owner, error FROM pictures ORDER BY id")
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def kill_workers(pool: Pool, running: dict[int, int], chance: random.Random) -> int:
    """Kill workers that are in the middle of their work, at random moments; give how many were."""
    killed = 0
    while killed < KILLS:
        await asyncio.sleep(chance.uniform(0.3, 2))
        counts = await count_states(pool)
        assert not set(counts) <= ENDED, f"all was over after {killed} kills"
        if counts.get("submitted", 0) + counts.get("intent", 0) and running:
            os.kill(chance.choice(sorted(running.values())), signal.SIGKILL)
            killed += 1
    return killed


def check_files(sim: Simulator, rows: list[dict[str, Any]], out: Path) -> None:
    """Hold the files against what the service made: each whole, and each picture its own."""
    done = [row for row in rows if row["state"] == "done"]
    assert sorted(one.name for one in out.glob("*.png")) == [f"{row['id']:05}.png" for row in done]
    for row in done:
        job = sim.jobs[row["request_id"]]
        assert job.fields["seed"] == row["request"]["seed"]
        (blob,) = [blob for name, blob in job.blobs.items() if name.endswith(".png")]
        assert sha256(Path(row["path"])) == sha256(blob.read(0, blob.size)), row["id"]


def test_p04_workers_killed_five_times_pay_for_nothing_twice_and_lose_no_row(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201  a failing run can be made again
    chance = random.Random(seed)  # noqa: S311  kills, no secrets
    out = tmp_path / "out"

    async def main() -> None:
        async with make_sim(seed=seed, duration=0.5, result_size=20_000, most_records=1_000_000) as sim, open_queue() as (database, pool):
            await enqueue(pool, make_foxes(JOBS))
            async with run_workers(4, database, sim, out) as running:
                killed = await kill_workers(pool, running, chance)
                counts = await until_ended(pool)
            rows = await read_rows(pool)
            print(f"{JOBS} jobs, {killed} kills: {counts}, {sim.jobs_billed} billed")  # noqa: T201
            assert max(sim.billed.values()) == 1, "paid twice"
            assert sum(counts.values()) == JOBS
            assert set(counts) <= {"done", "unknown"}
            assert counts["done"] <= sim.jobs_billed <= JOBS
            check_files(sim, rows, out)
            known = {row["request_id"] for row in rows if row["request_id"]}
            assert len(set(sim.jobs) - known) <= counts.get("unknown", 0), "billed, and nobody knows"
            for row in rows:
                assert row["state"] == "done" or "died between its intent and the answer" in row["error"]

    asyncio.run(main())


def test_each_answer_to_a_submit_has_its_state_and_only_a_person_pays_for_an_unknown_one_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_sim(duration=0.2) as sim, open_queue() as (database, pool):
            # The last closes the client's lane, too.
            sim.script(
                "txt2img", Fault.reset(), Fault.status(422, {"message": "No."}), Fault.job_error(), Fault.rate_limited(retry_after=400)
            )
            await enqueue(pool, make_foxes(4))
            async with run_workers(1, database, sim, tmp_path, "--at-once", "1"):
                await until(pool, lambda counts: len(seen(sim, "txt2img")) == 4 and "intent" not in counts)
            rows = await read_rows(pool)
            assert [row["state"] for row in rows] == ["unknown", "refused", "failed", "queued"]
            assert all(row["error"] for row in rows)
            async with pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT extract(epoch FROM max(scheduled_at) - now()) FROM procrastinate_jobs WHERE status = 'todo'"
                )
                ((seconds,),) = await cursor.fetchall()
            assert 300 < seconds < 500
            billed = sim.jobs_billed
            async with run_workers(1, database, sim, tmp_path, "--resubmit-unknown"):
                await until(pool, lambda counts: counts.get("done") == 1)
            assert sim.jobs_billed == billed + 1

    asyncio.run(main())


def test_a_worker_whose_locks_are_lost_ends_and_its_jobs_are_finished_by_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_sim(duration=4) as sim, open_queue() as (database, pool):
            await enqueue(pool, make_foxes(8))
            async with run_workers(1, database, sim, tmp_path) as running:
                await until(pool, lambda counts: counts == {"submitted": 8})
                first = running[0]
                async with pool.connection() as connection:
                    await connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7011"
                    )
                await until(pool, lambda _: running.get(0, first) != first)
                counts = await until_ended(pool)
            assert counts == {"done": 8}
            assert sim.jobs_billed == 8
            check_files(sim, await read_rows(pool), tmp_path)

    asyncio.run(main())


def test_one_living_worker_has_a_picture_and_a_late_ticket_settles_what_was_called_unknown(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_sim(duration=0) as sim, make_client(sim) as client, open_queue() as (database, pool):
            (picture,) = await enqueue(pool, make_foxes(1))
            async with await AsyncConnection.connect(database, autocommit=True) as other:
                lost = await AsyncConnection.connect(database, autocommit=True)
                first, second = Ledger(lost, pool), Ledger(other, pool)
                async with first.hold(picture) as row:
                    assert row.state == "queued"
                    assert await first.intend(picture)
                    for ledger in (first, second):
                        with pytest.raises(HeldError):
                            await ledger.hold(picture).__aenter__()
                    await other.execute("SELECT pg_terminate_backend(%s)", (lost.info.backend_pid,))
                    with pytest.raises(OperationalError):
                        await first.watch()
                await make_picture(cast("JobContext", Context(client, second, tmp_path)), picture=picture)
                assert await count_states(pool) == {"unknown": 1}
                assert not sim.jobs_billed
                assert not await second.intend(picture)
                await first.keep(picture, await client.call(make_foxes(1)[0]))
                assert await count_states(pool) == {"submitted": 1}
                await make_picture(cast("JobContext", Context(client, second, tmp_path)), picture=picture)
                assert await count_states(pool) == {"done": 1}
                assert sim.jobs_billed == 1

    asyncio.run(main())


class Context:
    """What the task takes from its context."""

    def __init__(self, client: Client, ledger: Ledger, out: Path) -> None:
        self.additional_context = {"desk": Desk(client, ledger, out, 1.0)}


def find_workers(said: str) -> set[int]:
    return {int(word) for line in said.splitlines() if "| workers" in line for word in line.split("workers")[1].split()}


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_command_brings_all_to_their_end_or_is_interrupted_and_leaves_nothing_running(tmp_path: Path, *, interrupted: bool) -> None:
    async def main() -> str:
        words = ("-m", "examples.procrastinate_workers", "--pictures", "6", "--workers", "2", "--out", str(tmp_path / "out"))
        command = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=REPOSITORY, env={**os.environ, "TMPDIR": str(folder)}, stdout=asyncio.subprocess.PIPE
        )
        assert command.stdout is not None
        said = ""
        async with asyncio.timeout(90):
            while line := (await command.stdout.readline()).decode():
                said += line
                if interrupted and "submitted" in line:
                    command.send_signal(signal.SIGINT)
                    interrupted_at.append(line)
            assert await command.wait() == 0
        return said

    interrupted_at: list[str] = []
    # The server's folder is made here, short enough for a socket's path, and open to the account that the server runs as.
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        said = asyncio.run(main())
        assert not list(folder.iterdir()), "the server's folder is left"
    finally:
        shutil.rmtree(folder)
    assert ("6 jobs were billed" in said) is not interrupted
    assert bool(interrupted_at) is interrupted
    if not interrupted:
        assert len(list((tmp_path / "out").glob("*.png"))) == 6
    assert len(find_workers(said)) == 2
    assert not any(is_running(one) for one in find_workers(said))
