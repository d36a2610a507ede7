"""P1 before a second witness: mitmproxy stands between client and service, does the faults itself, and counts by itself.

mitmdump runs in a virtual environment of its own, since it pins its libraries; DRYAPI_MITMDUMP names it.
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme
from attrs import field, frozen

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
    Timeouts,
    TransportError,
)
from dryapi_async.simulator import Simulator

from ..conftest import FOX, PNG, edit, files_in, make_sim, seen, sha256, until

# Another path than the environment's is a mistake, so it isn't looked for elsewhere.
MITMDUMP = os.environ.get("DRYAPI_MITMDUMP") or shutil.which("mitmdump")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.processes,
    pytest.mark.skipif(
        MITMDUMP is None, reason="mitmdump isn't here: DRYAPI_MITMDUMP names it (pip install mitmproxy, in an environment of its own)"
    ),
]

START_SECONDS = 30.0
PATIENCE_SECONDS, IMPATIENCE_SECONDS = 10.0, 0.4
"""What the witness calls late is 2.5 s."""
ADDON = Path(__file__).with_name("addon.py")
PHOTO = PNG + os.urandom(64_000)


@pytest.fixture
def anyio_backend() -> str:
    """The real clock: mitmdump has no other."""
    return "asyncio"


@frozen
class Seen:
    """What the witness wrote down about one plan."""

    requests: list[dict[str, Any]]
    bodies: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    connections: list[dict[str, Any]]

    def posts(self) -> int:
        return sum(one["method"] == "POST" for one in self.requests)


@frozen
class Witness:
    """A running mitmdump, its ports, and the ports on which it looks for the service."""

    folder: Path
    proxy: str
    reverse: str
    plain_port: int
    tls_port: int
    server_tls: ssl.SSLContext
    client_tls: ssl.SSLContext
    _plans: Iterator[int] = field(factory=lambda: count(1))

    def plan(self, path: str = "/", fault: str | None = None, times: int = 1_000_000) -> int:
        """Tell it what to do from now on; the number of the plan."""
        number = next(self._plans)
        draft = self.folder / "draft.json"
        draft.write_text(json.dumps({"id": number, "path": path, "fault": fault, "times": times if fault else 0}))
        draft.rename(self.folder / "plan.json")
        return number

    def saw(self, plan: int) -> Seen:
        lines = [line for line in self.lines() if line.get("plan") == plan]
        return Seen(*([line for line in lines if line["event"] == event] for event in ("request", "body", "answered", "connection")))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "record.jsonl").read_text().splitlines()]


def free_ports(number: int) -> list[int]:
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in holders]
    for one in holders:
        one.close()
    return ports


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    folder = tmp_path_factory.mktemp("witness")
    authority, server_tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    authority.cert_pem.write_to_path(str(folder / "service.pem"))
    proxy, reverse, plain, tls = free_ports(4)
    (folder / "plan.json").write_text(json.dumps({"id": 0, "path": "/", "fault": None, "times": 0}))
    options = {
        "confdir": folder / "mitmproxy",
        "listen_host": "127.0.0.1",
        "onboarding": "false",
        "ssl_verify_upstream_trusted_ca": folder / "service.pem",
    }
    command = [str(MITMDUMP), "-q", "-s", str(ADDON)]
    command += ["--mode", f"regular@127.0.0.1:{proxy}", "--mode", f"reverse:http://127.0.0.1:{plain}@127.0.0.1:{reverse}"]
    command += [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    paths = {"WITNESS_PLAN": str(folder / "plan.json"), "WITNESS_RECORD": str(folder / "record.jsonl")}
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={"PATH": os.defpath, "HOME": str(folder), **paths}
        )
    try:
        wait_until_it_listens(process, folder)
        trusted = ssl.create_default_context(cafile=folder / "mitmproxy" / "mitmproxy-ca-cert.pem")
        yield Witness(folder, f"http://127.0.0.1:{proxy}", f"http://127.0.0.1:{reverse}", plain, tls, server_tls, trusted)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_listens(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    until = time.monotonic() + START_SECONDS
    record = folder / "record.jsonl"
    while not (record.exists() and '"running"' in record.read_text()):
        assert process.poll() is None, (folder / "output.txt").read_text()
        assert time.monotonic() < until, f"mitmdump didn't listen within {START_SECONDS:g} s: {(folder / 'output.txt').read_text()}"
        time.sleep(0.05)


@asynccontextmanager
async def way_through(
    witness: Witness, way: str, fault: str | None = None, *, proxy: str | None = None, result_size: int | None = None, push: bool = False
) -> AsyncIterator[tuple[Simulator, Client]]:
    """Open a service and a client that reaches it only through the witness."""
    tls = way == "a tunnel"
    sim_options = {"port": witness.tls_port, "ssl": witness.server_tls} if tls else {"port": witness.plain_port}
    idle = IMPATIENCE_SECONDS if fault == "late" else PATIENCE_SECONDS
    async with (
        make_sim(duration=0.05, result_size=result_size, **sim_options) as sim,
        Client(
            sim.key,
            base_url=witness.reverse if way == "a front" else sim.url,
            proxy=None if way == "a front" else proxy or witness.proxy,
            ssl=witness.client_tls if tls else None,
            timeouts=Timeouts(idle=idle),
            client_id=sim.client_id if push else None,
        ) as client,
    ):
        yield sim, client


WAYS = ("a proxy", "a front", "a tunnel")
"""An explicit proxy over http, a reverse proxy, and CONNECT with TLS inside that the witness opens."""


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
    """What the witness answers itself is an answer; where it refuses the tunnel, nothing of the request left."""
    async with way_through(witness, way) as (sim, client):
        plan = witness.plan()
        await sim.go_down()
        with pytest.raises(ConnectError if way == "a tunnel" else SubmissionUnknownError):
            await submit(client)
        saw = witness.saw(plan)
        assert (len(saw.connections), saw.posts()) == {"a proxy": (1, 1), "a front": (1, 0), "a tunnel": (4, 0)}[way]
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
