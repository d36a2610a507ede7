"""P2, P3, P32: a wait always ends, on time, and says what it waited for; a dropped read doesn't end it."""

import asyncio
import math
from itertools import pairwise
from typing import Any

import pytest

from dryapi_async import (
    AuthenticationError,
    Client,
    ConfigurationError,
    Image,
    Img2Txt,
    ImgRmbg,
    JobFailedError,
    JobState,
    JobTimeoutError,
    NotFoundError,
    PermissionDeniedError,
    PollingFailedError,
    RateLimitError,
    Retry,
    Timeouts,
)
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, make_client, make_sim, now, seen

pytestmark = pytest.mark.anyio

SILENT = {
    "nothing read": Fault.hang("before_body"),
    "no answer": Fault.hang("after_body"),
    "half the headers": Fault.hang("headers"),
    "half the payload": Fault.hang("payload"),
    "a byte in a while": Fault.trickle(0.2),
}
DROPPED = {
    "reset": Fault.reset(),
    "reset in the headers": Fault.reset("headers"),
    "reset in the payload": Fault.reset("payload"),
    "closed": Fault.close(),
    "502 page": Fault.html(502),
    "500": Fault.status(500),
    "503": Fault.status(503),
    "504 page": Fault.html(504),
    "520 empty": Fault.status(520, b""),
    "408": Fault.status(408),
    "truncated JSON": Fault.truncate(),
    "whole but cut JSON": Fault.status(200, '{"data": {"status": "pro', content_type="application/json"),
    "undecodable JSON": Fault.garbage("payload"),
    "not HTTP": Fault.garbage(),
    "broken headers": Fault.garbage("headers"),
    "HTML 200": Fault.status(200, "<!doctype html><title>Welcome</title>"),
    "empty 200": Fault.status(200, b""),
    "a list": Fault.status(200, [1, 2]),
    "null": Fault.status(200, "null", content_type="application/json"),
    "no status word": Fault.status(200, {"data": {"progress": 5}}),
    "a status of another type": Fault.status(200, {"data": {"status": 3}}),
    "redirect": Fault.redirect("http://127.0.0.1:9/elsewhere"),
    "silence": Fault.hang(),
    "429": Fault.rate_limited(retry_after=2),
    "404 at first": Fault.not_found(),
}


@pytest.mark.parametrize("fault", SILENT.values(), ids=SILENT)
async def test_p02_a_wait_ends_on_time_and_the_job_completes_afterwards(sim: Simulator, client: Client, fault: Fault) -> None:
    job = await client.call(FOX)
    scripted = sim.script("request-status", fault, times=math.inf)
    started = now()
    with pytest.raises(JobTimeoutError) as caught:
        await job.result(timeout=1)
    assert 1.0 <= now() - started <= 1.2
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.request_id, error.ticket) == (job.id, job.ticket)
    assert (error.state, error.progress, error.seconds) == ("pending", None, 1)
    assert error.reads == scripted.used >= 1
    assert job.ticket in str(error)
    assert "wait again" in str(error)
    sim.clear_script()
    assert isinstance(await job.result(timeout=60), Image)
    assert sim.jobs_billed == 1


