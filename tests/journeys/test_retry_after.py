"""P8: what a 429 asks for is waited for, by all who were told, and they don't come back as one."""

import asyncio
import math

import pytest

from dryapi_async import Client, Limits, RateLimitError
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client, now, seen

pytestmark = pytest.mark.anyio

CROWD = 100


def make_crowd(sim: Simulator) -> Client:
    """Make a client that sends a hundred at once."""
    return make_client(sim, limits=Limits.none(), max_in_flight=CROWD)


def most_within_a_hundredth(moments: list[float]) -> int:
    """Count how many came within a hundredth of a second at most."""
    return max(sum(at <= other < at + 0.01 for other in moments) for at in moments)


async def test_p08_a_hundred_that_were_told_two_seconds_come_later_and_apart(sim: Simulator) -> None:
    # Each is answered once all have asked: every one of them was told.
    sim.script("txt2img", Fault.rate_limited(retry_after=2), times=CROWD)
    async with make_crowd(sim) as client:
        await asyncio.gather(*(client.call(FOX) for _ in range(CROWD)))
    first, again = (seen(sim, "txt2img")[part] for part in (slice(CROWD), slice(CROWD, None)))
    assert [one.status for one in first] == [429] * CROWD
    assert [one.status for one in again] == [200] * CROWD
    told = [one.ended for one in first if one.ended is not None]
    came = sorted(one.started for one in again)
    assert len(told) == len(came) == CROWD
    assert came[0] - max(told) >= 2.0 - 0.001, "none is early"
    assert came[-1] - came[0] >= 0.2, "a crowd that comes as one is refused as one"
    assert came[-1] - max(told) < 5, "nor is one forgotten"
    assert most_within_a_hundredth(came) < CROWD // 5, "no clot in the middle of it"
    assert sim.jobs_billed == CROWD


async def test_p08_who_queues_behind_those_that_were_told_comes_later_and_apart_too(sim: Simulator) -> None:
    async with make_client(sim) as client:
        at_once = client.settings.max_in_flight
        sim.script("txt2img", Fault.rate_limited(retry_after=2), times=at_once)
        await asyncio.gather(*(client.call(FOX) for _ in range(CROWD)))
    assert at_once == 16
    first, later = (seen(sim, "txt2img")[part] for part in (slice(at_once), slice(at_once, None)))
    assert [one.status for one in first] == [429] * at_once
    assert [one.status for one in later] == [200] * CROWD, "who was told comes again, and nobody else was refused"
    told = max(one.ended for one in first if one.ended is not None)
    came = sorted(one.started for one in later)
    assert came[0] - told >= 2.0 - 0.001, "none is early: neither who was told nor who stood behind"
    assert came[-1] - came[0] >= 0.2, "a crowd that comes as one is refused as one"
    assert most_within_a_hundredth(came) < CROWD // 5, "no clot in the middle of it"
    assert came[-1] - told < 5, "nor is one forgotten"
    assert sim.jobs_billed == CROWD


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("0", 0, 1), ("1.5", 1.5, 3), ("junk", 60, 70), ("-5", 60, 70), ("inf", 60, 70), ("nan", 60, 70), ("9" * 400, 60, 70), ("", 60, 70)],
    ids=lambda value: str(value)[:10],
)
async def test_p08_a_429_is_waited_for_as_it_says(sim: Simulator, asked: str, least: float, most: float) -> None:
    sim.script("txt2img", Fault.status(429, {"message": "Too many."}, headers={"Retry-After": asked}))
    async with make_client(sim, limits=Limits.none()) as client:
        await client.call(FOX)
    assert least <= now() <= most


@pytest.mark.parametrize("asked", ["86400", "121", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_p08_a_day_is_told_at_once(sim: Simulator, asked: str) -> None:
    sim.script("txt2img", Fault.status(429, {"message": "Too many."}, headers={"Retry-After": asked}), times=math.inf)
    async with make_client(sim) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.call(FOX)
    assert now() < 1
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 120
    assert caught.value.resets_at is not None
    assert len(seen(sim, "txt2img")) == 1
