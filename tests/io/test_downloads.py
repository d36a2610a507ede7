"""P19, P27: a result is on disk whole or not at all."""

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from dryapi_async import Client, ClientClosedError, DownloadError, Image, LinkExpiredError, Timeouts
from dryapi_async.events import BytesReceived
from dryapi_async.simulator import Fault, Received, Simulator

from ..conftest import FOX, files_in, make_client, make_sim, seen, sha256

pytestmark = pytest.mark.anyio

SIZE = 2_000_003


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with make_sim(result_size=SIZE) as running:
        yield running


@pytest.fixture
async def image(client: Client) -> Image:
    return await client.call(FOX).result()


@pytest.fixture
async def digest(sim: Simulator, image: Image) -> str:
    """Give the result's SHA-256, read in one go; the requests of that are forgotten."""
    content = await image.read()
    assert len(content) == SIZE
    sim.storage_requests.clear()
    return hashlib.sha256(content).hexdigest()


CUTS = {
    "closed": Fault.close("payload", at=0.6),
    "reset": Fault.reset("payload", at=0.6),
    "truncated": Fault.truncate(at=0.6),
    "silent": Fault.hang("payload", at=0.6),
    "closed at once": Fault.close("payload", at=0),
    "closed near the end": Fault.close("payload", at=0.999999),
}