async def test_p02_the_error_has_the_last_update_and_every_read(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    job = await client.call(FOX)
    sim.set_progress(job.id, 45.5)
    with pytest.raises(JobTimeoutError) as caught:
        await job.result(timeout=30)
    assert (caught.value.state, caught.value.progress) == ("processing", 45.5)
    assert caught.value.reads == len(seen(sim, "request-status")) > 1
    assert "45.5 %" in str(caught.value)


async def test_p02_the_default_wait_is_finite(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    job = await client.call(FOX)
    started = now()
    with pytest.raises(JobTimeoutError):
        await job.result()
    assert 900.0 <= now() - started <= 900.2


async def test_p02_a_wait_for_ever_must_be_written_out(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    job = await client.call(FOX)
    asyncio.get_running_loop().call_later(5000, sim.finish, job.id)
    assert isinstance(await job.result(timeout=None), Image)
    assert 5000 <= now() < 5020


@pytest.mark.parametrize("timeout", [-1, math.nan, "5", True])
async def test_p02_a_time_that_cant_be_waited_for_is_refused(client: Client, timeout: Any) -> None:
    with pytest.raises(ConfigurationError):
        await client.job("txt2img:1").result(timeout=timeout)


async def test_p02_no_time_at_all_ends_at_once(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    started = now()
    with pytest.raises(JobTimeoutError):
        await job.result(timeout=0)
    assert now() == started


async def test_p02_the_deadline_covers_what_a_429_holds_back(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    sim.script("request-status", Fault.rate_limited(retry_after=60), times=math.inf)
    started = now()
    with pytest.raises(JobTimeoutError) as caught:
        await job.result(timeout=5)
    assert 5.0 <= now() - started <= 5.2
    assert caught.value.reads == 1


async def test_p02_the_deadline_covers_the_submit_with_its_repeats(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.rate_limited(retry_after=4), times=math.inf)
    started = now()
    with pytest.raises(RateLimitError):
        await client.call(FOX).result(timeout=6)
    assert now() - started <= 6.2
    assert sim.jobs_billed == 0


async def test_p02_one_deadline_is_over_submit_and_wait(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(3))
    sim.hold("txt2img")
    started = now()
    with pytest.raises(JobTimeoutError):
        await client.call(FOX).result(timeout=5)
    assert 5.0 <= now() - started <= 5.2


async def test_p02_the_deadline_covers_a_text_that_lies_behind_a_link(sim: Simulator, client: Client) -> None:
    sim.script("storage", Fault.hang(), times=math.inf)
    job = await client.call(Img2Txt(image=PNG, model="Nanonets_Ocr_S_F16"))
    started = now()
    with pytest.raises(TimeoutError):
        await job.result(timeout=10)
    assert 10.0 <= now() - started <= 10.2


async def test_p02_each_wait_of_one_job_keeps_its_own_time(sim: Simulator, client: Client) -> None:
    sim.board.duration = 20
    job = await client.call(FOX)
    short, long = asyncio.create_task(job.result(timeout=3)), asyncio.create_task(job.result(timeout=60))
    with pytest.raises(JobTimeoutError):
        await short
    assert 3.0 <= now() <= 3.2
    assert isinstance(await long, Image)


async def test_p03_a_wait_goes_on_through_what_a_bad_hour_brings(sim: Simulator, client: Client) -> None:
    sim.script("request-status", Fault.reset(), Fault.html(502), Fault.truncate(), Fault.rate_limited(retry_after=3))
    image = await client.call(FOX).result(timeout=60)
    assert isinstance(image, Image)
    assert [one.fault for one in seen(sim, "request-status")[:5]] == [
        "reset after_body",
        "status 502",
        "truncate payload",
        "status 429",
        None,
    ]


@pytest.mark.parametrize("fault", DROPPED.values(), ids=DROPPED)
async def test_p03_a_dropped_read_doesnt_end_a_wait(sim: Simulator, fault: Fault) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=5)) as client:
        sim.script("request-status", fault, times=3)
        assert isinstance(await client.call(FOX).result(timeout=120), Image)
    assert [one.fault for one in seen(sim, "request-status")[:3]] == [str(fault)] * 3


async def test_p03_ten_failed_reads_in_a_row_end_a_wait(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    sim.script("request-status", Fault.html(502), times=math.inf)
    with pytest.raises(PollingFailedError) as caught:
        await job.result(timeout=600)
    # One request each: a failed read is repeated by the cadence, never inside.
    assert caught.value.failures == len(seen(sim, "request-status")) == 10
    assert (caught.value.request_id, caught.value.ticket) == (job.id, job.ticket)
    assert "502" in caught.value.cause
    assert "wait for it again" in str(caught.value)
    sim.clear_script()
    assert isinstance(await job.result(timeout=60), Image)


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.status(200, "<p>hello"), Fault.hang(), Fault.status(200, {})], ids=str)
async def test_p03_how_many_failed_reads_end_a_wait_can_be_said(sim: Simulator, fault: Fault) -> None:
    async with make_client(sim, retry=Retry(polls=3), timeouts=Timeouts(idle=5)) as client:
        sim.script("request-status", fault, times=math.inf)
        with pytest.raises(PollingFailedError) as caught:
            await client.call(FOX).result(timeout=600)
    assert caught.value.failures == len(seen(sim, "request-status")) == 3


async def test_p03_a_good_read_starts_the_count_anew(sim: Simulator, client: Client) -> None:
    sim.board.duration = 200
    good = Fault.delay(0)
    sim.script("request-status", *[*[Fault.reset()] * 9, good] * 2)
    assert isinstance(await client.call(FOX).result(timeout=900), Image)
    assert len(seen(sim, "request-status")) >= 20


async def test_p03_a_429_isnt_counted_and_moves_the_next_read(sim: Simulator, client: Client) -> None:
    sim.script("request-status", Fault.rate_limited(retry_after=7), times=12)
    assert isinstance(await client.call(FOX).result(timeout=600), Image)
    starts = [one.started for one in seen(sim, "request-status")]
    assert len(starts) == 13
    assert all(later - earlier >= 7 for earlier, later in pairwise(starts))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.unauthorized(), AuthenticationError),
        (Fault.status(403, {"message": "Your account has been suspended."}), PermissionDeniedError),
        (Fault.status(403, "<h1>Blocked</h1>"), PermissionDeniedError),
    ],
    ids=["401", "403", "403 page"],
)
async def test_p03_what_no_repeat_can_mend_ends_a_wait_at_once(
    sim: Simulator, client: Client, fault: Fault, error: type[Exception]
) -> None:
    job = await client.call(FOX)
    sim.script("request-status", fault, times=math.inf)
    started = now()
    with pytest.raises(error):
        await job.result(timeout=60)
    assert len(seen(sim, "request-status")) == 1
    assert now() - started < 1


