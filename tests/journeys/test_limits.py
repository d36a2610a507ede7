"""P7: the client stays under the account's limits by itself, one limiter for all tasks."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dryapi_async import Client, ConfigurationError, Limits, Rate, RateLimitError, RequestTimeoutError, Retry, Txt2Img
from dryapi_async.events import Event, RateLimited
from dryapi_async.io.pacing import Pacing
from dryapi_async.protocol.replies import next_midnight
from dryapi_async.simulator import Fault, Received, Simulator

from ..conftest import FOX, PNG, begin, edit, finish, give_up, make_client, make_sim, now, seen, until

pytestmark = pytest.mark.anyio


def times(sim: Simulator, slug: str) -> list[float]:
    return sorted(one.started for one in seen(sim, slug))


def refused(sim: Simulator) -> list[Received]:
    return [one for one in sim.requests if one.status == 429]


def most_within(moments: list[float], seconds: float) -> int:
    return max(sum(moment <= other < moment + seconds for other in moments) for moment in moments)


async def submit_all(client: Client, count: int) -> None:
    await asyncio.gather(*(client.call(FOX) for _ in range(count)))


@pytest.mark.parametrize("window", ["fixed", "sliding"])
async def test_p07_five_hundred_submits_at_sixty_in_ten_seconds(window: Any) -> None:
    async with (
        make_sim(limits={"txt2img": (60, 10.0)}, window=window) as sim,
        make_client(sim, limits=Limits(lanes={"txt2img": Rate(60, 10.0)})) as client,
    ):
        await submit_all(client, 500)
        sent = times(sim, "txt2img")
        assert refused(sim) == []
        assert len(sent) == sim.jobs_billed == 500
        assert sent[-1] - sent[0] < 83
        assert most_within(sent, 10) == 60
        assert sent[59] - sent[0] < 1, "no spacing: what fits goes at once"


@pytest.mark.parametrize("window", ["fixed", "sliding"])
async def test_p07_slow_answers_and_slow_uploads_change_nothing(window: Any) -> None:
    async with (
        make_sim(limits={"txt2img": (20, 10.0)}, window=window) as sim,
        make_client(sim, limits=Limits(lanes={"txt2img": Rate(20, 10.0)})) as client,
    ):
        sim.script("txt2img", *[Fault.delay(seconds) for seconds in (0.1, 3, 9.9, 0.5)], probability=0.7)
        await submit_all(client, 120)
        assert refused(sim) == []
        assert sim.jobs_billed == 120


async def test_p07_the_headers_teach_what_was_guessed() -> None:
    async with make_sim(limits={"txt2img": (5, 60.0)}) as limited, make_client(limited, max_in_flight=2) as client:
        await submit_all(client, 20)
        assert refused(limited) == []
        assert times(limited, "txt2img")[-1] - times(limited, "txt2img")[0] < 185


async def test_p07_what_the_user_said_isnt_replaced_by_headers() -> None:
    async with (
        make_sim(limits={"txt2img": (50, 60.0)}) as sim,
        make_client(sim, limits=Limits(lanes={"txt2img": Rate(2, 10.0)})) as client,
    ):
        await submit_all(client, 5)
        assert most_within(times(sim, "txt2img"), 10) == 2


@pytest.mark.parametrize("said", ["0", "9" * 5000], ids=["nothing", "five thousand digits"])
@pytest.mark.parametrize("name", ["X-RateLimit-Limit", "X-RateLimit-Daily-Limit", "X-RateLimit-Remaining"])
async def test_p07_a_header_that_is_no_limit_loses_no_job_and_stops_nothing(name: str, said: str) -> None:
    async with make_sim(limits={"txt2img": (300, 60.0), "status": (50, 60.0)}) as sim, make_client(sim) as client:
        made = await client.call(FOX)
        sim.script("txt2img", Fault.status(200, {"data": {"request_id": made.id}}, headers={name: said}, billed=True))
        told = {"data": {"status": "processing", "progress": 1}}
        sim.script("request-status", Fault.status(200, told, headers={name: said}))
        job = await client.call(FOX)
        assert job.id == made.id
        await job.result(timeout=100)
        lanes = client.stats().lanes
        assert (lanes["txt2img"].limit, lanes["status"].limit) == (300, 50)
        await client.call(FOX, timeout=100)


async def test_p07_without_headers_nothing_is_held_back() -> None:
    async with make_sim(limit_headers=False) as sim, make_client(sim) as client:
        await submit_all(client, 700)
        assert times(sim, "txt2img")[-1] - times(sim, "txt2img")[0] < 1


async def test_p07_one_429_holds_everyone_in_its_lane_back_and_nobody_else(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=4) as client:
        sim.script("txt2img", Fault.rate_limited(retry_after=30))
        others = asyncio.gather(*(client.call(FOX) for _ in range(40)))
        await asyncio.sleep(1)
        first = len(seen(sim, "txt2img"))
        assert first <= 4
        await edit(client, image=PNG)
        await client.balance()
        assert now() < 2
        await others
        sent = times(sim, "txt2img")
        assert sent[first] - sent[0] >= 30
        assert len(refused(sim)) == 1
        assert sent[first + 20] - sent[first] > 0.2, "a crowd that was held back doesn't come as one"


async def test_p07_four_transcriptions_share_one_lane() -> None:
    async with make_sim(limits={"whisper": (1, 60.0)}) as sim, make_client(sim, limits=Limits(lanes={"whisper": Rate(1, 60.0)})) as client:
        url = "https://www.youtube.com/watch?v=abc"
        await asyncio.gather(
            client.vid2txt(video_url=url, include_ts=True, model="WhisperLargeV3"),
            client.aud2txt(audio_url="https://x.com/i/spaces/1abc", include_ts=True, model="WhisperLargeV3"),
        )
        assert refused(sim) == []
        assert now() >= 60


async def test_p07_one_pot_for_everything() -> None:
    async with make_sim(shared=(30, 60.0)) as sim, make_client(sim, limits=Limits.shared(30)) as client:
        await asyncio.gather(*(call.result(timeout=3600) for call in [client.call(FOX) for _ in range(40)]))
        assert refused(sim) == []
        moments = sorted(one.started for one in sim.requests)
        assert most_within(moments, 60) <= 30


async def test_basic_queues_and_says_so() -> None:
    told: list[Event] = []
    async with make_sim(tier="basic") as sim, make_client(sim, limits=Limits.basic(), on_event=told.append) as client:
        await asyncio.gather(*(edit(client, image=PNG) for _ in range(3)))
        waits = [event for event in told if isinstance(event, RateLimited)]
        assert [event.lane for event in waits] == ["img2img"] * 2
        assert sorted(event.seconds for event in waits) == pytest.approx([60, 120], abs=1)
        assert refused(sim) == []
        assert times(sim, "img2img")[-1] == pytest.approx(120, abs=2)


async def test_the_sixteenth_of_a_day_is_told_at_once() -> None:
    async with make_sim(tier="basic") as sim, make_client(sim, limits=Limits.basic()) as client:
        for _ in range(15):
            await edit(client, image=PNG)
        before = now()
        with pytest.raises(RateLimitError) as caught:
            await edit(client, image=PNG)
        error = caught.value
        assert now() == before
        assert (error.kind, error.lane, error.status) == ("daily", "img2img", 429)
        assert error.resets_at == pytest.approx(next_midnight(sim.now()), abs=30)
        assert "wasn't sent" in str(error)
        assert len(seen(sim, "img2img")) == 15


async def test_the_sixteenth_of_a_day_doesnt_queue_behind_fifteen() -> None:
    async with make_sim(tier="basic") as sim, make_client(sim, limits=Limits.basic()) as client:
        ends = asyncio.gather(*(edit(client, image=PNG) for _ in range(16)), return_exceptions=True)
        await asyncio.sleep(5)
        last = asyncio.create_task(finish(edit(client, image=PNG)))
        await asyncio.wait([last])
        assert isinstance(last.exception(), RateLimitError)
        assert now() < 6
        assert sum(isinstance(end, RateLimitError) for end in await ends) == 1
        assert sim.jobs_billed == 15


async def test_the_days_limit_starts_anew_at_midnight() -> None:
    rates = (Rate(1, 1.0), Rate(2, 86_400.0))
    async with make_sim() as sim, make_client(sim, limits=Limits(lanes={"txt2img": rates})) as client:
        for _ in range(2):
            await client.call(FOX)
        with pytest.raises(RateLimitError) as caught:
            await client.call(FOX)
        assert caught.value.resets_at is not None
        await asyncio.sleep(caught.value.resets_at - sim.now() + 1)
        await client.call(FOX)
        assert sim.jobs_billed == 3


async def test_a_days_429_of_the_service_closes_the_lane(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.rate_limited("daily"))
    for _ in range(3):
        with pytest.raises(RateLimitError) as caught:
            await client.call(FOX)
        assert caught.value.kind == "daily"
    assert len(seen(sim, "txt2img")) == 1
    await edit(client, image=PNG)


async def test_a_guess_about_a_day_stops_nobody() -> None:
    """The headers tell the minute's limit here, and nothing of a day's."""
    async with make_sim(limits={"status": (1000, 60.0)}) as sim, make_client(sim) as client:
        job = await client.call(FOX)
        for _ in range(200):
            await job.status()
        assert now() < 400


async def test_with_sixteen_submits_in_a_slow_lane_a_download_starts_at_once() -> None:
    limits = Limits(lanes={"img2img": Rate(1, 600.0)})
    async with make_sim() as sim, make_client(sim, limits=limits) as client:
        image = await client.call(FOX).result()
        waiting = [asyncio.create_task(finish(edit(client, image=PNG))) for _ in range(17)]
        await until(lambda: seen(sim, "img2img"))
        await asyncio.sleep(5)
        before = now()
        assert await image.read()
        assert now() == before
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_who_waits_in_a_lane_goes_in_order_and_leaves_no_trace() -> None:
    async with make_sim() as sim, make_client(sim, limits=Limits(lanes={"txt2img": Rate(1, 10.0)})) as client:
        tasks = [asyncio.create_task(finish(client.call(Txt2Img(**{**_fields(), "seed": seed})))) for seed in range(5)]
        await asyncio.sleep(1)
        await give_up(tasks[1])
        await give_up(tasks[3])
        await asyncio.gather(tasks[0], tasks[2], tasks[4])
        assert [one.fields["seed"] for one in seen(sim, "txt2img")] == [0, 2, 4]
        assert now() == pytest.approx(20, abs=0.2)


def _fields() -> dict[str, Any]:
    return {"prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 192, "steps": 4}


async def test_the_deadline_covers_the_queue_and_nothing_is_sent() -> None:
    async with make_sim() as sim, make_client(sim, limits=Limits(lanes={"txt2img": Rate(1, 60.0), "prices": Rate(1, 60.0)})) as client:
        await client.call(FOX)
        await client.call(FOX).price()
        with pytest.raises(RequestTimeoutError, match=r"lane txt2img.*Nothing was sent"):
            await client.call(FOX, timeout=5)
        assert now() == pytest.approx(5, abs=0.1)
        with pytest.raises(RequestTimeoutError, match=r"lane prices.*Nothing was sent"):
            await client.call(FOX).price(timeout=5)
        assert now() == pytest.approx(10, abs=0.1)
        late = client.call(FOX, timeout=5)
        with pytest.raises(RequestTimeoutError):
            await late
        await asyncio.sleep(55)
        await late
        assert sim.jobs_billed == 2


async def test_a_place_that_waits_for_a_slot_is_lent_to_others() -> None:
    async with make_sim() as sim, make_client(sim, limits=Limits(pot=Rate(12, 60.0)), max_in_flight=1) as client:
        sim.script("txt2img", Fault.delay(50))
        first = await begin(sim, client.call(FOX))
        rest = [asyncio.create_task(finish(client.call(FOX))) for _ in range(11)]
        await asyncio.sleep(1)
        before = now()
        await client.balance()
        assert now() == before, "eleven places wait for a slot, and are of use to nobody"
        await asyncio.gather(first, *rest)
        assert most_within(sorted(one.started for one in sim.requests), 60) <= 12


async def test_a_429_that_comes_while_others_wait_for_a_slot_holds_them_back(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=1) as client:
        sim.script("txt2img", Fault.rate_limited(retry_after=20))
        await submit_all(client, 10)
        assert len(refused(sim)) == 1
        assert times(sim, "txt2img")[1] - times(sim, "txt2img")[0] >= 20


async def test_the_next_life_of_a_client_remembers_its_lanes() -> None:
    limits = Limits(lanes={"txt2img": Rate(2, 60.0)}, pot=Rate(3, 60.0))
    first = Pacing(limits, 16, tell=_ignore, wall=time.time)
    for number in range(2):
        await first.enter(first.find("txt2img"), "POST txt2img", number)
    second = Pacing(limits, 16, tell=_ignore, wall=time.time, before=first)
    assert second.must_wait("txt2img", slot=False)
    assert await second.enter(second.find("img2img"), "POST img2img", 1) == 0
    assert second.must_wait("img2img", slot=False)
    await asyncio.sleep(60.1)
    assert not second.must_wait("txt2img", slot=False)


def _ignore(lane: str, seconds: float) -> None:
    """Listen to nothing."""


async def test_limits_of_a_lane_that_doesnt_exist_are_refused(sim: Simulator) -> None:
    with pytest.raises(ConfigurationError, match=r"no lane 'txt2image'.*txt2img"):
        make_client(sim, limits=Limits(lanes={"txt2image": Rate(3)}))
    for wrong in (5, "basic", Rate(3)):
        with pytest.raises(ConfigurationError, match="limits must be Limits"):
            make_client(sim, limits=wrong)


async def test_the_environment_says_the_limits(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYAPI_LIMITS", "basic")
    assert make_client(sim).settings.limits == Limits.basic()
    assert make_client(sim, limits=Limits.none()).settings.limits == Limits.none()


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_attempts_count_429s_and_no_queue(attempts: int) -> None:
    async with (
        make_sim() as sim,
        make_client(sim, retry=Retry(attempts=attempts), limits=Limits(lanes={"txt2img": Rate(1, 1.0)})) as client,
    ):
        await submit_all(client, 10)
        sim.script("txt2img", Fault.rate_limited(retry_after=1), times=10)
        with pytest.raises(RateLimitError):
            await client.call(FOX)
        assert len(refused(sim)) == attempts


async def check_cancelled(work: Callable[[], Awaitable[object]]) -> None:
    """Cancel work in its queue."""
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.5)
    await give_up(task)


async def test_cancelled_readings_give_their_place_back() -> None:
    async with make_sim() as sim, make_client(sim, limits=Limits(lanes={"prices": Rate(1, 10.0)})) as client:
        await client.call(FOX).price()
        for _ in range(5):
            await check_cancelled(lambda: client.call(FOX).price())
        await client.call(FOX).price()
        assert now() == pytest.approx(10, abs=0.2)
        assert len(seen(sim, "txt2img/price-calculation")) == 2
