"""P1: what the user may say about repeating, what becomes of a lost answer, and how it is found again."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dryapi_async import (
    AuthenticationError,
    Client,
    ConfigurationError,
    ConnectError,
    Image,
    InputError,
    Job,
    Limits,
    NotFoundError,
    PoolTimeoutError,
    Rate,
    RequestTimeoutError,
    Retry,
    ServerError,
    SourceError,
    SubmissionUnknownError,
    Timeouts,
    TransportError,
)
from dryapi_async.events import Event
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, begin, edit, files_in, finish, give_up, make_client, make_sim, now, seen, settle, sha256, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.html(502), Fault.truncate(), Fault.hang()], ids=str)
async def test_resubmit_is_the_users_word_and_may_pay_twice(sim: Simulator, fault: Fault) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=5)) as client:
        sim.script("txt2img", fault)
        assert isinstance(await client.call(FOX, resubmit=True), Job)
        assert (len(seen(sim, "txt2img")), sim.jobs_billed) == (2, 2)
        first, second = seen(sim, "txt2img")
        assert first.body_sha256 == second.body_sha256


async def test_resubmit_ends_in_unknown_and_no_other_error(sim: Simulator) -> None:
    async with make_client(sim, retry=Retry(attempts=3)) as client:
        sim.script("txt2img", Fault.reset(), times=10)
        with pytest.raises(SubmissionUnknownError) as caught:
            await client.call(FOX, resubmit=True)
        assert caught.value.attempt == len(seen(sim, "txt2img")) == 3


async def test_resubmit_doesnt_repeat_what_was_refused(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.unauthorized())
    with pytest.raises(AuthenticationError):
        await client.call(FOX, resubmit=True)
    assert len(seen(sim, "txt2img")) == 1


async def test_a_status_that_the_user_calls_unexecuted_is_sent_again(sim: Simulator) -> None:
    async with make_client(sim, retry=Retry(unexecuted={503, 521})) as client:
        sim.script("txt2img", Fault.html(503, billed=False), Fault.status(521, b"", billed=False))
        assert isinstance(await client.call(FOX), Job)
        assert (len(seen(sim, "txt2img")), sim.jobs_billed) == (3, 1)
        sim.script("img2img", Fault.html(502, billed=True))
        with pytest.raises(SubmissionUnknownError):
            await edit(client, image=PNG)
        sim.script("txt2img", Fault.html(503, billed=False), times=9)
        with pytest.raises(ServerError):
            await client.call(FOX)
        assert len(seen(sim, "txt2img")) == 7


@pytest.mark.parametrize("wrong", [{200}, {429}, {"503"}, 503, "503", [True]])
def test_what_cant_mean_unexecuted_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="unexecuted"):
        Retry(unexecuted=wrong)


async def test_readings_of_a_client_share_a_quota_of_retries(sim: Simulator, client: Client) -> None:
    sim.script("balance", Fault.html(502), times=1000)
    ends = await asyncio.gather(*(client.balance() for _ in range(100)), return_exceptions=True)
    assert all(isinstance(end, ServerError) for end in ends)
    assert len(seen(sim, "balance")) == 200, "500 tokens are 100 retries"
    await asyncio.sleep(60)
    before = len(seen(sim, "balance"))
    with pytest.raises(ServerError):
        await client.balance()
    assert len(seen(sim, "balance")) == before + 1
    sim.clear_script()
    for _ in range(5):
        await client.balance()
    sim.script("balance", Fault.html(502))
    await client.balance()


async def test_a_late_answer_is_found_by_settle(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(20))
    with pytest.raises(SubmissionUnknownError) as caught:
        await client.call(FOX, timeout=5)
    error = caught.value
    assert now() == pytest.approx(5, abs=0.1)
    assert (error.operation, error.phase, error.attempt, len(error.digest)) == ("txt2img", "waiting", 1, 64)
    job = await client.settle(error)
    assert now() == pytest.approx(20, abs=0.1)
    assert job is not None
    assert list(sim.jobs) == [job.id]
    assert client.orphans == (job,)
    assert isinstance(await job.result(), Image)
    assert sim.jobs_billed == 1


async def test_settle_says_where_nothing_is_known(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.reset())
    with pytest.raises(SubmissionUnknownError) as caught:
        await client.call(FOX)
    assert await client.settle(caught.value) is None
    assert len(seen(sim, "txt2img")) == 1


async def test_the_same_request_has_the_same_digest(sim: Simulator, client: Client, tmp_path: Path) -> None:
    digests: list[str] = []
    (tmp_path / "fox.png").write_bytes(PNG)
    for image in (tmp_path / "fox.png", tmp_path / "fox.png", PNG):
        sim.script("img2img", Fault.reset())
        with pytest.raises(SubmissionUnknownError) as caught:
            await edit(client, image=image)
        digests.append(caught.value.digest)
    assert digests[0] == digests[1] != digests[2]


async def test_a_time_out_around_a_submit_that_never_answers(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(10))
    before = now()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.call(FOX)
    assert now() - before == pytest.approx(0.2, abs=0.001)
    await asyncio.sleep(15)
    assert [job.id for job in client.orphans] == list(sim.jobs)


async def test_one_finishers_patience_ends_nobody_elses(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(30))
    call = client.call(FOX)
    short = asyncio.create_task(call.result(timeout=5))
    await settle()
    long = asyncio.create_task(finish(call))
    await asyncio.wait([short])
    assert isinstance(short.exception(), SubmissionUnknownError)
    job = await long
    assert now() == pytest.approx(30, abs=0.1)
    assert sim.jobs_billed == 1
    assert await call is job


async def test_no_patience_at_all_sends_nothing_and_spoils_nothing(sim: Simulator, client: Client) -> None:
    call = client.call(FOX)
    with pytest.raises(RequestTimeoutError, match="Nothing was sent"):
        await call.result(timeout=0)
    await asyncio.sleep(5)
    assert not sim.requests
    assert isinstance(await call, Job)


async def test_p08_a_429_beyond_every_finishers_patience_is_told_at_once(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.rate_limited(retry_after=50))
    call = client.call(FOX)
    first, second = asyncio.create_task(call.result(timeout=10)), asyncio.create_task(call.result(timeout=100))
    await asyncio.wait([first])
    assert isinstance(first.exception(), RequestTimeoutError)
    assert isinstance(await second, Image)


async def test_a_429_that_comes_after_the_caller_left_isnt_repeated() -> None:
    posts: list[float] = []

    async def refuse_late(request: web.Request) -> web.Response:
        posts.append(now())
        await request.read()
        await asyncio.sleep(5)
        return web.json_response({"message": "Too Many Attempts."}, status=429, headers={"Retry-After": "1"})

    app = web.Application()
    app.router.add_post("/api/v1/client/txt2img", refuse_late)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with Client("1|key", base_url=f"http://{host}:{port}") as client:
            task = asyncio.create_task(finish(client.call(FOX)))
            await until(lambda: posts)
            await give_up(task)
            await asyncio.sleep(60)
            assert len(posts) == 1
            assert client.orphans == ()
    finally:
        await runner.cleanup()


async def test_a_request_that_waits_for_a_connection_is_under_the_deadline(sim: Simulator) -> None:
    async with make_client(sim, pool_size=1, max_in_flight=1) as client:
        sim.script("txt2img", Fault.delay(30))
        task = await begin(sim, client.call(FOX))
        before = now()
        with pytest.raises(RequestTimeoutError, match=r"no connection came free.*nothing was sent"):
            await client.call(FOX).price(timeout=0.5)
        assert now() - before == pytest.approx(0.5, abs=0.01)
        with pytest.raises(RequestTimeoutError):
            await client.call(FOX, timeout=0.5)
        await task
        assert len(sim.requests) == 1


async def test_p06_a_pool_time_out_is_told_once_and_not_repeated(sim: Simulator) -> None:
    async with make_client(sim, pool_size=1, max_in_flight=1, timeouts=Timeouts(pool=3)) as client:
        sim.script("txt2img", Fault.delay(30))
        task = await begin(sim, client.call(FOX))
        before = now()
        with pytest.raises(PoolTimeoutError):
            await client.balance()
        assert now() - before == pytest.approx(3, abs=0.01)
        await task


async def test_p32_one_read_of_a_job_just_made_here_has_the_grace(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    sim.script("request-status", Fault.not_found(), Fault.not_found())
    assert (await job.status()).source == "read"
    sim.script("request-status", Fault.not_found(), Fault.not_found())
    assert isinstance(await client.job(job.ticket).result(), Image)
    sim.script("request-status", Fault.not_found())
    await asyncio.sleep(20)
    with pytest.raises(NotFoundError):
        await job.status()


async def test_a_hook_that_raises_cancelled_error_cuts_no_payment(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    def cancel(_: Event) -> None:
        raise asyncio.CancelledError

    async with make_client(sim, on_event=cancel) as client:
        with caplog.at_level(logging.CRITICAL, "dryapi_async"):
            assert isinstance(await client.call(FOX).result(), Image)
    assert sim.jobs_billed == 1


def test_a_hook_that_would_never_be_awaited_is_refused() -> None:
    async def hook(_: Event) -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match="on_event must be a plain function"):
        Client("1|key", on_event=hook)


async def test_a_given_sessions_trace_that_breaks_loses_no_payment_silently(sim: Simulator) -> None:
    async def break_it(*_: object) -> None:
        raise RuntimeError("a trace of the user's own")

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(break_it)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session, make_client(sim, session=session) as client:
        with pytest.raises(SubmissionUnknownError, match="a trace of the user's own"):
            await client.call(FOX)
        assert sim.jobs_billed == 1
        with pytest.raises(TransportError):
            await client.balance()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (InputError, {"path": b"x.png"}),
        (InputError, {"path": ""}),
        (InputError, {"path": "x.png", "format": "tiff"}),
        (InputError, {"path": "x.png", "max_bytes": 0}),
        (ConfigurationError, {"path": "x.png", "poll": -1}),
        (ConfigurationError, {"path": "x.png", "poll": float("inf")}),
        (ConfigurationError, {"path": "x.png", "poll": False}),
        (ConfigurationError, {"path": "x.png", "timeout": "5"}),
        (FileNotFoundError, {"path": "nowhere/x.png"}),
    ],
)
async def test_what_cant_be_saved_is_refused_before_it_is_paid_for(
    sim: Simulator, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], wrong: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind):
        await client.call(FOX).save(**wrong)
    assert not sim.requests
    assert files_in(tmp_path) == []


async def test_max_bytes_holds_for_the_whole_way(sim: Simulator, client: Client, tmp_path: Path) -> None:
    image = await client.call(FOX).save(tmp_path / "fox.png", max_bytes=10_000_000)
    size = image.stat().st_size
    job = await client.call(FOX)
    with pytest.raises(Exception, match=r"max_bytes"):
        await job.save(tmp_path / "other.png", max_bytes=size - 1)
    assert files_in(tmp_path) == ["fox.png"]


async def test_a_missing_file_is_told_before_a_long_wait(tmp_path: Path) -> None:
    async with make_sim() as sim, make_client(sim, limits=Limits(lanes={"img2img": Rate(1, 600.0)})) as client:
        await edit(client, image=PNG)
        before = now()
        with pytest.raises(SourceError):
            await edit(client, image=tmp_path / "missing.png")
        assert now() - before < 1
        (tmp_path / "fox.png").write_bytes(PNG)
        await edit(client, image=tmp_path / "fox.png")
        assert seen(sim, "img2img")[1].files[0].sha256 == sha256(PNG)


async def test_p01_refused_twice_then_up_is_one_post() -> None:
    async with make_sim() as sim, make_client(sim) as client:
        await sim.go_down()
        task = asyncio.create_task(finish(client.call(FOX)))
        await asyncio.sleep(0.1)
        await sim.come_up()
        assert isinstance(await task, Job)
        assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1
        await sim.go_down()
        with pytest.raises(ConnectError):
            await client.call(FOX)
        await sim.come_up()


async def test_cancelled_submits_release_everything(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(3), times=50)
    tasks = [asyncio.create_task(finish(client.call(FOX))) for _ in range(50)]
    await until(lambda: len(seen(sim, "txt2img")) >= 16)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(10)
    assert {job.id for job in client.orphans} == set(sim.jobs)
    assert isinstance(await client.call(FOX), Job)