@pytest.mark.parametrize("fault", CUTS.values(), ids=CUTS)
async def test_p19_what_was_cut_goes_on_where_it_was(sim: Simulator, image: Image, digest: str, tmp_path: Path, fault: Fault) -> None:
    sim.script("storage", fault)
    reads = len(seen(sim, "request-status"))
    path = await image.save(tmp_path / "fox.png")
    assert sha256(path) == digest
    assert files_in(tmp_path) == ["fox.png"]
    assert len(seen(sim, "request-status")) == reads
    whole, rest = sim.storage_requests
    assert "Range" not in whole.headers
    if fault.at:
        assert rest.status == 206
        start = int(rest.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        assert 0 < start <= SIZE * fault.at + 1
        assert rest.headers["If-Range"].startswith('"')


async def test_p19_it_goes_on_after_several_cuts(sim: Simulator, image: Image, digest: str, tmp_path: Path) -> None:
    sim.script("storage", Fault.close("payload", at=0.3), Fault.reset("payload", at=0.5), Fault.truncate(at=0.5))
    assert sha256(await image.save(tmp_path / "fox.png")) == digest
    starts = [int(one.headers["Range"].removeprefix("bytes=").removesuffix("-")) for one in list(sim.storage_requests)[1:]]
    assert starts == sorted(starts)
    assert len(starts) == 3


async def test_p19_streams_and_reads_go_on_too(sim: Simulator, image: Image, digest: str) -> None:
    sim.script("storage", Fault.close("payload", at=0.6), times=1)
    assert hashlib.sha256(await image.read()).hexdigest() == digest
    sim.script("storage", Fault.reset("payload", at=0.6), times=1)
    streamed = hashlib.sha256()
    async for piece in image.stream():
        streamed.update(piece)
    assert streamed.hexdigest() == digest


async def test_p19_a_host_that_knows_no_ranges_is_read_again_and_skipped(sim: Simulator, image: Image, digest: str, tmp_path: Path) -> None:
    content, tag = await image.read(), '"the same"'
    whole = Fault.status(200, content, headers={"ETag": tag}, content_type="image/png")
    cut = [
        b"HTTP/1.1 200 OK\r\nETag: "
        + tag.encode()
        + b"\r\nContent-Type: image/png\r\n"
        + f"Content-Length: {SIZE}\r\n\r\n".encode()
        + content[: SIZE // 2]
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(cut[0])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        sim.script("storage", Fault.redirect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"), whole)
        assert sha256(await image.save(tmp_path / "fox.png")) == digest


async def test_p19_a_file_that_became_another_is_never_mixed(sim: Simulator, image: Image, digest: str, tmp_path: Path) -> None:
    other = Fault.status(200, b"another file", headers={"ETag": '"another"'}, content_type="image/png")
    sim.script("storage", Fault.close("payload", at=0.6), other)
    with pytest.raises(DownloadError, match="changed while it was fetched"):
        await image.save(tmp_path / "fox.png")
    assert files_in(tmp_path) == []
    assert digest


WRONG_REST = {
    "another range": Fault.status(
        206, b"the beginning again", headers={"ETag": '"x"', "Content-Range": "bytes 0-18/19"}, content_type="image/png"
    ),
    "no range": Fault.status(206, b"who knows from where", headers={"ETag": '"x"'}, content_type="image/png"),
    "less than there was": Fault.status(200, b"short", headers={"ETag": '"x"'}, content_type="image/png"),
}


@pytest.mark.parametrize("fault", WRONG_REST.values(), ids=WRONG_REST)
async def test_p19_a_rest_that_doesnt_fit_is_never_taken(sim: Simulator, image: Image, tmp_path: Path, fault: Fault) -> None:
    assert fault.answer is not None
    fault.answer.headers["ETag"] = await fetch_tag(image)
    sim.script("storage", Fault.close("payload", at=0.6))
    sim.script("storage", fault, times=math.inf)
    with pytest.raises(DownloadError):
        await image.save(tmp_path / "fox.png")
    assert files_in(tmp_path) == []


async def fetch_tag(image: Image) -> str:
    """Ask the storage host for the result's ETag."""
    async with aiohttp.ClientSession() as session, session.head(URL(image.url or "", encoded=True)) as answer:
        return answer.headers["ETag"]


ENDS = {
    "always closed": Fault.close("payload", at=0.6),
    "always silent": Fault.hang("payload", at=0.6),
    "always in trouble": Fault.html(502),
    "never an answer": Fault.hang(),
    "garbage": Fault.garbage(),
    "refused": Fault.status(403),
    "not there": Fault.status(404),
    "a teapot": Fault.status(418),
}


@pytest.mark.parametrize("fault", ENDS.values(), ids=ENDS)
async def test_p19_an_error_leaves_neither_the_file_nor_a_part(sim: Simulator, tmp_path: Path, fault: Fault) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=5)) as client:
        image = await client.call(FOX).result()
        old = tmp_path / "old.png"
        old.write_bytes(b"an older result")
        sim.script("storage", fault, times=math.inf)
        for target in (tmp_path, tmp_path / "fox.png", old):
            with pytest.raises(DownloadError):
                await image.save(target)
        with pytest.raises(DownloadError):
            await image.read()
        assert files_in(tmp_path) == ["old.png"]
        assert old.read_bytes() == b"an older result"
        sim.clear_script()
        assert (await image.save(old)).stat().st_size == SIZE


@pytest.mark.parametrize("after", [0.0, 0.2, 1.0, 2.5])
async def test_p19_cancelling_leaves_neither_the_file_nor_a_part(
    sim: Simulator, client: Client, image: Image, tmp_path: Path, after: float
) -> None:
    sim.script("storage", Fault.trickle(SIZE / 5))
    saving = asyncio.create_task(image.save(tmp_path / "fox.png"))
    await asyncio.sleep(after)
    saving.cancel()
    await asyncio.wait([saving])
    assert saving.cancelled()
    assert files_in(tmp_path) == []
    await asyncio.sleep(1)
    assert not sim.storage_connections.open
    assert client._life.current is not None
    assert not client._life.current.exchange.slots.locked()
    sim.clear_script()
    assert (await image.save(tmp_path / "fox.png")).stat().st_size == SIZE


@pytest.mark.parametrize("again", [None, 0, 1, 3], ids=lambda again: "once" if again is None else f"and once more after {again} steps")
async def test_p19_cancelled_at_any_step_nothing_is_left(tmp_path: Path, again: int | None) -> None:
    """Cancel after each number of steps of the loop: in look-ups, opens, writes, closes, renames."""
    async with make_sim(result_size=700_000) as sim, make_client(sim) as client:
        image = await client.call(FOX).result()
        for steps in range(60):
            saving = asyncio.create_task(image.save(tmp_path / "fox.png"))
            for _ in range(steps):
                await asyncio.sleep(0)
            saving.cancel()
            if again is not None:
                for _ in range(again):
                    await asyncio.sleep(0)
                saving.cancel()
            await asyncio.wait([saving])
            # What a thread has begun it ends; the clock stands still until then.
            await asyncio.sleep(0.001)
            assert saving.cancelled() or saving.result().stat().st_size == 700_000
            assert files_in(tmp_path) in ([], ["fox.png"])
            (tmp_path / "fox.png").unlink(missing_ok=True)


async def test_p19_leaving_a_stream_gives_its_connection_and_slot_back(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=1, pool_size=1) as client:
        image = await client.call(FOX).result()
        async for piece in image.stream():
            assert piece
            break
        await asyncio.sleep(0.01)
        assert len(await image.read()) == SIZE


async def test_p19_the_part_lies_beside_the_target_until_it_is_whole(sim: Simulator, client: Client, tmp_path: Path) -> None:
    sim.script("storage", Fault.trickle(SIZE / 5))
    image = await client.call(FOX).result()
    saving = asyncio.create_task(image.save(tmp_path / "fox.png"))
    await asyncio.sleep(2)
    (part,) = files_in(tmp_path)
    assert re.fullmatch(r"\.dryapi-[0-9a-f]{16}\.part", part)
    await saving
    assert files_in(tmp_path) == ["fox.png"]


async def test_p19_many_saves_to_one_target_leave_one_whole_file(image: Image, digest: str, tmp_path: Path) -> None:
    paths = await asyncio.gather(*(image.save(tmp_path / "fox.png") for _ in range(8)))
    assert set(paths) == {tmp_path / "fox.png"}
    assert files_in(tmp_path) == ["fox.png"]
    assert sha256(tmp_path / "fox.png") == digest


async def test_p19_an_expired_link_is_renewed_by_exactly_one_read(tmp_path: Path) -> None:
    async with make_sim(link_seconds=600) as sim, make_client(sim) as client:
        image = await client.call(FOX).result()
        await asyncio.sleep(700)
        reads = len(seen(sim, "request-status"))
        await image.save(tmp_path / "a.png")
        assert len(seen(sim, "request-status")) == reads + 1
        assert [one.status for one in sim.storage_requests] == [403, 200]
        await image.save(tmp_path / "b.webp")
        assert len(seen(sim, "request-status")) == reads + 2
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "b.webp").read_bytes().startswith(b"RIFF")


async def test_p19_a_link_that_expires_in_the_middle_is_renewed_and_goes_on(
    image: Image, digest: str, sim: Simulator, tmp_path: Path
) -> None:
    reads = len(seen(sim, "request-status"))
    sim.script("storage", Fault.close("payload", at=0.6), Fault.status(403))
    assert sha256(await image.save(tmp_path / "fox.png")) == digest
    assert len(seen(sim, "request-status")) == reads + 1
    assert [one.status for one in sim.storage_requests] == [None, 403, 206]


async def test_p19_a_fresh_link_that_is_refused_too_is_the_end(sim: Simulator, image: Image, tmp_path: Path) -> None:
    reads = len(seen(sim, "request-status"))
    sim.script("storage", Fault.status(403), times=math.inf)
    with pytest.raises(LinkExpiredError, match=r"refused with 403, and so was a fresh one\. Save it again later"):
        await image.save(tmp_path)
    assert len(sim.storage_requests) == 2
    assert len(seen(sim, "request-status")) == reads + 1


async def test_p19_a_file_that_is_there_is_replaced_whole(image: Image, digest: str, tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(bytes(9_000_000))
    assert sha256(await image.save(tmp_path / "fox.png")) == digest


async def test_p27_a_download_that_moves_however_slowly_isnt_cut(tmp_path: Path) -> None:
    async with make_sim() as sim, make_client(sim) as client:
        image = await client.call(FOX).result()
        content = await image.read()
        sim.script("storage", Fault.trickle(len(content) / 480))
        started = asyncio.get_running_loop().time()
        assert (await image.save(tmp_path / "fox.png")).read_bytes() == content
        assert asyncio.get_running_loop().time() - started == pytest.approx(480, abs=0.1)
        assert len(sim.storage_requests) == 2


async def test_p27_a_download_that_stands_still_ends_in_idle_time(sim: Simulator) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=20)) as client:
        image = await client.call(FOX).result()
        sim.script("storage", Fault.hang("payload"), times=math.inf)
        started = asyncio.get_running_loop().time()
        with pytest.raises(DownloadError, match="SocketTimeoutError"):
            await image.read()
        # Four attempts, each in its idle time, and the pauses between them.
        assert 80 <= asyncio.get_running_loop().time() - started <= 4 * 22 + 8


