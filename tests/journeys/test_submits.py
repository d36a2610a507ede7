"""P1: one submit is one paid job. It is repeated only where the service can't have accepted it."""

import asyncio
import math
import pickle
import time
from typing import Any

import pytest

from dryapi_async import (
    Client,
    ConnectError,
    Img2Img,
    Job,
    RateLimitError,
    Retry,
    ServerError,
    StatusError,
    SubmissionUnknownError,
    Timeouts,
    TransportError,
)
from dryapi_async.events import Attempt, Event
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, edit, make_client, make_sim, seen, sha256

pytestmark = pytest.mark.anyio

UPLOAD = Img2Img(prompt="the same, at night", model="QwenImageEdit_Plus_NF4", steps=20, seed=42, image=PNG)
BILLED = {
    "reset": Fault.reset(),
    "closed": Fault.close(),
    "silence": Fault.hang(),
    "silence, then closed": Fault.hang(seconds=2),
    "not HTTP": Fault.garbage(),
    "reset in the headers": Fault.reset("headers"),
    "closed in the headers": Fault.close("headers"),
    "broken headers": Fault.garbage("headers"),
    "reset in the payload": Fault.reset("payload"),
    "closed in the payload": Fault.close("payload"),
    "silence in the payload": Fault.hang("payload"),
    "truncated payload": Fault.truncate(),
    "undecodable payload": Fault.garbage("payload"),
    "500": Fault.status(500),
    "502 page": Fault.html(502),
    "503": Fault.status(503),
    "504 page": Fault.html(504),
    "524": Fault.status(524, b""),
}
"""The service took the job, the answer was lost."""
UNBILLED = {
    "reset before the body": Fault.reset("before_body"),
    "closed before the body": Fault.close("before_body"),
    "silence before the body": Fault.hang("before_body"),
    "reset in the body": Fault.reset("mid_body"),
    "closed in the body": Fault.close("mid_body"),
    "a proxy's 502 before the body": Fault.html(502, early=True),
    "307": Fault.redirect("http://127.0.0.1:9/elsewhere"),
    "302": Fault.redirect("http://127.0.0.1:9/elsewhere", 302),
    "408": Fault.status(408),
    "425": Fault.status(425),
    "HTML 200": Fault.status(200, "<!doctype html>"),
    "empty 200": Fault.status(200, b""),
    "200 without an id": Fault.status(200, {"data": {}}),
    "200 with an empty id": Fault.status(200, {"data": {"request_id": ""}}),
    "200 with a list": Fault.status(200, []),
}
"""Nothing was taken, but this side can't know."""
REFUSALS = [400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422, 451]


@pytest.mark.parametrize("request_", [FOX, UPLOAD], ids=["JSON", "form"])
@pytest.mark.parametrize(
    ("fault", "billed"), [*[(one, 1) for one in BILLED.values()], *[(one, 0) for one in UNBILLED.values()]], ids=[*BILLED, *UNBILLED]
)
async def test_p01_a_lost_answer_is_unknown_and_never_repeated(sim: Simulator, request_: Any, fault: Fault, billed: int) -> None:
    slug = request_.endpoint.slug
    async with make_client(sim, timeouts=Timeouts(idle=5)) as client:
        sim.script(slug, fault)
        call = client.call(request_)
        with pytest.raises(SubmissionUnknownError) as caught:
            await call
        with pytest.raises(SubmissionUnknownError):
            await call
    assert len(seen(sim, slug)) == 1
    assert sim.jobs_billed == billed
    error = caught.value
    assert (error.operation, error.attempt) == (slug, 1)
    assert error.phase in {"sending", "waiting", "reading", "answered"}
    assert error.cause
    assert error.started_at <= error.failed_at <= time.time()
    assert error.status == (fault.answer.status if fault.answer is not None else error.status)
    assert "may have been accepted and billed" in str(error)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)  # noqa: S301  our own


@pytest.mark.parametrize("phase", ["before_body", "mid_body"])
async def test_p01_what_broke_while_it_was_sent_says_so(sim: Simulator, phase: Any) -> None:
    async with make_client(sim) as client:
        sim.script("img2img", Fault.reset(phase))
        with pytest.raises(SubmissionUnknownError) as caught:
            await edit(client, image=PNG + bytes(30_000_000))
    assert caught.value.phase == "sending"
    assert (len(seen(sim, "img2img")), sim.jobs_billed) == (1, 0)


@pytest.mark.parametrize("status", REFUSALS)
async def test_p01_a_refusal_is_its_own_error_and_isnt_repeated(sim: Simulator, client: Client, status: int) -> None:
    sim.script("img2img", Fault.status(status, {"message": "No."}))
    with pytest.raises(StatusError) as caught:
        await edit(client, image=PNG)
    assert (caught.value.status, caught.value.message) == (status, "No.")
    assert (len(seen(sim, "img2img")), sim.jobs_billed) == (1, 0)


async def test_p01_an_early_refusal_is_read_before_the_body_is_out(sim: Simulator, client: Client) -> None:
    sim.script("img2img", Fault.too_large(early=True))
    with pytest.raises(StatusError) as caught:
        await edit(client, image=PNG + bytes(20_000_000))
    assert caught.value.status == 413
    assert (len(seen(sim, "img2img")), sim.jobs_billed) == (1, 0)


