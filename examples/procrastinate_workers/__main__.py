"""``python -m examples.procrastinate_workers``: PostgreSQL, the simulator and four workers, until forty pictures are there."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dryapi_async import Txt2Img
from dryapi_async.simulator import Simulator
from examples.procrastinate_workers.ledger import Pool
from examples.procrastinate_workers.postgres import run_postgres
from examples.procrastinate_workers.tasks import app, enqueue
from examples.procrastinate_workers.worker import make_pool

HERE = Path(__file__).parent
ENDED = {"done", "unknown", "failed", "refused"}


def fox(seed: int) -> Txt2Img:
    return Txt2Img(prompt="a fox in snow", model="Flux1schnell", width=512, height=512, steps=4, seed=seed)


async def set_up(pool: Pool) -> None:
    """Make procrastinate's tables and ours."""
    await app.schema_manager.apply_schema_async()
    async with pool.connection() as connection:
        await connection.execute((HERE / "schema.sql").read_bytes())


async def count_states(pool: Pool) -> dict[str, int]:
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT state, count(*) FROM pictures GROUP BY state ORDER BY state")
        return {str(state): int(count) for state, count in await cursor.fetchall()}


async def keep_worker(place: int, running: dict[int, int], environment: Mapping[str, str], *words: str) -> None:
    """Run a worker, and another one whenever it dies, until cancelled. ``running`` tells each place's process id."""
    command = (sys.executable, "-m", "examples.procrastinate_workers.worker", *words)
    while True:
        # A session of its own: Ctrl-C is for this program, which ends the worker in peace.
        worker = await asyncio.create_subprocess_exec(
            *command, cwd=HERE.parents[1], env={**os.environ, **environment}, start_new_session=True
        )
        running[place] = worker.pid
        try:
            status = await worker.wait()
        finally:
            running.pop(place)
            if worker.returncode is None:
                await _stop(worker)
        print(f"worker {worker.pid} ended ({status}): another one takes its place", flush=True)
        await asyncio.sleep(0.5)


async def _stop(worker: asyncio.subprocess.Process) -> None:
    worker.terminate()
    try:
        await asyncio.wait_for(worker.wait(), 40)  # longer than the worker gives its own jobs
    except TimeoutError:
        worker.kill()
        await worker.wait()


async def report(pool: Pool, running: dict[int, int]) -> None:
    """Print how far it is, each second, until all have ended."""
    while True:
        counts = await count_states(pool)
        print(" ".join(f"{state} {count}" for state, count in counts.items()), "| workers", *running.values(), flush=True)
        if set(counts) <= ENDED:
            return
        await asyncio.sleep(1)


async def run(pictures: int, workers: int, out: Path) -> None:
    if here := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, here.cancel)  # as Ctrl-C
    async with run_postgres() as database, Simulator(duration=2.0) as simulator, make_pool(database) as pool, app.open_async(pool):
        await set_up(pool)
        await enqueue(pool, [fox(seed) for seed in range(pictures)])
        environment = {"DATABASE": database, "DRYAPI_API_KEY": simulator.key, "DRYAPI_BASE_URL": simulator.url, "DRYAPI_LIMITS": "none"}
        running: dict[int, int] = {}
        words = ("--out", str(out), "--at-once", "4", "--heartbeat", "1")
        tasks = [asyncio.create_task(keep_worker(place, running, environment, *words)) for place in range(workers)]
        try:
            await report(pool, running)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        print(f"{simulator.jobs_billed} jobs were billed; the files are in {out}/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    said = parser.parse_args()
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(run(said.pictures, said.workers, said.out.absolute()))


if __name__ == "__main__":
    main()