async def test_p03_a_days_429_ends_only_waits_that_cant_outlast_it(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    sim.script("request-status", Fault.rate_limited("daily", retry_after=7200))
    short, long = asyncio.create_task(job.result(timeout=600)), asyncio.create_task(job.result(timeout=9000))
    with pytest.raises(RateLimitError) as caught:
        await short
    assert (caught.value.kind, caught.value.retry_after, caught.value.ticket) == ("daily", 7200, job.ticket)
    assert now() < 1
    assert isinstance(await long, Image)
    assert 7200 <= now() <= 9000


async def test_p03_a_failed_job_is_told_with_the_services_words(sim: Simulator, client: Client) -> None:
    sim.variants("status-error-fields")
    sim.script("txt2img", Fault.job_error("WORKER_TIMEOUT", "Worker failed to respond."))
    job = await client.call(FOX)
    with pytest.raises(JobFailedError) as caught:
        await job.result(timeout=60)
    assert (caught.value.code, caught.value.reason, caught.value.ticket) == ("WORKER_TIMEOUT", "Worker failed to respond.", job.ticket)
    with pytest.raises(JobFailedError):
        await job.result(timeout=60)
    assert (await job.status()).state is JobState.ERROR


async def test_p32_404_just_after_the_submit_isnt_not_found(sim: Simulator, client: Client) -> None:
    sim.script("request-status", Fault.not_found(), Fault.not_found())
    assert isinstance(await client.call(FOX).result(timeout=60), Image)
    assert [one.status for one in seen(sim, "request-status")][:3] == [404, 404, 200]


async def test_p32_the_grace_for_404_ends_after_ten_seconds(sim: Simulator, client: Client) -> None:
    sim.script("request-status", Fault.not_found(), times=math.inf)
    with pytest.raises(NotFoundError):
        await client.call(FOX).result(timeout=60)
    assert 10 <= now() <= 14


async def test_p32_an_id_of_another_life_has_no_grace(sim: Simulator, client: Client) -> None:
    with pytest.raises(NotFoundError):
        await client.job("txt2img:00000000-0000-4000-8000-000000000000").result(timeout=60)
    assert len(seen(sim, "request-status")) == 1


async def test_p04_a_ticket_is_all_that_another_client_needs() -> None:
    async with make_sim(duration=30) as sim:
        async with make_client(sim) as first:
            ticket = (await first.call(ImgRmbg(image=PNG, model="Ben2"))).ticket
        async with make_client(sim) as second:
            image = await second.job(ticket, ImgRmbg).result(timeout=60)
            assert (await image.read()).startswith(b"\x89PNG")
        assert len(seen(sim, "img-rmbg")) == sim.jobs_billed == 1


async def test_p02_looking_without_patience_wears_no_reader_out(sim: Simulator) -> None:
    """A read that is cut before its first step was counted as out for ever: after some, nothing was read any more."""
    async with make_client(sim, pool_size=16) as client:
        ticket = (await client.call(FOX)).ticket
        for _ in range(50):
            with pytest.raises(JobTimeoutError):
                await client.job(ticket).result(timeout=0)
        assert isinstance(await client.job(ticket).result(timeout=60), Image)
