"""P1 before a second witness: mitmproxy stands between client and service, does the faults itself, and counts by itself.

mitmdump runs in a virtual environment of its own, since it pins its libraries; DRYAPI_MITMDUMP names it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import (
    AuthenticationError,
    Client,
    ConnectError,
    DryAPIError,
    Image,
    Job,
    PayloadTooLargeError,
    PromptImage,
    ResponseError,
    ServerError,
    SubmissionUnknownError,
    TransportError,
)

from ..conftest import FOX, PNG, edit, files_in, seen, sha256, until
from .conftest import (
    MITMDUMP,
    PATIENCE_SECONDS,
    WAYS,
    Witness,
    free_ports,
    way_through,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.processes,
    pytest.mark.skipif(
        MITMDUMP is None, reason="mitmdump isn't here: DRYAPI_MITMDUMP names it (pip install mitmproxy, in an environment of its own)"
    ),
]

PHOTO = PNG + os.urandom(64_000)


@pytest.fixture
def anyio_backend() -> str:
    """The real clock: mitmdump has no other."""
    return "asyncio"


async def submit(client: Client) -> Job[Image]:
    return await client.call(FOX)


async def upload(client: Client) -> Job[Image]:
    return await edit(client, image=PHOTO)


async def sample(client: Client) -> Any:
    return await client.prompt_samples(type="text2image")


async def improve(client: Client) -> Any:
    return await client.call(PromptImage(prompt="a fox in snow"))


PAYING: dict[str, tuple[str, Callable[[Client], Awaitable[Any]]]] = {"txt2img": ("/txt2img", submit), "img2img": ("/img2img", upload)}

# What the witness does: whether the request reaches the service, and the error. None of these is ever sent twice.
ONE_POST: dict[str, tuple[bool, type[DryAPIError]]] = {
    "killed in its headers": (False, SubmissionUnknownError),
    "killed before it went on": (False, SubmissionUnknownError),
    "killed at the answer's headers": (True, SubmissionUnknownError),
    "killed after": (True, SubmissionUnknownError),
    "500 before": (False, SubmissionUnknownError),
    "502 before": (False, SubmissionUnknownError),
    "502 after": (True, SubmissionUnknownError),
    "503 after": (True, SubmissionUnknownError),
    "504 after": (True, SubmissionUnknownError),
    "307 before": (False, SubmissionUnknownError),
    "307 after": (True, SubmissionUnknownError),
    "half the JSON": (True, SubmissionUnknownError),
    "no JSON": (True, SubmissionUnknownError),
    "nothing": (True, SubmissionUnknownError),
    "fewer bytes than promised": (True, SubmissionUnknownError),
    "late": (True, SubmissionUnknownError),
    "401 before": (False, AuthenticationError),
    "413 before": (False, PayloadTooLargeError),
}


@pytest.mark.parametrize("fault", ONE_POST)
@pytest.mark.parametrize("slug", PAYING)
@pytest.mark.parametrize("way", WAYS)
async def test_p01_before_a_witness_a_lost_answer_is_one_post(witness: Witness, way: str, slug: str, fault: str) -> None:
    reaches, expected = ONE_POST[fault]
    path, act = PAYING[slug]
    async with way_through(witness, way, fault) as (sim, client):
        plan = witness.plan(path, fault)
        with pytest.raises(expected) as caught:
            await act(client)
        assert type(caught.value) is expected
        saw = witness.saw(plan)
        assert [(one["method"], one["fault"]) for one in saw.requests] == [("POST", fault)]
        assert (len(sim.requests), sim.jobs_billed) == (reaches, reaches)
        if reaches:
            assert saw.bodies[0]["sha256"] == sim.requests[0].body_sha256


@pytest.mark.parametrize("slug", PAYING)
@pytest.mark.parametrize("way", WAYS)
async def test_p01_before_a_witness_the_same_bytes_come_again_after_a_429(witness: Witness, way: str, slug: str) -> None:
    path, act = PAYING[slug]
    async with way_through(witness, way) as (sim, client):
        plan = witness.plan(path, "429 before", times=2)
        assert (await act(client)).id in sim.jobs
        saw = witness.saw(plan)
        assert [one["fault"] for one in saw.requests] == ["429 before", "429 before", None]
        assert len({tuple(one["files"]) if one["files"] else one["sha256"] for one in saw.bodies}) == 1
        assert (len(sim.requests), sim.jobs_billed) == (1, 1)


@pytest.mark.parametrize("fault", ["killed before it went on", "killed after", "504 after", "no JSON", "late"])
async def test_p01_before_a_witness_a_prompt_tool_is_billed_once(witness: Witness, fault: str) -> None:
    async with way_through(witness, "a proxy", fault) as (sim, client):
        plan = witness.plan("/prompt", fault)
        for act in (improve, sample):
            before = len(witness.saw(plan).requests), len(sim.requests)
            with pytest.raises(SubmissionUnknownError):
                await act(client)
            assert len(witness.saw(plan).requests) == before[0] + 1
            assert len(sim.requests) == sim.jobs_billed == before[1] + (fault != "killed before it went on")


@pytest.mark.parametrize("way", WAYS)
async def test_p09_a_witness_sees_the_files_own_bytes(witness: Witness, way: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PNG + os.urandom(10_000_000))
    async with way_through(witness, way) as (sim, client):
        plan = witness.plan()
        await edit(client, image=path)
        (body,) = witness.saw(plan).bodies
        assert body["files"] == [sha256(path)] == [sim.requests[0].files[0].sha256]
        assert body["scheme"] == ("https" if way == "a tunnel" else "http")
        assert sim.jobs_billed == 1


async def balance(client: Client) -> Any:
    return await client.balance()


async def read_balance(client: Client, job: Job[Image]) -> Any:
    return await balance(client)


async def read_status(client: Client, job: Job[Image]) -> Any:
    return await job.status()


async def ask_price(client: Client, job: Job[Image]) -> Any:
    return await client.call(FOX).price()


READING: dict[str, tuple[str, Callable[[Client, Job[Image]], Awaitable[Any]]]] = {
    "balance": ("/balance", read_balance),
    "request-status": ("/request-status", read_status),
    "txt2img/price-calculation": ("/txt2img/price-calculation", ask_price),
}
AGAIN = ("killed in its headers", "killed before it went on", "killed after", "502 before", "504 after", "half the JSON", "no JSON", "late")


@pytest.mark.parametrize("fault", AGAIN)
@pytest.mark.parametrize("slug", READING)
async def test_p01_before_a_witness_a_reading_is_made_again(witness: Witness, slug: str, fault: str) -> None:
    path, act = READING[slug]
    async with way_through(witness, "a proxy", fault) as (sim, client):
        witness.plan()
        job = await submit(client)
        plan, before = witness.plan(path, fault, times=1), len(sim.requests)
        assert await act(client, job)
        assert [one["fault"] for one in witness.saw(plan).requests] == [fault, None]
        assert len(sim.requests) - before == (1 if fault.endswith(("before", "on", "its headers")) else 2)
        assert sim.jobs_billed == 1


@pytest.mark.parametrize(
    ("fault", "expected"), {"killed after": TransportError, "502 before": ServerError, "no JSON": ResponseError}.items()
)
async def test_p01_before_a_witness_a_reading_is_made_four_times(witness: Witness, fault: str, expected: type[DryAPIError]) -> None:
    async with way_through(witness, "a front") as (_, client):
        plan = witness.plan("/balance", fault)
        with pytest.raises(expected):
            await client.balance()
        assert len(witness.saw(plan).requests) == 4


@pytest.mark.parametrize("fault", ["killed after", "502 after", "cut in its middle", "late", None])
@pytest.mark.parametrize("way", ["a proxy", "a tunnel"])
async def test_p28_a_download_goes_through_the_witness_whole(witness: Witness, way: str, fault: str | None, tmp_path: Path) -> None:
    async with way_through(witness, way, fault, result_size=3_000_000) as (_, client):
        witness.plan()
        job = await submit(client)
        image = await job.result()
        plan = witness.plan("/results/", fault, times=1)
        saved = await image.save(tmp_path / "fox.png")
        saw = witness.saw(plan)
        assert [one["fault"] for one in saw.requests] == [None] if fault is None else [fault, None]
        assert saw.answers[0]["sha256"] == sha256(saved)
        assert saved.stat().st_size == 3_000_000
        assert files_in(tmp_path) == ["fox.png"]


@pytest.mark.parametrize("way", ["a proxy", "a tunnel"])
async def test_p28_the_witness_sees_all_that_the_service_gets(witness: Witness, way: str, tmp_path: Path) -> None:
    """API, uploads, the socket and downloads from the other origin; in a tunnel the private CA is the witness's own."""
    async with way_through(witness, way, push=True) as (sim, client):
        plan = witness.plan()
        job = await upload(client)
        async with asyncio.timeout(PATIENCE_SECONDS):
            image = await job.result()
            await until(lambda: sim.push.subscribed)
        await image.save(tmp_path / "fox.png")
        saw = [one["path"] for one in witness.saw(plan).requests]
        assert sorted(saw) == sorted(one.path for one in (*sim.requests, *sim.storage_requests))
        assert {one.operation for one in sim.requests} >= {"img2img", "push", "broadcasting/auth"}
        assert len(sim.storage_requests) == 1
        assert sim.storage_url != sim.url


