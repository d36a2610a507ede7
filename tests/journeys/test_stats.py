"""``client.stats()``: what a client counts is what the service saw."""

import asyncio
import json
import math
import pickle
import time
from pathlib import Path

import attrs
import pytest

from benchmarks.service import start_service
from dryapi_async import Client, LaneStats, Limits, PoolTimeoutError, Rate, Retry, Stats, SubmissionUnknownError, Timeouts
from dryapi_async.events import SubmissionUnknown
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.testing import ThreadedSimulator

from ..conftest import FOX, PNG, edit, finish, give_up, make_client, seen, until

pytestmark = pytest.mark.anyio


async def test_what_is_counted_is_what_the_service_saw(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim) as client:
        sim.script("img2img", Fault.rate_limited(retry_after=3))
        sim.script("balance", Fault.reset())
        sim.script("storage", Fault.status(503))
        path = await edit(client, image=PNG + bytes(300_000)).save(tmp_path / "fox.png")
        await client.balance()
        await client.call(FOX).price()
        found = client.stats()
    reads = len(seen(sim, "request-status"))
    assert found == attrs.evolve(
        found,
        calls=3,
        submits=1,
        submits_unknown=0,
        requests=len(sim.requests),
        retries=2,
        status_reads=reads,
        rate_limited=1,
        downloads=2,
        bytes_sent=sum(one.body_size for one in sim.requests),
        orphans=0,
        jobs_waited_for=0,
        push=None,
    )
    assert len(sim.requests) == 2 + 2 + 1 + reads
    assert found.bytes_received > path.stat().st_size
    assert found.limit_wait_seconds == pytest.approx(3.3, abs=0.4)
    assert set(found.lanes) == {"img2img", "free", "prices", "status"}


async def test_the_lanes_say_what_is_left(sim: Simulator) -> None:
    limits = Limits(default=None, lanes={"txt2img": Rate(2, 60.0), "status": (Rate(50, 60.0), Rate(200, 86400.0))})
    async with make_client(sim, limits=limits) as client:
        jobs = [await client.call(FOX) for _ in range(2)]
        third = asyncio.create_task(client.call(FOX).result())
        await jobs[0].status()
        await asyncio.sleep(1)
        found = client.stats()
        lane = found.lanes["txt2img"]
        assert (lane.limit, lane.seconds, lane.remaining, lane.waiting) == (2, 60.0, 0, 1)
        assert lane.opens_in == pytest.approx(59, abs=0.5)
        assert (lane.day_limit, lane.day_remaining) == (None, None)
        status = found.lanes["status"]
        assert (status.limit, status.remaining, status.day_limit, status.day_remaining) == (50, 49, 200, 199)
        assert status.opens_in == 0
        await third
        after = client.stats()
        assert after.limit_wait_seconds == pytest.approx(60, abs=0.5)
        assert after.lanes["txt2img"].waiting == 0
        assert found.lanes["txt2img"].waiting == 1


async def test_a_lane_without_limit_says_none(sim: Simulator) -> None:
    async with make_client(sim, limits=Limits.none()) as client:
        await client.balance()
        assert client.stats().lanes == {
            "free": LaneStats(limit=None, seconds=None, remaining=None, day_limit=None, day_remaining=None, waiting=0, opens_in=0.0)
        }


async def test_jobs_that_are_waited_for_and_lost_ones(sim: Simulator) -> None:
    async with make_client(sim) as client:
        sim.hold()
        waits = [asyncio.create_task(client.call(FOX).result()) for _ in range(3)]
        await until(lambda: client.stats().jobs_waited_for == 3)
        for one in waits:
            await give_up(one)
        assert (client.stats().jobs_waited_for, client.stats().orphans) == (0, 3)
        sim.script("txt2img", Fault.delay(5), Fault.reset())
        sent = asyncio.create_task(client.call(FOX).result())
        await until(lambda: len(seen(sim, "txt2img")) == 4)
        await give_up(sent)
        await until(lambda: client.stats().orphans == 4)
        with pytest.raises(SubmissionUnknownError):
            await client.call(FOX)
        found = client.stats()
        assert (found.submits, found.submits_unknown) == (5, 1)


