"""P19: what a storage host may send as a body - packed, empty, too long, a page - and what is told when a file is whole."""

import asyncio
import gzip
import hashlib
import math
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dryapi_async import Client, DownloadError, Image, InputError, Transcript
from dryapi_async.io.downloads import Downloads
from dryapi_async.protocol.status import JobState, Update
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, files_in, make_client, make_sim, seen, sha256

pytestmark = pytest.mark.anyio

SIZE = 2_000_003
HEAD = b"\x89PNG\r\n\x1a\n"
CONTENT = HEAD + b"".join(hashlib.sha256(str(number).encode()).digest() + bytes(20) for number in range(20_000))
"""About 1 MB, which packs to two thirds."""


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with make_sim(result_size=SIZE) as running:
        yield running


@pytest.fixture
async def image(client: Client) -> Image:
    return await client.call(FOX).result()


def downloads_of(client: Client) -> Downloads:
    assert client._life.current is not None
    return client._life.current.downloads


async def collect(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


class Storage:
    """A storage host that sends what it is given, an answer a request, then closes."""

    def __init__(self, *answers: bytes) -> None:
        self.left = list(answers)
        self.heads: list[str] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.left.pop(0) if len(self.left) > 1 else self.left[0])
        writer.close()

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[Storage]":
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    def image(self, client: Client) -> Image:
        """Make a result that lies here."""
        return Image(request_id="job", url=f"http://127.0.0.1:{self.port}/a.png?s=1", door=downloads_of(client))


def answer(content: bytes, *headers: str, length: int | None = None, status: str = "200 OK") -> bytes:
    told = len(content) if length is None else length
    lines = [f"HTTP/1.1 {status}", "Content-Type: image/png", f"Content-Length: {told}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def chunked(content: bytes, *headers: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: image/png", "Transfer-Encoding: chunked", *headers, "", ""])
    return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


