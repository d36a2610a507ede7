"""P1, P26: the table of faults. Every fault in every phase meets every kind of call; the expectations are written here, not reckoned."""

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from attrs import evolve, frozen

from dryapi_async import (
    AuthenticationError,
    Client,
    ConnectError,
    DownloadError,
    DryAPIError,
    Image,
    Job,
    LinkExpiredError,
    PayloadTooLargeError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    SubmissionUnknownError,
    Timeouts,
    TransportError,
    Txt2Img,
)
from dryapi_async.events import Attempt, Event
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, edit, make_client, make_sim, seen

pytestmark = pytest.mark.anyio

ATTEMPTS = 4
"""``Retry.attempts`` as it is by default."""
BIG_PICTURE = PNG + bytes(2_000_000)
"""So long that a fault in the middle of the body is in its middle."""
NOWHERE = "http://127.0.0.1:9/elsewhere"
"""Where nothing listens."""
SETUP = evolve(FOX, prompt="a job that was made before the fault")


@frozen
class Outcome:
    """What becomes of a call: ``requests`` reach the server where the fault is there for ever, and it ends in ``error``.

    ``recovers`` says that a fault that strikes once is overcome by the second request; else it ends as for ever.
    """

    error: type[DryAPIError]
    requests: int
    recovers: bool = False


def again(error: type[DryAPIError]) -> Outcome:
    return Outcome(error, ATTEMPTS, recovers=True)


def at_once(error: type[DryAPIError]) -> Outcome:
    return Outcome(error, 1)


RENEWED = Outcome(LinkExpiredError, 2, recovers=True)
"""A storage host that refuses a link is asked once more, with a fresh link."""
UNKNOWN = at_once(SubmissionUnknownError)
LOST = again(TransportError)
SILENT = again(RequestTimeoutError)
UNREADABLE = again(ResponseError)
BROKEN = again(ServerError)
UNSAVED = again(DownloadError)
NO_FILE = at_once(DownloadError)
"""A storage host that answers JSON or refuses for good isn't asked again."""


@frozen
class Row:
    """One fault. ``reading``: balance, status, price. ``paying``: submits, prompt tools. ``charged``: how often a paying call is billed."""

    fault: Fault
    reading: Outcome
    paying: Outcome
    charged: int
    fetching: Outcome


def moved(*, early: bool = False) -> Fault:
    return Fault.status(307, "", headers={"Location": NOWHERE}, early=early)


