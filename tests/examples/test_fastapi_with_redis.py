"""The FastAPI example's workers with a Redis between them, and P40: made before the fork. Real processes, real time."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dryapi_async.simulator import Fault, Simulator

from ..conftest import make_sim
from ..shared.servers import RedisServer, free_port, redis_server
from .conftest import Visitor, fastapi_workers, make_photo, point_to, redraw, running_beside, visiting

pytest.importorskip("fastapi", reason="FastAPI isn't installed")
pytest.importorskip("uvicorn", reason="uvicorn isn't installed")

pytestmark = pytest.mark.processes

LATE_SECONDS = 2.5
"""From a webhook's first attempt to the page's news of it: five times the promise, with the page's own look every 0.25 s."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def tell_by_webhook_alone(sim: Simulator) -> None:
    """Let every status read fail: a worker that isn't told of a webhook waits in vain."""
    sim.script("request-status", Fault.status(503), times=math.inf)


async def hear(visitor: Visitor, sim: Simulator, name: str) -> float:
    """Send a photo and listen to its end; give the seconds from the webhook's leaving to the page's news of it."""
    status, photo = await visitor.send(name, make_photo(name))
    assert status == 201, photo
    news = await visitor.follow(photo["id"])
    assert news[-1]["state"] == "done", news[-1]
    heard_at = next(one["heard_at"] for one in news if one["state"] in {"saving", "done"})
    (job,) = [job for job in sim.jobs.values() if job.fields["prompt"] == name]
    (sent,) = [one for one in sim.webhooks.deliveries if one.request_id == job.request_id and one.event == "job.completed"]
    assert [answer for _, answer in sent.attempts] == [204]
    assert await visitor.fetch(photo["id"])
    return float(heard_at - sent.attempts[0][0])


def test_a_webhook_that_lands_in_any_of_four_workers_is_on_the_page_at_once(tmp_path: Path, redis: RedisServer) -> None:
    options: dict[str, Any] = {"duration": 2.0, "push": False, "environment": {"REDIS_URL": redis.url}}

    async def main() -> None:
        async with fastapi_workers(tmp_path / "data", **options) as (sim, visitor, _):
            tell_by_webhook_alone(sim)
            late = await asyncio.gather(*(hear(visitor, sim, f"photo {number}") for number in range(24)))
            print(f"webhook to page: at most {max(late):.2f} s")  # noqa: T201
            assert max(late) < LATE_SECONDS
            assert sim.jobs_billed == 24

    asyncio.run(main())


PRELOADED = """
import os, signal, socket, sys
import uvicorn
from examples.fastapi_app.app import create_app

app = create_app()  # the Client is in it
children = []
for port in map(int, sys.argv[1:]):
    if (child := os.fork()) == 0:
        with socket.create_server(("127.0.0.1", port)) as listening:
            uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listening])
        os._exit(0)
    children.append(child)


def stop(*_):
    for child in children:
        os.kill(child, signal.SIGTERM)


signal.signal(signal.SIGINT, stop)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_p40_an_application_that_was_made_before_the_fork_serves_in_every_worker(tmp_path: Path, shared: bool) -> None:
    ports = [free_port() for _ in range(4)]

    async def main(**environment: str) -> None:
        async with make_sim(duration=0.5, result_size=20_000) as sim:
            found = point_to(sim, tmp_path / "data", ports[0], push=not shared, **environment)
            async with running_beside("-c", PRELOADED, *map(str, ports), port=ports[0], environment=found) as serving:
                for port in ports:
                    await asyncio.to_thread(serving.wait_for, port)
                if shared:
                    tell_by_webhook_alone(sim)
                await asyncio.gather(*(serve_by(port, sim) for port in ports))
            assert sim.jobs_billed == 4

    async def serve_by(port: int, sim: Simulator) -> None:
        async with visiting(port) as visitor:
            if shared:  # all webhooks land in the first worker, and the others wait
                assert await hear(visitor, sim, f"by {port}") < LATE_SECONDS
            else:
                _, photo_id, state = await redraw(visitor, f"by {port}")
                assert state == "done"
                assert await visitor.fetch(photo_id)

    with ExitStack() as stack:
        asyncio.run(main(**({"REDIS_URL": stack.enter_context(redis_server(tmp_path)).url} if shared else {})))