@pytest.mark.parametrize("way", WAYS)
async def test_p01_a_witness_that_cant_reach_the_service(witness: Witness, way: str) -> None:
    """What the witness answers itself is an answer; where it refuses the tunnel, nothing of the request left.

    As a front it closes a connection as soon as it can't dial the service. Under load that comes before the request's first byte, and
    then nothing left on that connection, so that the client may try another.
    """
    async with way_through(witness, way) as (sim, client):
        plan = witness.plan()
        await sim.go_down()
        wrong = {"a proxy": SubmissionUnknownError, "a front": (SubmissionUnknownError, ConnectError), "a tunnel": ConnectError}[way]
        with pytest.raises(wrong):
            await submit(client)
        saw = witness.saw(plan)
        connections, posts = {"a proxy": ({1}, 1), "a front": ({1, 2, 3, 4}, 0), "a tunnel": ({4}, 0)}[way]
        assert len(saw.connections) in connections
        assert saw.posts() == posts
        await sim.come_up()
        await submit(client)
        assert (len(seen(sim, "txt2img")), sim.jobs_billed) == (1, 1)


async def test_p01_what_has_no_body_isnt_sent_into_a_refused_tunnel_either(witness: Witness) -> None:
    async with way_through(witness, "a tunnel") as (sim, client):
        witness.plan()
        await sim.go_down()
        for act in (sample, balance):
            with pytest.raises(ConnectError):
                await act(client)


async def test_p01_without_the_witness_nothing_is_sent(witness: Witness) -> None:
    (nobody,) = free_ports(1)
    async with way_through(witness, "a proxy", proxy=f"http://127.0.0.1:{nobody}") as (sim, client):
        plan = witness.plan()
        with pytest.raises(ConnectError):
            await submit(client)
        assert (witness.saw(plan).requests, list(sim.requests)) == ([], [])


async def test_the_witness_dials_this_machine_only(witness: Witness) -> None:
    async with way_through(witness, "a proxy") as (_, client):
        witness.plan()
        await submit(client)
    events = {line["event"] for line in witness.lines()}
    assert "dialled" in events
    assert "outside" not in events