# What a reading does | what a call that is billed does | how often it is billed then | what a download does.
TABLE = {
    "RST before the body": Row(Fault.reset("before_body"), LOST, UNKNOWN, 0, UNSAVED),
    "RST in the body": Row(Fault.reset("mid_body"), LOST, UNKNOWN, 0, UNSAVED),
    "RST after the body": Row(Fault.reset("after_body"), LOST, UNKNOWN, 1, UNSAVED),
    "RST in the answer's headers": Row(Fault.reset("headers"), LOST, UNKNOWN, 1, UNSAVED),
    "RST in the answer's payload": Row(Fault.reset("payload"), UNREADABLE, UNKNOWN, 1, UNSAVED),
    "FIN before the body": Row(Fault.close("before_body"), LOST, UNKNOWN, 0, UNSAVED),
    "FIN in the body": Row(Fault.close("mid_body"), LOST, UNKNOWN, 0, UNSAVED),
    "FIN after the body": Row(Fault.close("after_body"), LOST, UNKNOWN, 1, UNSAVED),
    "FIN in the answer's headers": Row(Fault.close("headers"), LOST, UNKNOWN, 1, UNSAVED),
    "FIN in the answer's payload": Row(Fault.close("payload"), UNREADABLE, UNKNOWN, 1, UNSAVED),
    "hang before the body": Row(Fault.hang("before_body"), SILENT, UNKNOWN, 0, UNSAVED),
    "hang in the body": Row(Fault.hang("mid_body"), SILENT, UNKNOWN, 0, UNSAVED),
    "hang after the body": Row(Fault.hang("after_body"), SILENT, UNKNOWN, 1, UNSAVED),
    "hang in the answer's headers": Row(Fault.hang("headers"), SILENT, UNKNOWN, 1, UNSAVED),
    "hang in the answer's payload": Row(Fault.hang("payload"), SILENT, UNKNOWN, 1, UNSAVED),
    "a truncated answer before the body": Row(Fault.truncate("before_body"), UNREADABLE, UNKNOWN, 0, NO_FILE),
    "a truncated answer in the body": Row(Fault.truncate("mid_body"), UNREADABLE, UNKNOWN, 0, NO_FILE),
    "a truncated answer": Row(Fault.truncate("payload"), UNREADABLE, UNKNOWN, 1, UNSAVED),
    "no HTTP before the body": Row(Fault.garbage("before_body"), UNREADABLE, UNKNOWN, 0, UNSAVED),
    "no HTTP in the body": Row(Fault.garbage("mid_body"), UNREADABLE, UNKNOWN, 0, UNSAVED),
    "no HTTP after the body": Row(Fault.garbage("after_body"), UNREADABLE, UNKNOWN, 1, UNSAVED),
    "broken headers of an answer": Row(Fault.garbage("headers"), UNREADABLE, UNKNOWN, 1, UNSAVED),
    "an undecodable answer": Row(Fault.garbage("payload"), UNREADABLE, UNKNOWN, 1, NO_FILE),
    "307 before the body": Row(moved(early=True), at_once(ResponseError), UNKNOWN, 0, UNSAVED),
    "307 after the body": Row(moved(), at_once(ResponseError), UNKNOWN, 0, UNSAVED),
    "401 before the body": Row(Fault.unauthorized(early=True), at_once(AuthenticationError), at_once(AuthenticationError), 0, RENEWED),
    "401 after the body": Row(Fault.unauthorized(), at_once(AuthenticationError), at_once(AuthenticationError), 0, RENEWED),
    "413 before the body": Row(Fault.too_large(early=True), at_once(PayloadTooLargeError), at_once(PayloadTooLargeError), 0, NO_FILE),
    "413 after the body": Row(Fault.too_large(), at_once(PayloadTooLargeError), at_once(PayloadTooLargeError), 0, NO_FILE),
    "429 of a minute before the body": Row(Fault.rate_limited(early=True), again(RateLimitError), again(RateLimitError), 0, UNSAVED),
    "429 of a minute": Row(Fault.rate_limited(), again(RateLimitError), again(RateLimitError), 0, UNSAVED),
    "429 of a day before the body": Row(
        Fault.rate_limited("daily", early=True), at_once(RateLimitError), at_once(RateLimitError), 0, NO_FILE
    ),
    "429 of a day": Row(Fault.rate_limited("daily"), at_once(RateLimitError), at_once(RateLimitError), 0, NO_FILE),
    "500 before the body": Row(Fault.html(500, early=True), BROKEN, UNKNOWN, 0, UNSAVED),
    "500": Row(Fault.html(500), BROKEN, UNKNOWN, 1, UNSAVED),
    "501 before the body": Row(Fault.html(501, early=True), at_once(ServerError), UNKNOWN, 0, NO_FILE),
    "501": Row(Fault.html(501), at_once(ServerError), UNKNOWN, 1, NO_FILE),
    "502 before the body": Row(Fault.html(502, early=True), BROKEN, UNKNOWN, 0, UNSAVED),
    "502": Row(Fault.html(502), BROKEN, UNKNOWN, 1, UNSAVED),
    "503 before the body": Row(Fault.html(503, early=True), BROKEN, UNKNOWN, 0, UNSAVED),
    "503": Row(Fault.html(503), BROKEN, UNKNOWN, 1, UNSAVED),
    "504 before the body": Row(Fault.html(504, early=True), BROKEN, UNKNOWN, 0, UNSAVED),
    "504": Row(Fault.html(504), BROKEN, UNKNOWN, 1, UNSAVED),
    "504 of a service that did nothing": Row(Fault.html(504, billed=False), BROKEN, UNKNOWN, 0, UNSAVED),
}


@frozen
class Stage:
    """What a call needs: a client, and a job that is done."""

    client: Client
    job: Job[Image]
    folder: Path = Path()


Act = Callable[[Stage], Awaitable[Any]]


@frozen
class Kind:
    """One kind of call. ``slug`` is the operation whose requests meet the fault."""

    slug: str
    act: Act
    expect: Callable[[Row], Outcome]
    is_paid: bool = False


async def fetch(stage: Stage) -> bytes:
    return await (await stage.job.result()).read()


async def finish_json(stage: Stage) -> Job[Image]:
    return await stage.client.call(FOX)


async def finish_upload(stage: Stage) -> Job[Image]:
    return await edit(stage.client, image=BIG_PICTURE)


def ask_tool(stage: Stage) -> Awaitable[Any]:
    return stage.client.prompt_image(prompt="a fox in snow")


def ask_sample(stage: Stage) -> Awaitable[Any]:
    return stage.client.prompt_samples(type="text2image")