def deflate_raw(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "GZIP": ("GZIP", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "joined gzip": ("gzip", lambda content: gzip.compress(content[:1000]) + gzip.compress(content[1000:])),
    "padded gzip": ("gzip", lambda content: gzip.compress(content) + bytes(100)),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", deflate_raw),
    "identity": ("identity", bytes),
    "left over by an uploader": ("aws-chunked", bytes),
    "both": ("gzip, aws-chunked", gzip.compress),
    "no coding at all": ("utf-8", bytes),
    "nothing": ("", bytes),
}


@pytest.mark.parametrize(("coding", "pack"), PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("send", [answer, chunked], ids=["length", "chunked"])
async def test_p19_a_packed_file_is_saved_unpacked(
    client: Client, tmp_path: Path, coding: str, pack: Callable[[bytes], bytes], send: Callable[..., bytes]
) -> None:
    await client.balance()
    async with Storage(send(pack(CONTENT), f"Content-Encoding: {coding}")).open() as storage:
        image = storage.image(client)
        assert sha256(await image.save(tmp_path / "fox.png")) == sha256(CONTENT)
        assert await image.read() == CONTENT
        assert await collect(image.stream()) == CONTENT
    assert files_in(tmp_path) == ["fox.png"]
    assert all("Accept-Encoding: identity" in head for head in storage.heads)


async def test_p19_a_packed_file_that_was_cut_is_read_again_and_skipped_never_by_range(client: Client, tmp_path: Path) -> None:
    await client.balance()
    packed, headers = gzip.compress(CONTENT), ("Content-Encoding: gzip", 'ETag: "the same"')
    cut = answer(packed[: len(packed) * 6 // 10], *headers, length=len(packed))
    async with Storage(cut, answer(packed, *headers)).open() as storage:
        assert sha256(await storage.image(client).save(tmp_path / "fox.png")) == sha256(CONTENT)
    assert len(storage.heads) == 2
    assert not any("Range" in head for head in storage.heads)


@pytest.mark.parametrize("first", ["packed", "plain"])
async def test_p19_a_host_may_pack_once_and_not_again(client: Client, tmp_path: Path, first: str) -> None:
    await client.balance()
    packed, headers = gzip.compress(CONTENT), ("Content-Encoding: gzip", 'ETag: "the same"')
    if first == "packed":
        answers = [answer(packed[: len(packed) // 2], *headers, length=len(packed)), answer(CONTENT, 'ETag: "the same"')]
    else:
        answers = [answer(CONTENT[: len(CONTENT) // 2], 'ETag: "the same"', length=len(CONTENT)), answer(packed, *headers)]
    async with Storage(*answers).open() as storage:
        assert sha256(await storage.image(client).save(tmp_path / "fox.png")) == sha256(CONTENT)
        assert len(storage.heads) == 2


BROKEN = {
    "ended early": (answer(gzip.compress(CONTENT)[:-50], "Content-Encoding: gzip"), "ended early"),
    "no gzip at all": (answer(CONTENT, "Content-Encoding: gzip"), "can't be unpacked"),
    "spoilt": (answer(gzip.compress(CONTENT)[:-8] + bytes(8), "Content-Encoding: gzip"), "can't be unpacked"),
    "brotli": (answer(b"x", "Content-Encoding: br"), r"packed job job's file \(br\)"),
    "twice": (answer(gzip.compress(gzip.compress(CONTENT)), "Content-Encoding: gzip, gzip"), r"\(gzip, gzip\)"),
    "a packed part": (
        answer(b"x", "Content-Encoding: gzip", "Content-Range: bytes 0-0/1", status="206 Partial Content"),
        "another part",
    ),
}


@pytest.mark.parametrize(("sent", "told"), BROKEN.values(), ids=BROKEN)
async def test_p19_what_cant_be_unpacked_whole_is_refused(client: Client, tmp_path: Path, sent: bytes, told: str) -> None:
    await client.balance()
    async with Storage(sent).open() as storage:
        with pytest.raises(DownloadError, match=told):
            await storage.image(client).save(tmp_path / "fox.png")
    assert files_in(tmp_path) == []


async def test_p19_a_validator_that_cant_be_sent_back_is_none(client: Client, tmp_path: Path) -> None:
    """Bytes of a header that are no ASCII can't stand in a request: without a validator a cut file isn't resumed."""
    await client.balance()
    cut = answer(CONTENT[:500_000], "ETag: MARK", length=len(CONTENT)).replace(b"MARK", b'"\xff\xfe"')
    async with Storage(cut).open() as storage:
        with pytest.raises(DownloadError, match="after 1 attempts"):
            await storage.image(client).save(tmp_path / "fox.png")
    assert files_in(tmp_path) == []


async def test_p19_a_little_that_unpacks_to_much_is_stopped(client: Client, tmp_path: Path) -> None:
    await client.balance()
    bomb = gzip.compress(HEAD + bytes(200_000_000), 1)
    assert len(bomb) < 1_000_000
    async with Storage(answer(bomb, "Content-Encoding: gzip")).open() as storage:
        with pytest.raises(DownloadError, match="max_bytes is 1000000: refused"):
            await storage.image(client).save(tmp_path / "fox.png", max_bytes=1_000_000)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "202 Accepted", "226 IM Used"])
async def test_p19_a_success_that_brings_no_file_is_none(client: Client, tmp_path: Path, status: str) -> None:
    await client.balance()
    async with Storage(answer(b"", status=status)).open() as storage:
        image = storage.image(client)
        with pytest.raises(DownloadError, match=f"status {status[:3]}"):
            await image.save(tmp_path / "fox.png")
        with pytest.raises(DownloadError, match=f"status {status[:3]}"):
            await image.read()
    assert len(storage.heads) == 2
    assert files_in(tmp_path) == []


EMPTY = {
    "told": answer(b""),
    "chunked": chunked(b"").replace(b"0\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "untold": b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n",
    "packed": answer(gzip.compress(b""), "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("sent", EMPTY.values(), ids=EMPTY)
async def test_p19_an_empty_file_is_no_result_but_an_empty_text_is(client: Client, tmp_path: Path, sent: bytes) -> None:
    await client.balance()
    async with Storage(sent).open() as storage:
        image = storage.image(client)
        with pytest.raises(DownloadError, match=r"empty \(0 bytes\)"):
            await image.save(tmp_path / "fox.png")
        with pytest.raises(DownloadError, match="empty"):
            await image.read()
        assert files_in(tmp_path) == []
        assert len(storage.heads) == 2
        done = Update(state=JobState.DONE, word="done", url=image.url)
        text = await Transcript.from_update("job", done, downloads_of(client))
        assert (await text.save(tmp_path)).read_bytes() == b""


async def test_p19_a_page_in_place_of_a_file_is_refused(sim: Simulator, image: Image, tmp_path: Path) -> None:
    for page in (Fault.html(200), Fault.status(200, {"error": "maintenance"}), Fault.garbage("payload")):
        sim.script("storage", page)
        with pytest.raises(DownloadError, match="answered a page"):
            await image.save(tmp_path / "fox.png")
        assert files_in(tmp_path) == []
    sim.script("storage", Fault.status(200, CONTENT, content_type="text/html"))
    assert await image.read() == CONTENT, "a picture is one, whatever its type says"


async def test_p19_max_bytes_is_checked_before_a_byte_is_read(sim: Simulator, client: Client, image: Image, tmp_path: Path) -> None:
    sim.script("storage", Fault.hang("payload", at=0), times=math.inf)
    started = asyncio.get_running_loop().time()
    told = f"{SIZE} bytes or more, max_bytes is {SIZE - 1}"
    for fetch in (image.save(tmp_path / "fox.png", max_bytes=SIZE - 1), image.read(max_bytes=SIZE - 1)):
        with pytest.raises(DownloadError, match=told):
            await fetch
    with pytest.raises(DownloadError, match=told):
        await anext(aiter(image.stream(max_bytes=SIZE - 1)))
    assert asyncio.get_running_loop().time() == started
    assert files_in(tmp_path) == []
    sim.clear_script()
    assert (await image.save(tmp_path / "fox.png", max_bytes=SIZE)).stat().st_size == SIZE
    assert len(await image.read(max_bytes=SIZE)) == SIZE
    assert len(sim.storage_requests) == 5


async def test_p19_max_bytes_stops_a_length_that_nobody_told_in_the_middle(client: Client, tmp_path: Path) -> None:
    await client.balance()
    async with Storage(chunked(CONTENT)).open() as storage:
        image = storage.image(client)
        with pytest.raises(DownloadError, match="max_bytes is 300000"):
            await image.save(tmp_path / "fox.png", max_bytes=300_000)
        assert files_in(tmp_path) == []
        pieces = aiter(image.stream(max_bytes=300_000))
        assert len(await anext(pieces)) <= 300_000
        with pytest.raises(DownloadError, match="max_bytes is 300000"):
            await collect(pieces)
        assert await image.read(max_bytes=len(CONTENT)) == CONTENT
        assert len(storage.heads) == 3


async def test_p19_max_bytes_holds_for_what_is_made_here_too(client: Client, tmp_path: Path) -> None:
    await client.balance()
    text = Transcript(request_id="job", text="Füchse", door=downloads_of(client))
    with pytest.raises(DownloadError, match="7 bytes or more, max_bytes is 6"):
        await text.save(tmp_path, max_bytes=6)
    assert files_in(tmp_path) == []
    assert (await text.save(tmp_path, max_bytes=7)).read_text() == "Füchse"


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "1000", math.inf])
async def test_p19_max_bytes_is_a_number_of_bytes(sim: Simulator, image: Image, tmp_path: Path, wrong: int) -> None:
    for fetch in (image.save(tmp_path, max_bytes=wrong), image.read(max_bytes=wrong)):
        with pytest.raises(InputError, match="max_bytes must be"):
            await fetch
    assert not sim.storage_requests


async def test_p19_half_a_surrogate_pair_in_a_text_is_saved(client: Client, tmp_path: Path) -> None:
    await client.balance()
    text = Transcript(request_id="job", text="fox \ud83e", door=downloads_of(client))
    assert (await text.save(tmp_path)).read_bytes() == b"fox ?"


async def test_p19_a_whole_file_is_told_and_no_other(sim: Simulator, client: Client, image: Image, tmp_path: Path) -> None:
    assert client._life.current is not None
    engine, told = client._life.current, list[str]()
    door = Downloads(engine.http, engine.threads, engine.exchange, engine.read_status, fetched=told.append)
    image = Image(request_id=image.request_id, url=image.url, door=door)
    sim.script("storage", Fault.status(418), Fault.status(418))
    for fetch in (image.save(tmp_path), image.read()):
        with pytest.raises(DownloadError):
            await fetch
    with pytest.raises(FileNotFoundError):
        await image.save(tmp_path / "no" / "where.png")
    await anext(aiter(image.stream()))
    assert told == []
    await image.save(tmp_path)
    assert told == [image.request_id]
    await image.read()
    assert told == [image.request_id] * 2
    async for _ in image.stream():
        assert len(told) == 2
    assert told == [image.request_id] * 3
    await Transcript(request_id="text", text="fox", door=door).save(tmp_path)
    assert told[3:] == ["text"]


async def test_p19_a_download_that_waits_for_its_next_attempt_holds_no_slot(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, max_in_flight=1, pool_size=1) as client:
        image = await client.call(FOX).result()
        sim.script("storage", Fault.html(502), times=3)
        assert client._life.current is not None
        slots = client._life.current.exchange.slots
        saving = asyncio.create_task(image.save(tmp_path / "fox.png"))
        free = 0
        while not saving.done():
            asleep = len(sim.storage_requests) in {1, 2, 3} and sim.storage_requests[-1].ended is not None
            free += asleep and not slots.locked()
            await asyncio.sleep(0.001)
        assert (await saving).stat().st_size == SIZE
        assert free > 3
        assert len(seen(sim, "txt2img")) == 1
