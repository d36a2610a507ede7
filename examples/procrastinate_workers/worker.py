"""A worker: run as many as you like, on as many hosts: ``python -m examples.procrastinate_workers.worker``."""

import argparse
import asyncio
import os
from pathlib import Path

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from dryapi_async import Client
from examples.procrastinate_workers.ledger import Ledger, Pool
from examples.procrastinate_workers.tasks import QUEUE, Desk, app, resubmit_unknown


def make_pool(database: str) -> Pool:
    return AsyncConnectionPool(database, min_size=1, max_size=6, open=False, check=AsyncConnectionPool.check_connection)


async def work(database: str, out: Path, *, at_once: int, heartbeat_seconds: float, resubmit: bool = False) -> None:
    """Work until SIGTERM or Ctrl-C: what is under way is finished, or handed over by its ticket after half a minute."""
    async with (
        await AsyncConnection.connect(database, autocommit=True) as life,
        make_pool(database) as pool,
        app.open_async(pool),
        Client() as client,
    ):
        if resubmit:
            print("queued again:", await resubmit_unknown(pool))
        ledger = Ledger(life, pool)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(ledger.watch())
            await app.run_worker_async(
                queues=[QUEUE],
                concurrency=at_once,
                additional_context={"desk": Desk(client, ledger, out, heartbeat_seconds)},
                update_heartbeat_interval=heartbeat_seconds,
                stalled_worker_timeout=3 * heartbeat_seconds,
                shutdown_graceful_timeout=30,
            )
            watch.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit queued pictures. DATABASE, DRYAPI_API_KEY and DRYAPI_BASE_URL say where.")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="where the files are written")
    parser.add_argument("--at-once", type=int, default=16, help="pictures under way in this worker")
    parser.add_argument("--heartbeat", type=float, default=10.0, metavar="SECONDS", help="three missed ones are a stalled worker")
    parser.add_argument("--resubmit-unknown", action="store_true", help="first queue the unknown ones again: each may be paid for twice")
    said = parser.parse_args()
    said.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(
        work(os.environ["DATABASE"], said.out, at_once=said.at_once, heartbeat_seconds=said.heartbeat, resubmit=said.resubmit_unknown)
    )


if __name__ == "__main__":
    main()
