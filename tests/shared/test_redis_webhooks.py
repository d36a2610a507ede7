"""P16: a webhook may land in another process than the one that waits. Real processes, real time, a Redis of our own."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import Client, Limits, SharedStateError
from dryapi_async.shared import RedisState
from dryapi_async.simulator import Simulator
from dryapi_async.testing import WebhookSigner

from ..conftest import FOX, REPOSITORY, seen
from .servers import PASSWORD, RedisServer, kill_connections, losing_answers, redis_server, workers

pytestmark = [pytest.mark.processes, pytest.mark.anyio]
SECRET = "whsec_simulator"
JOBS = 1200 if os.environ.get("DRYAPI_FULL_TESTS") else 300


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(pictures=False, seed=1, duration=1.0) as running:
        yield running


def client_of(sim: Simulator, server: RedisServer, **options: Any) -> Client:
    return Client(sim.key, base_url=sim.url, shared=server.url, webhook_secret=SECRET, **options)


def completed(request_id: str) -> tuple[dict[str, str], bytes]:
    data = {"job_request_id": request_id, "status": "done", "result_url": "http://127.0.0.1:9/a.png"}
    return WebhookSigner(SECRET).sign(data, event="job.completed")


async def receive(sim: Simulator, server: RedisServer, *, jobs: int, at_once: int) -> list[dict[str, Any]]:
    """Let four processes make jobs whose webhooks all land in another of them."""
    work = {"redis": server.url, "key": sim.key, "url": sim.url, "jobs": jobs // 4, "patience": 30.0, "at_once": at_once}
    async with workers(4, "receive", **work) as running:
        ports = [await worker.line() for worker in running]
        for worker in running:
            worker.say(json.dumps(ports))
        told = [await worker.line() for worker in running]
        for worker in running:
            worker.say("end")
        return told


async def test_p16_a_webhook_that_lands_elsewhere_ends_the_wait_at_once(sim: Simulator, server: RedisServer) -> None:
    told = await receive(sim, server, jobs=8, at_once=1)
    late = max(seconds for one in told for seconds in one["seconds"]) - 1.0
    assert [one["lost"] for one in told] == [[]] * 4
    assert late < 2.5
    assert seen(sim, "request-status") == []


async def test_p16_no_webhook_is_lost_while_connections_are_killed(sim: Simulator, server: RedisServer) -> None:
    breaks = asyncio.create_task(kill_connections(server))
    told = await receive(sim, server, jobs=JOBS, at_once=20)
    breaks.cancel()
    assert [one["lost"] for one in told] == [[]] * 4
    assert seen(sim, "request-status") == []


async def test_p16_a_repeat_that_lands_elsewhere_is_known_as_one(sim: Simulator, server: RedisServer) -> None:
    async with client_of(sim, server) as one, client_of(sim, server) as other:
        headers, body = completed("a-job")
        assert not (await one.deliver(headers, body)).duplicate
        assert (await other.deliver(headers, body)).duplicate
        # Another delivery of the same news.
        assert (await other.deliver(*completed("a-job"))).duplicate
        assert not (await other.deliver(*completed("another-job"))).duplicate


async def test_p16_news_whose_publishing_was_repeated_is_told_once(server: RedisServer) -> None:
    async with losing_answers(server, times=2) as way:
        store = RedisState(way.url).open()
        try:
            bus = store.bus("account")
            # redis-py sends the script again, since it can't know that it ran.
            assert await bus.publish(b"first", names=["a", "b"])
            assert way.lost == 2
            assert not await bus.publish(b"a repeat", names=["b"])
            assert await bus.publish(b"other news", names=["c"])
            news = bus.listen()
            assert [await anext(news), await anext(news)] == [b"first", b"other news"]
            await news.aclose()
        finally:
            await store.aclose()
    assert server.ask("XLEN", "dryapi:{account}:news") == b":2\r\n"


async def test_p16_one_that_came_before_the_process_began_is_heard(sim: Simulator, server: RedisServer) -> None:
    sim.board.duration = 1000.0
    async with client_of(sim, server) as one:
        job = await one.call(FOX)
        await one.deliver(*completed(job.ticket.partition(":")[2]))
    async with client_of(sim, server) as other:
        assert (await asyncio.wait_for(other.job(job.ticket).wait(poll=False), 10)).source == "webhook"
    assert seen(sim, "request-status") == []


async def test_p16_the_keys_hold_no_api_key_and_all_expire(sim: Simulator, server: RedisServer) -> None:
    limits = Limits.parse("6000")
    async with client_of(sim, server, limits=limits) as one:
        job = await one.call(FOX)
        await one.deliver(*completed(job.ticket.partition(":")[2]))
        keys, everything = server.keys(), server.everything().decode()
    assert {key.split(":")[2] for key in keys} >= {"grants", "notes", "news", "told"}
    assert sim.key not in everything
    assert sim.key.partition("|")[2] not in everything
    assert "NO EXPIRY" not in everything
    assert all(key.startswith("dryapi:{") for key in keys)


async def test_accounts_hear_nothing_of_each_other(sim: Simulator, server: RedisServer) -> None:
    sim.board.duration = 1000.0
    async with client_of(sim, server) as one:
        tenant = one.with_options(api_key="another-key", webhook_secret=SECRET)
        job = await one.call(FOX)
        await tenant.deliver(*completed(job.ticket.partition(":")[2]))
        with pytest.raises(TimeoutError):
            await job.wait(poll=False, timeout=1)
        await one.deliver(*completed(job.ticket.partition(":")[2]))
        assert (await asyncio.wait_for(job.wait(poll=False), 10)).source == "webhook"


@pytest.mark.parametrize("when_away", ["degrade", "raise"])
async def test_a_webhook_while_redis_is_away(sim: Simulator, server: RedisServer, when_away: Any, caplog: pytest.LogCaptureFixture) -> None:
    sim.board.duration = 1000.0
    state = RedisState(server.url, when_away=when_away)
    options = {"base_url": sim.url, "webhook_secret": SECRET}
    async with Client(sim.key, shared=state, **options) as one, Client(sim.key, shared=state, **options) as other:
        job = await one.call(FOX)
        waits = asyncio.create_task(one.job(job.ticket).wait(poll=False))
        await asyncio.sleep(0.3)
        server.stop()
        delivery = completed(job.ticket.partition(":")[2])
        if when_away == "raise":
            with pytest.raises(SharedStateError, match=r"Redis at redis://127\.0\.0\.1:\d+/0 is away"):
                await other.deliver(*delivery)
            server.start()
            # The service delivers again.
            assert not (await other.deliver(*delivery)).duplicate
        else:
            assert not (await other.deliver(*delivery)).duplicate
            assert "reaches other processes when the shared store is back" in caplog.text
            server.start()
        assert (await asyncio.wait_for(waits, 15)).finished
    assert PASSWORD not in caplog.text


def test_p40_nothing_is_opened_before_it_is_used() -> None:
    program = """
import os, sys, threading
from dryapi_async import Client
from dryapi_async.shared import RedisState
before = sorted(os.listdir("/proc/self/fd"))
client = Client("1|a-key", shared=RedisState("redis://127.0.0.1:9/0"))
assert "redis" not in sys.modules, "imported before it is used"
assert threading.active_count() == 1
assert sorted(os.listdir("/proc/self/fd")) == before
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