KINDS = {
    "balance": Kind("balance", lambda stage: stage.client.balance(), lambda row: row.reading),
    "status": Kind("request-status", lambda stage: stage.job.status(), lambda row: row.reading),
    "price": Kind("txt2img/price-calculation", lambda stage: stage.client.call(FOX).price(), lambda row: row.reading),
    "submit": Kind("txt2img", finish_json, lambda row: row.paying, is_paid=True),
    "upload": Kind("img2img", finish_upload, lambda row: row.paying, is_paid=True),
    "prompt tool": Kind("prompt/image", ask_tool, lambda row: row.paying, is_paid=True),
    "sample": Kind("prompts/samples", ask_sample, lambda row: row.paying, is_paid=True),
    "download": Kind("storage", fetch, lambda row: row.fetching),
}


@frozen
class Certified:
    """Contexts for both ends, with a certificate made for the test."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certified() -> Certified:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return Certified(server, client)


@asynccontextmanager
async def stage_on(sim: Simulator, tls: ssl.SSLContext | None, **options: Any) -> AsyncIterator[Stage]:
    """Open a client with a done job at hand; its own fresh life, so that no lane remembers an earlier refusal."""
    async with make_client(sim, timeouts=Timeouts(idle=5), ssl=tls, **options) as client:
        request_id = next(iter(sim.jobs)) if sim.jobs else (await client.call(SETUP)).id
        sim.finish(request_id)
        yield Stage(client, client.job(f"txt2img:{request_id}", Txt2Img))


def asked(sim: Simulator, slug: str) -> int:
    return len(sim.storage_requests if slug == "storage" else seen(sim, slug))


async def meet(sim: Simulator, kind: Kind, row: Row, times: float, tls: ssl.SSLContext | None) -> tuple[Any, int, int]:
    """Make one call that meets a fault: how it ended, how many requests came, how often it was billed."""
    async with stage_on(sim, tls) as stage:
        requests, charges = asked(sim, kind.slug), sim.jobs_billed
        scripted = sim.script(kind.slug, row.fault, times=times)
        ended: Any = None
        try:
            await kind.act(stage)
        except DryAPIError as error:
            ended = error
        scripted.remove()
        return ended, asked(sim, kind.slug) - requests, sim.jobs_billed - charges


async def check_row(kind: Kind, row: Row, tls: Certified | None) -> None:
    expected = kind.expect(row)
    charged = row.charged if kind.is_paid else 0
    async with make_sim(keep_files=False, ssl=None if tls is None else tls.server) as sim:
        for times in (1, math.inf):
            ended, requests, charges = await meet(sim, kind, row, times, None if tls is None else tls.client)
            if times == 1 and expected.recovers:
                assert (ended, requests, charges) == (None, 2, int(kind.is_paid)), "struck once"
                continue
            assert (type(ended), requests, charges) == (expected.error, expected.requests, charged), f"struck {times} times: {ended}"
            if isinstance(ended, SubmissionUnknownError):
                assert (ended.operation, ended.attempt) == (kind.slug, 1)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_p01_the_table_of_faults(kind: Kind, row: Row) -> None:
    await check_row(kind, row, None)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_p01_the_table_of_faults_over_tls(certified: Certified, kind: Kind, row: Row) -> None:
    await check_row(kind, row, certified)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_p01_where_nobody_listens_nothing_is_sent(kind: Kind) -> None:
    events: list[Event] = []
    async with make_sim() as sim, stage_on(sim, None, on_event=events.append) as stage:
        await stage.job.status()
        requests, charges = asked(sim, kind.slug), sim.jobs_billed
        events.clear()
        await sim.go_down()
        with pytest.raises(DownloadError if kind.slug == "storage" else ConnectError):
            await kind.act(stage)
        assert (asked(sim, kind.slug), sim.jobs_billed) == (requests, charges)
        tries = [event for event in events if isinstance(event, Attempt)]
        assert len(tries) == ATTEMPTS
        await sim.come_up()
        await kind.act(stage)
        assert (asked(sim, kind.slug), sim.jobs_billed) == (requests + 1, charges + kind.is_paid)


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.slug != "storage"], ids=lambda kind: kind.slug)
async def test_p01_to_a_host_that_nobody_vouches_for_nothing_is_sent(certified: Certified, kind: Kind) -> None:
    async with make_sim(ssl=certified.server) as sim, make_client(sim) as client:
        with pytest.raises(ConnectError, match="certificate"):
            await kind.act(Stage(client, client.job("txt2img:1", Txt2Img)))
        assert (list(sim.requests), sim.jobs_billed) == ([], 0)