async def test_p01_after_a_429_the_same_bytes_are_sent_again(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.rate_limited(retry_after=2))
    assert isinstance(await client.call(FOX), Job)
    first, second = seen(sim, "txt2img")
    assert first.body_sha256 == second.body_sha256 != ""
    assert second.started - first.started >= 2
    assert sim.jobs_billed == 1


async def test_p01_after_a_429_the_same_form_is_sent_again(sim: Simulator, client: Client) -> None:
    sim.script("img2img", Fault.rate_limited(retry_after=2))
    assert isinstance(await client.call(UPLOAD), Job)
    first, second = seen(sim, "img2img")
    assert first.fields == second.fields != {}
    assert [one.files[0].sha256 for one in (first, second)] == [sha256(PNG)] * 2
    assert first.body_sha256 == second.body_sha256 != ""
    assert sim.jobs_billed == 1


async def test_p01_a_429_is_repeated_as_often_as_said(sim: Simulator) -> None:
    sim.script("txt2img", Fault.rate_limited(retry_after=1), times=math.inf)
    async with make_client(sim, retry=Retry(attempts=1)) as client:
        with pytest.raises(RateLimitError):
            await client.call(FOX)
    assert len(seen(sim, "txt2img")) == 1
    async with make_client(sim) as client:
        with pytest.raises(RateLimitError):
            await client.call(FOX)
    assert len(seen(sim, "txt2img")) == 1 + 4


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.rate_limited("daily"), "daily"),
        (Fault.rate_limited(retry_after=121), "minute"),
        (Fault.rate_limited(retry_after=86_400, headers={"Retry-After": "86400"}), "daily"),
    ],
    ids=["day", "too long", "a day long"],
)
async def test_p01_a_429_that_asks_for_too_much_ends_the_call_at_once(sim: Simulator, client: Client, fault: Fault, kind: str) -> None:
    sim.script("txt2img", fault)
    with pytest.raises(RateLimitError) as caught:
        await client.call(FOX)
    assert asyncio.get_running_loop().time() == 0
    assert caught.value.retry_after is not None
    assert caught.value.resets_at == pytest.approx(time.time() + caught.value.retry_after, abs=5)
    assert caught.value.kind == kind
    assert (len(seen(sim, "txt2img")), sim.jobs_billed) == (1, 0)


async def test_p01_a_refused_connection_is_tried_again_and_nothing_was_sent() -> None:
    async with make_sim() as sim:
        told: list[Event] = []
        async with make_client(sim, on_event=told.append) as client:
            await sim.go_down()
            with pytest.raises(ConnectError) as caught:
                await edit(client, image=PNG)
        attempts = [one for one in told if isinstance(one, Attempt)]
        assert len(attempts) == 4
        assert all(one.status is None for one in attempts)
        assert "nothing was sent" in str(caught.value)
        assert "base_url" in str(caught.value)
        await sim.come_up()
        assert not sim.requests


@pytest.mark.parametrize("request_", [FOX, UPLOAD], ids=["JSON", "form"])
async def test_p01_refused_twice_then_up_is_one_post(request_: Any) -> None:
    async with make_sim() as sim:
        attempts: list[Attempt] = []
        rises: list[asyncio.Task[None]] = []

        def watch(event: Any) -> None:
            if isinstance(event, Attempt):
                attempts.append(event)
                if len(attempts) == 2:
                    rises.append(asyncio.ensure_future(sim.come_up()))

        async with make_client(sim, on_event=watch) as client:
            await sim.go_down()
            job = await client.call(request_)
            await asyncio.gather(*rises)
        assert [one.status for one in attempts] == [None, None, 200]
        assert len(seen(sim, request_.endpoint.slug)) == sim.jobs_billed == 1
        assert list(sim.jobs) == [job.id]


async def test_p01_a_reused_connection_that_closes_is_unknown(sim: Simulator, client: Client) -> None:
    await client.balance()
    sim.drop_reused = True
    with pytest.raises(SubmissionUnknownError):
        await client.call(FOX)
    assert [one.reused for one in seen(sim, "txt2img")] == [True]
    assert sim.jobs_billed == 0


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.close(), Fault.hang(), Fault.truncate(), Fault.html(502)], ids=str)
async def test_p01_a_prompt_tool_is_billed_so_it_isnt_repeated_even_as_a_get(sim: Simulator, fault: Fault) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=5)) as client:
        sim.script("prompts/samples", fault)
        with pytest.raises(SubmissionUnknownError):
            await client.prompt_samples(type="text2image")
        assert len(seen(sim, "prompts/samples")) == sim.jobs_billed == 1


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.close(), Fault.html(502), Fault.status(503), Fault.hang()], ids=str)
async def test_p01_what_costs_nothing_is_read_again(sim: Simulator, fault: Fault) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=5)) as client:
        sim.script("balance", fault, times=3)
        assert (await client.balance()).amount == sim.balance
        assert len(seen(sim, "balance")) == 4
        sim.script("balance", fault, times=4)
        with pytest.raises((ServerError, TransportError), match="balance"):
            await client.balance()
        assert len(seen(sim, "balance")) == 8