async def test_push_is_up_or_down_or_not_there(sim: Simulator) -> None:
    async with make_client(sim) as client:
        await client.call(FOX).result()
        assert client.stats().push is None
    async with make_client(sim, client_id=sim.client_id) as client:
        job = await client.call(FOX)
        assert client.stats().push is False
        wait = asyncio.create_task(job.result())
        await until(lambda: client.stats().push)
        await wait


async def test_accounts_count_for_themselves(sim: Simulator) -> None:
    async with make_client(sim, retry=Retry(attempts=1)) as client:
        tenant = client.with_options(api_key=sim.key + "x")
        await client.balance()
        assert (client.stats().requests, tenant.stats().requests) == (1, 0)


def test_sums_go_on_over_event_loops() -> None:
    with start_service() as service:
        client = Client(service.key, base_url=service.url)

        async def ask() -> Stats:
            await client.balance()
            return client.stats()

        assert [asyncio.run(ask()).requests for _ in range(2)] == [1, 2]
        assert client.stats().requests == 2


def test_a_client_that_wasnt_used_counted_nothing() -> None:
    found = Client("1|some-key-or-other").stats()
    assert found.lanes == {}
    assert {name: value for name, value in attrs.asdict(found).items() if value} == {}


async def test_a_snapshot_is_plain_and_cheap(sim: Simulator) -> None:
    async with make_client(sim, limits=Limits.basic()) as used:
        await used.call(FOX).result()
        found = used.stats()
        assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301  our own
        assert json.loads(json.dumps(attrs.asdict(found)))["lanes"]["status"]["day_limit"] == 200
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            found.calls = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  that it can't be is the test
        began = time.thread_time()  # CPU: what else this machine does isn't counted
        for _ in range(100):
            used.stats()
        assert time.thread_time() - began < 0.5


def test_accounts_count_for_themselves_over_event_loops() -> None:
    """Two of the same key with hooks of their own; a loop in which one isn't used; what isn't told yet isn't lost."""

    async def submit(*clients: Client) -> None:
        for client in clients:
            await client.call(FOX)

    with ThreadedSimulator(pictures=False, duration=0.01) as service:
        home = Client(service.key, base_url=service.url)
        one, two = (home.with_options(on_event=hook) for hook in (lambda _: None, repr))
        for uses in ((one, one, two), (home,), (one, two), (home,)):
            asyncio.run(submit(*uses))
            assert one.stats().submits >= 2
        assert (one.stats().submits, two.stats().submits) == (3, 2)
        asyncio.run(home.aclose())


async def test_a_submit_that_is_sent_again_at_the_users_word_is_counted_as_unknown(sim: Simulator) -> None:
    told: list[object] = []
    async with make_client(sim, on_event=lambda event: told.append(event) if isinstance(event, SubmissionUnknown) else None) as client:
        sim.script("txt2img", Fault.reset(), times=2)
        await client.call(FOX, resubmit=True)
        assert sim.jobs_billed == 3
        assert (client.stats().submits_unknown, len(told)) == (2, 2)


async def test_what_found_no_connection_wasnt_sent(sim: Simulator) -> None:
    sim.script("models", Fault.hang(), times=math.inf)
    async with make_client(sim, pool_size=1, max_in_flight=1, timeouts=Timeouts(pool=1, idle=30)) as client:
        waiting = asyncio.ensure_future(client.models())
        await until(lambda: seen(sim, "models"))
        with pytest.raises(PoolTimeoutError):
            await client.balance()
        assert client.stats().requests == 0
        await give_up(waiting)


async def test_the_wait_of_one_that_is_given_up_counts_as_long_as_it_was(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.rate_limited(retry_after=60))
    task = asyncio.create_task(finish(client.call(FOX)))
    await until(lambda: seen(sim, "txt2img"))
    await asyncio.sleep(5)
    await give_up(task)
    assert client.stats().limit_wait_seconds == pytest.approx(5, abs=1)
