"""P16's neighbour: eight processes keep one account's limit together, whatever happens to Redis. Real processes and real time."""

import asyncio
import itertools
import math
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import evolve

from dryapi_async import Client, Limits, Rate, RateLimitError, SharedStateError
from dryapi_async.shared import RedisState, SharedRate
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, finish, give_up, seen
from .servers import PASSWORD, RedisServer, kill_connections, redis_server, workers

pytestmark = [pytest.mark.processes, pytest.mark.anyio]
LIMIT, SECONDS, PROCESSES, CALLERS = 50, 2.0, 8, 25
FULL = bool(os.environ.get("DRYAPI_FULL_TESTS"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def window() -> str:
    return "sliding"


@pytest.fixture
async def sim(window: Literal["fixed", "sliding"]) -> AsyncIterator[Simulator]:
    limits = {"txt2img": (LIMIT, SECONDS)}
    async with Simulator(pictures=False, seed=1, duration=1000.0, limits=limits, window=window) as running:
        yield running


async def send(sim: Simulator, server: RedisServer, breaks: Coroutine[Any, Any, None], *, duration: float) -> list[dict[str, Any]]:
    work = {"redis": server.url, "key": sim.key, "url": sim.url, "limit": LIMIT, "seconds": SECONDS}
    async with workers(PROCESSES, "send", **work, processes=PROCESSES, callers=CALLERS, duration=duration) as running:
        for worker in running:
            worker.say("go")
        breaking = asyncio.create_task(breaks)
        told = [await worker.line() for worker in running]
    breaking.cancel()
    return told


def most_in_a_window(times: list[float]) -> int:
    times, first, most = sorted(times), 0, 0
    for last, moment in enumerate(times):
        while times[first] <= moment - SECONDS:
            first += 1
        most = max(most, last - first + 1)
    return most


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[math.ceil(part * len(values)) - 1]


@pytest.mark.parametrize("window", ["sliding", "fixed"])
async def test_eight_processes_keep_one_limit_while_connections_are_killed(sim: Simulator, server: RedisServer) -> None:
    told = await send(sim, server, kill_connections(server), duration=24.0 if FULL else 12.0)
    posts = seen(sim, "txt2img")
    assert [one["errors"] for one in told] == [[]] * PROCESSES
    assert {status for one in told for status in one["statuses"]} == {200}
    assert most_in_a_window([one.started for one in posts]) <= LIMIT
    waits = [wait for one in told for wait in one["waits"]]
    fair = PROCESSES * CALLERS * SECONDS / LIMIT
    print(f"{len(posts)} posts; waits p50 {quantile(waits, 0.5):.2f} s, p99 {quantile(waits, 0.99):.2f} s; fair {fair:.2f} s")  # noqa: T201  the figures are what it is run for
    # 1.2 on a machine that is idle otherwise; here others work, too.
    assert quantile(waits, 0.99) <= (1.2 if FULL else 1.6) * fair
    assert [one["warnings"] for one in told] == [[]] * PROCESSES


async def test_redis_is_stopped_and_started_in_the_middle(sim: Simulator, server: RedisServer) -> None:
    async def restart() -> None:
        await asyncio.sleep(6)
        server.stop()
        await asyncio.sleep(8)
        server.start()

    told = await send(sim, server, restart(), duration=18.0)
    posts = seen(sim, "txt2img")
    refused = sum(status == 429 for one in told for status in one["statuses"])
    during = [one for one in posts if one.status == 200]
    assert [one["errors"] for one in told] == [[]] * PROCESSES
    # Every caller has a job for each call, and each job has one caller.
    tickets = [ticket for one in told for ticket in one["tickets"]]
    assert len(tickets) == len(set(tickets)) == len(during) == sum(len(one["waits"]) for one in told)
    assert refused == 0
    for one in told:
        texts = " ".join(one["warnings"])
        assert "the shared store is away, so this process keeps to a 8th of the limits" in texts
        assert "the shared store is back" in texts
        assert PASSWORD not in texts
        assert len(one["warnings"]) <= 4


async def test_redis_that_never_was_there(sim: Simulator, server: RedisServer) -> None:
    server.stop()
    state = RedisState(server.url, processes=10)
    limits = Limits(lanes={"txt2img": Rate(LIMIT, SECONDS)})
    async with Client(sim.key, base_url=sim.url, shared=state, limits=limits) as client:
        await asyncio.gather(*(client.call(FOX) for _ in range(7)))
    posts = [one.started for one in seen(sim, "txt2img")]
    assert len(posts) == 7
    assert most_in_a_window(posts) == 5
    # One that is to stop then does, before anything is sent.
    async with Client(sim.key, base_url=sim.url, shared=evolve(state, when_away="raise"), limits=limits) as client:
        with pytest.raises(SharedStateError, match="is away"):
            await client.call(FOX)
        assert len(seen(sim, "txt2img")) == 7
        server.start()
        await asyncio.sleep(2)
        await client.call(FOX)


async def test_who_has_no_limits_asks_nobody(sim: Simulator, server: RedisServer) -> None:
    server.stop()
    async with Client(sim.key, base_url=sim.url, shared=server.url, limits=Limits.none()) as client:
        await asyncio.wait_for(client.call(FOX), 1)


async def test_a_429_of_one_holds_the_other(sim: Simulator, server: RedisServer) -> None:
    limits = Limits(lanes={"txt2img": Rate(1000, 60)})
    options = {"base_url": sim.url, "shared": server.url, "limits": limits}
    async with Client(sim.key, **options) as one, Client(sim.key, **options) as other:
        sim.script("txt2img", Fault.rate_limited(retry_after=2))
        refused = asyncio.create_task(finish(one.call(FOX)))
        while not seen(sim, "txt2img"):  # noqa: ASYNC110  what the simulator has seen has no event
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await other.call(FOX)
        assert 1.2 < time.monotonic() - began < 4
        await refused


async def test_who_gives_up_leaves_no_turn_behind(sim: Simulator, server: RedisServer) -> None:
    options = {"base_url": sim.url, "shared": server.url, "limits": Limits(lanes={"txt2img": Rate(1, 3.0)})}
    async with Client(sim.key, **options) as one, Client(sim.key, **options) as other:
        await one.call(FOX)
        began = time.monotonic()
        waits = asyncio.create_task(finish(other.call(FOX)))
        await asyncio.sleep(0.5)
        await give_up(waits)
        await other.call(FOX, timeout=5)
        assert 2.5 < time.monotonic() - began < 5


async def test_a_days_limit_that_others_used_up_is_told_at_once(sim: Simulator, server: RedisServer) -> None:
    options = {"base_url": sim.url, "shared": server.url, "limits": Limits(lanes={"txt2img": (Rate(40, 2.0), Rate(2, 86_400))})}
    if 86_400 - time.time() % 86_400 < 180:
        pytest.skip("the day is almost over")
    async with Client(sim.key, **options) as one, Client(sim.key, **options) as other:
        await one.call(FOX)
        await other.call(FOX)
        with pytest.raises(RateLimitError, match="used up the limit of lane txt2img") as caught:
            await one.call(FOX)
        assert caught.value.kind == "daily"
        assert caught.value.resets_at == pytest.approx((time.time() // 86_400 + 1) * 86_400, abs=5)


async def test_status_reads_share_the_pot_and_go_first(sim: Simulator, server: RedisServer) -> None:
    options = {"base_url": sim.url, "shared": server.url, "limits": Limits(pot=Rate(4, 2.0)), "max_in_flight": 50}
    async with Client(sim.key, **options) as one, Client(sim.key, **options) as other:
        job = await one.call(FOX)
        many = [asyncio.create_task(finish(one.call(FOX))) for _ in range(12)]
        await asyncio.sleep(0.5)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await other.job(job.ticket).wait(timeout=4)
        assert [read.started for read in seen(sim, "request-status")]
        assert time.monotonic() - began < 5
        for task in many:
            task.cancel()
        await asyncio.gather(*many, return_exceptions=True)
    counted = sorted(read.started for name in ("request-status", "txt2img") for read in seen(sim, name))
    assert most_in_a_window(counted) <= 4
    # Spread over the window, not all at its beginning.
    assert all(later - earlier > 0.2 for earlier, later in itertools.pairwise(counted))


async def test_a_step_that_runs_twice_changes_nothing(sim: Simulator, server: RedisServer) -> None:
    store = RedisState(server.url).open()
    try:
        limiter, rates = store.limiter("account"), (SharedRate(name="a", limit=2, seconds=60.0),)
        for _ in range(3):
            assert await limiter.reserve("a", rates, token="first", most_wait=0) == 0
        for _ in range(2):
            assert await limiter.reserve("a", rates, token="second", most_wait=0) == 0
        turns = [
            await limiter.reserve("a", rates, token=token, most_wait=1000) for token in ("third", "third", "fourth", "fifth", "fourth")
        ]
        assert turns == pytest.approx([60.61, 60.61, 60.61, 121.22, 60.61], abs=1)
        # Over what the caller accepts nothing is kept.
        assert await limiter.reserve("a", rates, token="sixth", most_wait=100) == pytest.approx(121.22, abs=1)
        assert await limiter.reserve("a", rates, token="seventh", most_wait=1000) == pytest.approx(121.22, abs=1)
        # Nothing was sent, so its place goes to who asked first; ending twice gives back one.
        for _ in range(2):
            await limiter.end(rates, token="first", counted=False)
        assert await limiter.reserve("a", rates, token="fourth", most_wait=1000) > 0
        assert await limiter.reserve("a", rates, token="third", most_wait=1000) == 0
        bus = store.bus("account")
        assert [await bus.publish(b"x", names=["a", "b"]), await bus.publish(b"x", names=["c", "b"])] == [True, False]
    finally:
        await store.aclose()
