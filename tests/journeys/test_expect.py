"""An upload that asks first (Expect: 100-continue)."""

import asyncio
import re

import pytest

from dryapi_async import (
    AuthenticationError,
    Client,
    PayloadTooLargeError,
    SubmissionUnknownError,
)
from dryapi_async.events import Attempt, BytesSent, Event
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, edit, make_client, now, seen, sha256

pytestmark = pytest.mark.anyio


class TestExpect100:
    async def test_an_upload_is_asked_for_and_sent(self, sim: Simulator) -> None:
        async with make_client(sim, expect100=True) as client:
            await edit(client, image=PNG + bytes(2_000_000))
            (request,) = seen(sim, "img2img")
            assert request.headers["Expect"] == "100-continue"
            assert request.files[0].sha256 == sha256(PNG + bytes(2_000_000))
            await client.call(FOX).result()

    @pytest.mark.parametrize("kind", [PayloadTooLargeError, AuthenticationError])
    async def test_a_refusal_spares_the_body(self, sim: Simulator, kind: type[Exception]) -> None:
        told: list[Event] = []
        async with make_client(sim, expect100=True, on_event=told.append) as client:
            sim.script("img2img", Fault.too_large(early=True) if kind is PayloadTooLargeError else Fault.unauthorized(early=True))
            with pytest.raises(kind):
                await edit(client, image=PNG + bytes(2_000_000))
            (attempt,) = (event for event in told if isinstance(event, Attempt))
            assert attempt.bytes_sent == 0
            assert not any(isinstance(event, BytesSent) for event in told)
            assert sim.jobs_billed == 0

    async def test_a_429_before_the_body_is_waited_out(self, sim: Simulator) -> None:
        async with make_client(sim, expect100=True) as client:
            sim.script("img2img", Fault.rate_limited(retry_after=2, early=True))
            await edit(client, image=PNG + bytes(2_000_000))
            assert (len(seen(sim, "img2img")), sim.jobs_billed) == (2, 1)

    async def test_a_server_that_doesnt_know_the_question_gets_the_body(self) -> None:
        """A bare server that never says 100, and answers once the whole body is there."""
        taken: list[int] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]  # it is there
            taken.append(len(await reader.readexactly(length)))
            body = b'{"data": {"request_id": "r-1"}}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Client("1|key", base_url=f"http://127.0.0.1:{port}", expect100=True) as client:
            job = await edit(client, image=PNG + bytes(2_000_000))
            assert job.id == "r-1"
            assert taken[0] > 2_000_000
            assert now() == pytest.approx(1, abs=0.1)

    async def test_a_cut_before_the_go_ahead_is_still_unknown(self, sim: Simulator) -> None:
        async with make_client(sim, expect100=True) as client:
            sim.script("img2img", Fault.reset("before_body"))
            with pytest.raises(SubmissionUnknownError):
                await edit(client, image=PNG + bytes(2_000_000))
            assert len(seen(sim, "img2img")) == 1
