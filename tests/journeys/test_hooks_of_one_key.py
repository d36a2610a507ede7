"""P36: clients of one key share its lanes, and each hears of its own calls' waits alone."""

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dryapi_async import Limits, Rate
from dryapi_async.events import Event, RateLimited
from dryapi_async.io.pacing import Pacing, Passage
from dryapi_async.protocol.wire import encode
from dryapi_async.simulator import Simulator

from ..conftest import FOX, make_client, make_sim
from ..shared.servers import RedisServer, redis_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


def waits(heard: list[Event]) -> list[str]:
    return [event.lane for event in heard if isinstance(event, RateLimited)]


async def test_p36_who_waits_in_a_lane_is_told_by_its_own_hook() -> None:
    first, own = list[str](), list[str]()
    pacing = Pacing(Limits(lanes={"txt2img": Rate(1, 10.0)}), 16, tell=lambda lane, _: first.append(lane), wall=time.time)

    async def send(heard: list[str] | None) -> None:
        tell = None if heard is None else lambda lane, _: heard.append(lane)
        async with Passage(pacing, encode(FOX), deadline=math.inf, tell=tell) as passage:
            passage.may_count = True

    await send(None)
    await send(own)
    assert (first, own) == ([], ["txt2img"])
    await send(None)
    assert (first, own) == (["txt2img"], ["txt2img"])
    pacing.close()


async def test_p36_a_client_of_the_same_key_hears_of_its_own_waits() -> None:
    home_heard, own_heard = list[Event](), list[Event]()
    limits = Limits(lanes={"txt2img": Rate(1, 10.0)})
    async with make_sim() as sim, make_client(sim, limits=limits, on_event=home_heard.append) as home:
        own = home.with_options(on_event=own_heard.append)
        await home.call(FOX)
        await own.call(FOX)
        assert (waits(home_heard), waits(own_heard)) == ([], ["txt2img"])
        await home.call(FOX)
        assert (waits(home_heard), waits(own_heard)) == (["txt2img"], ["txt2img"])


@pytest.mark.processes
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_p36_a_client_of_the_same_key_hears_of_its_waits_for_other_processes(server: RedisServer) -> None:
    home_heard, own_heard = list[Event](), list[Event]()
    limits = Limits(lanes={"txt2img": Rate(1, 1.0)})
    async with (
        Simulator(pictures=False, seed=1) as sim,
        make_client(sim, limits=limits, shared=server.url) as other,
        make_client(sim, limits=limits, shared=server.url, on_event=home_heard.append) as home,
    ):
        own = home.with_options(on_event=own_heard.append)
        await home.balance()
        await other.call(FOX)
        await asyncio.wait_for(own.call(FOX).price(), 10)
        await own.call(FOX)
        assert (waits(home_heard), waits(own_heard)) == ([], ["txt2img"])
