"""P23: however many jobs are waited for, their reads keep to one budget."""

import asyncio
import time
from itertools import pairwise
from statistics import mean

import pytest

from dryapi_async import Client, Limits, Rate, Txt2Img
from dryapi_async.config import DAY_SECONDS
from dryapi_async.simulator import Simulator

from ..conftest import FOX, make_client, make_sim, now, seen

pytestmark = pytest.mark.anyio


def reads_of(sim: Simulator) -> list[float]:
    return sorted(one.started for one in seen(sim, "request-status"))


def most_within(moments: list[float], seconds: float) -> int:
    return max(sum(moment <= other < moment + seconds for other in moments) for moment in moments)


async def wait_for_all(client: Client, count: int, request: Txt2Img = FOX) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(client.call(request).result(timeout=None))


async def test_p23_five_hundred_waits_share_ten_reads_a_second() -> None:
    async with (
        make_sim(limits={"status": (10, 1.0)}, window="sliding", duration=30.0) as sim,
        make_client(sim, limits=Limits(lanes={"status": Rate(10, 1.0)}), max_in_flight=64) as client,
    ):
        await wait_for_all(client, 500)
        reads = reads_of(sim)
        assert [one for one in sim.requests if one.status == 429] == []
        assert most_within(reads, 1.0) <= 10
        assert sim.jobs_billed == 500
        # 500 jobs need 500 reads at the least, and before they are done each may be looked at once or twice.
        assert len(reads) <= 1500
        assert now() < 30 + 500 / 10 + 30


async def test_p23_no_job_starves() -> None:
    async with (
        make_sim(limits={"status": (10, 1.0)}, duration=120.0) as sim,
        make_client(sim, limits=Limits(lanes={"status": Rate(10, 1.0)}), max_in_flight=64) as client,
    ):
        await wait_for_all(client, 200)
        reads: dict[str, list[float]] = {}
        for one in seen(sim, "request-status"):
            reads.setdefault(one.path, []).append(one.started)
        assert len(reads) == 200
        longest = max(later - sooner for moments in reads.values() for sooner, later in pairwise(moments))
        assert longest < 40, "two hundred jobs at ten reads a second: twenty seconds for all"


async def test_p23_the_users_own_interval_wins_and_stays_on_the_budget() -> None:
    async with (
        make_sim(limits={"status": (10, 1.0)}, window="sliding", duration=10.0) as sim,
        make_client(sim, limits=Limits(lanes={"status": Rate(10, 1.0)}), poll=0) as client,
    ):
        await wait_for_all(client, 2)
        assert [one for one in sim.requests if one.status == 429] == []
        assert most_within(reads_of(sim), 1.0) <= 10
        assert len(reads_of(sim)) > 90, "asked to read as fast as the account allows; else two jobs are read some twenty times"


async def test_p23_what_is_learned_saves_reads() -> None:
    # In 12 s a job of which nothing is known is read some twelve times; one of a kind that is known, some six times.
    async with make_sim(duration=12.0) as sim, make_client(sim, limits=Limits.none()) as client:
        for _ in range(30):
            await client.call(FOX).result()
        paths = [one.path for one in seen(sim, "request-status")]
        counts = [paths.count(path) for path in dict.fromkeys(paths)]
        assert mean(counts[:5]) > 10
        assert mean(counts[-10:]) < 8
        other = Txt2Img(prompt="a fox", model="ZImageTurbo_INT8", width=256, height=192, steps=4, seed=7)
        sim.requests.clear()
        await client.call(other).result()
        assert len(seen(sim, "request-status")) > 10, "another model is another kind"


@pytest.mark.parametrize("hour", [0, 12, 17, 21])
async def test_p23_a_days_reads_last_for_a_days_jobs(hour: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred jobs of a minute each, one after the other from some hour on: two hundred reads are enough, and no wait stalls."""
    real = time.time
    ahead = hour * 3600.0 - real() % DAY_SECONDS
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    async with (
        make_sim(limits={"status": (50, 60.0, 200)}, duration=60.0) as sim,
        make_client(sim, limits=Limits(lanes={"status": (Rate(50, 60.0), Rate(200, DAY_SECONDS))})) as client,
    ):
        late: list[float] = []
        for _ in range(100):
            began = now()
            await client.call(FOX).result()
            late.append(now() - began - 60)
            await asyncio.sleep(1)
        assert len(reads_of(sim)) <= 200
        assert max(late) < 200
        assert mean(late) < 60


async def test_p23_a_guessed_day_slows_reads_and_refuses_nothing() -> None:
    """``Limits.auto`` guesses 150 reads a day. Where the service says nothing of a day, the guess goes."""
    async with make_sim(duration=5.0) as sim, make_client(sim) as client:
        for _ in range(12):
            await asyncio.gather(*(client.call(FOX).result(timeout=None) for _ in range(16)))
        assert sim.jobs_billed == 192
        assert len(reads_of(sim)) > 192
        assert now() < 12 * 30