async def test_p19_bytes_are_told_as_they_come(sim: Simulator, digest: str, tmp_path: Path) -> None:
    events: list[BytesReceived] = []

    def hook(event: Any) -> None:
        if isinstance(event, BytesReceived):
            events.append(event)

    async with make_client(sim, on_event=hook) as client:
        sim.script("storage", Fault.close("payload", at=0.6))
        image = await client.call(FOX).result()
        await image.save(tmp_path / "fox.png")
    counts = [event.bytes_received for event in events]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts) > 3
    assert (counts[-1], {event.bytes_total for event in events}, {event.request_id for event in events}) == (
        SIZE,
        {SIZE},
        {image.request_id},
    )
    assert digest


async def test_p19_a_length_that_nobody_tells_is_taken_to_the_end(sim: Simulator, image: Image, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        sim.script("storage", Fault.redirect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        assert (await image.save(tmp_path / "fox.png")).read_bytes() == b"whole"


async def test_p19_a_signed_query_goes_out_as_it_came(tmp_path: Path) -> None:
    async with make_sim() as sim, make_client(sim) as client:
        sim.variants("links-escaped")
        image = await client.call(FOX).result()
        await image.save(tmp_path)
        (asked,) = sim.storage_requests
        assert isinstance(asked, Received)
        assert "X-Amz-Credential=simulator%2F" in asked.query
        assert asked.status == 200


async def test_p19_a_result_of_a_closed_client_says_so(sim: Simulator, client: Client, image: Image, tmp_path: Path) -> None:
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await image.save(tmp_path)
    with pytest.raises(ClientClosedError):
        await image.read()
    assert files_in(tmp_path) == []
