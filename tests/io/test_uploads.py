"""P10, P9: every source goes up with its exact length and its own bytes, and again the same, or it is refused."""

import array
import asyncio
import gzip
import io
import os
import socket
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import (
    Client,
    File,
    InputError,
    Job,
    SourceChangedError,
    SourceError,
    SourceNotReplayableError,
    SubmissionUnknownError,
    Timeouts,
    ValidationError,
)
from dryapi_async.simulator import Fault, Received, ReceivedFile, Simulator

from ..conftest import JPEG, PNG, edit, make_client, make_sim, seen, sha256

pytestmark = pytest.mark.anyio

PICTURE = PNG + os.urandom(700_000 - len(PNG))
"""Over two pieces long. What follows a PNG's end is ignored by every decoder."""


def path_of(folder: Path) -> Path:
    (folder / "fox.png").write_bytes(PICTURE)
    return folder / "fox.png"


def at(stream: Any, position: int) -> Any:
    stream.seek(position)
    return stream


def at_offset(folder: Path) -> Any:
    (folder / "fox.png").write_bytes(b"7 bytes" + PICTURE)
    return at((folder / "fox.png").open("rb"), 7)


async def pieces(size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(PICTURE), size):
        yield PICTURE[start : start + size]


def pipe(content: bytes = PICTURE) -> Any:
    """Make a pipe that a thread fills."""
    read, write = os.pipe()

    def fill() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(content)

    threading.Thread(target=fill).start()
    return os.fdopen(read, "rb")


def spool(_: Path) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=10_000_000)  # noqa: SIM115  the test closes it
    file.write(PICTURE)
    return at(file, 0)


def unzip(folder: Path) -> Any:
    with zipfile.ZipFile(folder / "fox.zip", "w") as archive:
        archive.writestr("fox.png", PICTURE)
    return zipfile.ZipFile(folder / "fox.zip").open("fox.png")


def gunzip(folder: Path) -> Any:
    (folder / "fox.png.gz").write_bytes(gzip.compress(PICTURE, 1))
    return gzip.open(folder / "fox.png.gz")


REPLAYABLE: dict[str, Callable[[Path], Any]] = {
    "str": lambda folder: str(path_of(folder)),
    "Path": path_of,
    "bytes": lambda _: PICTURE,
    "bytearray": lambda _: bytearray(PICTURE),
    "memoryview": lambda _: memoryview(PICTURE),
    "memoryview of another type": lambda _: memoryview(array.array("H", PICTURE[: len(PICTURE) // 2 * 2])),
    "a slice of a memoryview": lambda _: memoryview(b"7 bytes" + PICTURE)[7:],
    "BytesIO": lambda _: io.BytesIO(PICTURE),
    "BytesIO at an offset": lambda _: at(io.BytesIO(b"7 bytes" + PICTURE), 7),
    "open file": lambda folder: path_of(folder).open("rb"),
    "open file at an offset": at_offset,
    "open file, unbuffered": lambda folder: path_of(folder).open("rb", buffering=0),
    "open file for update": lambda folder: path_of(folder).open("rb+"),
    "spooled file": spool,
    "member of an archive": unzip,
    "compressed file": gunzip,
    "File of a path": lambda folder: File(path_of(folder)),
    "File of a path with its size": lambda folder: File(str(path_of(folder)), size=len(PICTURE)),
    "File of bytes": lambda _: File(PICTURE, name="fox.png"),
    "File of an open file": lambda folder: File(at_offset(folder), name="fox.png"),
}
ONE_SHOT: dict[str, Callable[[Path], Any]] = {
    "async iterable": lambda _: File(pieces(), name="fox.png", size=len(PICTURE)),
    "async iterable of one piece": lambda _: File(pieces(len(PICTURE)), name="fox.png", size=len(PICTURE)),
    "async iterable of small pieces": lambda _: File(pieces(1999), name="fox.png", size=len(PICTURE)),
    "pipe": lambda _: File(pipe(), name="fox.png", size=len(PICTURE)),
}
SOURCES = {**REPLAYABLE, **ONE_SHOT}


def inner(source: Any) -> Any:
    return source.source if isinstance(source, File) else source


def close(source: Any) -> None:
    if hasattr(inner(source), "close"):
        inner(source).close()


def check_whole(received: Received, *files: tuple[ReceivedFile, str, str]) -> None:
    """Hold a request to its exact length, and its files to their digest and type."""
    assert int(received.headers["Content-Length"]) == received.body_size > 0
    assert "Transfer-Encoding" not in received.headers
    for file, digest, kind in files:
        assert (file.sha256, file.content_type) == (digest, kind)
        assert file.name.endswith({"image/png": ".png", "image/jpeg": ".jpg"}[kind])


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
async def test_p10_the_length_is_exact_and_the_bytes_are_its_own(
    sim: Simulator, client: Client, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    source = make(tmp_path)
    content = PICTURE if not isinstance(source, memoryview) else source.tobytes()
    try:
        await edit(client, image=source)
    finally:
        close(source)
    (received,) = seen(sim, "img2img")
    (file,) = received.files
    check_whole(received, (file, sha256(content), "image/png"))
    assert (file.field, file.size) == ("image", len(content))


async def test_p10_several_files_of_several_kinds_in_one_form(sim: Simulator, client: Client, tmp_path: Path) -> None:
    other = JPEG + bytes(300_000)
    with path_of(tmp_path).open("rb") as file:
        await edit(client, images=[str(path_of(tmp_path)), other, file, File(pieces(), name="fox.png", size=len(PICTURE))], guidance=2.5)
    (received,) = seen(sim, "img2img")
    png, jpeg = (sha256(PICTURE), "image/png"), (sha256(other), "image/jpeg")
    check_whole(received, *((file, *row) for file, row in zip(received.files, [png, jpeg, png, png], strict=True)))
    assert [file.field for file in received.files] == ["images[]"] * 4
    assert received.fields == {
        "prompt": "the same, at night", "model": "QwenImageEdit_Plus_NF4", "steps": "20", "seed": "42", "guidance": "2.5"
    }  # fmt: skip


async def test_p10_a_users_file_stays_open_and_where_it_was(sim: Simulator, client: Client, tmp_path: Path) -> None:
    with at_offset(tmp_path) as file, at(io.BytesIO(b"7 bytes" + PICTURE), 7) as memory:
        await asyncio.gather(*(edit(client, image=one) for one in (file, file, memory, memory)))
        assert not file.closed
        assert not memory.closed
        assert (file.tell(), memory.tell()) == (7, 7)
    assert {one.files[0].sha256 for one in seen(sim, "img2img")} == {sha256(PICTURE)}


async def test_p10_no_descriptor_is_left(sim: Simulator, client: Client, tmp_path: Path) -> None:
    sim.script("img2img", Fault.reset("mid_body"), Fault.status(422), Fault.rate_limited(retry_after=1), Fault.too_large(early=True))
    paths = [path_of(tmp_path), tmp_path / "nowhere.png"]
    for _ in range(5):
        await asyncio.gather(*(edit(client, images=paths[:1] * 3) for _ in range(2)), edit(client, images=paths), return_exceptions=True)
    await asyncio.sleep(10)
    assert not open_pictures()


async def test_p21_cancelled_at_any_step_no_descriptor_is_left(
    sim: Simulator, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = path_of(tmp_path)

    async def send() -> Job[Any]:
        return await edit(client, images=[path, path])

    told: set[str] = set()
    for steps in range(60):
        sending = asyncio.create_task(send())
        for _ in range(steps):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        if not sending.cancelled():
            told.add(sending.result().id)
    await asyncio.sleep(5)
    assert not open_pictures()
    # Whatever was paid for is known to somebody.
    unknown = [record for record in caplog.records if "SubmissionUnknownError" in record.getMessage()]
    assert len(told) + len(client.orphans) + len(unknown) >= sim.jobs_billed


def open_pictures() -> list[str]:
    """Name the uploaded files that this process still has open."""
    links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]  # noqa: PTH208  as cheap as it gets
    return [str(link.readlink()) for link in links if link.is_symlink() and "fox.png" in str(link.readlink())]


async def test_p10_a_big_file_goes_up_in_pieces(client: Client, sim: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate(10_000_000)
    await edit(client, image=path)
    (received,) = seen(sim, "img2img")
    check_whole(received, (received.files[0], sha256(path), "image/png"))


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 262_143, 262_144, 262_145, 524_288])
async def test_p10_the_edges_of_pieces(client: Client, sim: Simulator, tmp_path: Path, size: int) -> None:
    content = (PNG + os.urandom(size))[:size]
    (tmp_path / "edge.png").write_bytes(content)
    sim.script("img2img", Fault.status(422), times=3)
    for source in (tmp_path / "edge.png", content, io.BytesIO(content)):
        # The service's judgement of a single byte isn't the matter here.
        with pytest.raises(ValidationError):
            await edit(client, image=File(source, content_type="image/png"))
    assert len(seen(sim, "img2img")) == 3
    for received in seen(sim, "img2img"):
        assert received.files[0].sha256 == sha256(content)
        assert int(received.headers["Content-Length"]) == received.body_size


async def test_p10_a_reader_that_takes_nothing_more_ends_the_upload_in_idle_time(sim: Simulator) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=5)) as client:
        sim.script("img2img", Fault.hang("mid_body"))
        with pytest.raises(SubmissionUnknownError) as caught:
            await edit(client, image=PNG + bytes(40_000_000))
    assert caught.value.phase == "sending"
    assert 5 <= asyncio.get_running_loop().time() <= 5.5
    assert sim.jobs_billed == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [(pieces, len(PICTURE) + 1), (pieces, len(PICTURE) - 1), (pipe, len(PICTURE) + 1)],
    ids=["fewer pieces", "more pieces", "a pipe that ends early"],
)
async def test_p10_a_stream_of_another_size_than_said_bills_nothing(
    sim: Simulator, client: Client, make: Callable[[], Any], said: int
) -> None:
    source = make()
    with pytest.raises(SourceChangedError):
        await edit(client, image=File(source, name="fox.png", size=said))
    close(source)
    await asyncio.sleep(1)
    assert (len(seen(sim, "img2img")), sim.jobs_billed) == (1, 0)


async def broken(after: int) -> AsyncIterator[bytes]:
    yield PICTURE[:after]
    raise LookupError("a bug of the user's")


async def test_p10_what_a_users_own_stream_raises_bills_nothing_and_is_seen(sim: Simulator, client: Client) -> None:
    with pytest.raises(Exception, match="a bug of the user's"):
        await edit(client, image=File(broken(100_000), name="fox.png", size=len(PICTURE)))
    await asyncio.sleep(1)
    assert sim.jobs_billed == 0


@pytest.mark.parametrize("make", REPLAYABLE.values(), ids=REPLAYABLE)
async def test_p09_after_a_429_the_same_bytes_go_up_again(
    sim: Simulator, client: Client, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    sim.script("img2img", Fault.rate_limited(retry_after=2), Fault.rate_limited(retry_after=1, early=True))
    source = make(tmp_path)
    content = PICTURE if not isinstance(source, memoryview) else source.tobytes()
    try:
        await edit(client, image=source)
    finally:
        close(source)
    first, early, last = seen(sim, "img2img")
    assert [one.status for one in (first, early, last)] == [429, 429, 200]
    assert first.files[0].sha256 == last.files[0].sha256 == sha256(content)
    assert first.headers["Content-Length"] == early.headers["Content-Length"] == last.headers["Content-Length"]
    assert sim.jobs_billed == 1


@pytest.mark.parametrize("make", ONE_SHOT.values(), ids=ONE_SHOT)
async def test_p09_what_can_be_read_only_once_is_sent_only_once(
    sim: Simulator, client: Client, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    sim.script("img2img", Fault.rate_limited(retry_after=2))
    source = make(tmp_path)
    with pytest.raises(SourceNotReplayableError, match="make a new call with a fresh source"):
        await edit(client, image=source)
    close(source)
    assert (len(seen(sim, "img2img")), sim.jobs_billed) == (1, 0)


async def test_p09_what_wasnt_read_yet_can_still_be_sent() -> None:
    """A refused connection reads nothing of a one-shot source."""
    async with make_sim() as sim:
        rises: list[asyncio.Task[None]] = []

        def rise(_: object) -> None:
            if not rises:
                rises.append(asyncio.ensure_future(sim.come_up()))

        async with make_client(sim, on_event=rise) as client:
            await sim.go_down()
            await edit(client, image=File(pieces(), name="fox.png", size=len(PICTURE)))
        await asyncio.gather(*rises)
        assert seen(sim, "img2img")[0].files[0].sha256 == sha256(PICTURE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: File(pieces()),
        lambda: File(PICTURE, size=0),
        lambda: File(PICTURE, name=""),
        lambda: File(PICTURE, name="a\r\nb.png"),
        lambda: File(PICTURE, content_type="image/png\r\nX: y"),
        lambda: File(File(PICTURE)),
        lambda: File(5),  # type: ignore[arg-type]
        lambda: File(iter([b""])),  # type: ignore[arg-type]
    ],
)
def test_p10_what_cant_be_sent_is_refused_when_it_is_made(make: Callable[[], File]) -> None:
    with pytest.raises(InputError):
        make()


async def test_p10_streams_without_a_size_say_what_is_missing(sim: Simulator, client: Client) -> None:
    with pytest.raises(InputError, match=r"File\(\.\.\., size=<bytes>\)"):
        edit(client, image=pieces())
    left, right = socket.socketpair()
    with (
        left,
        right,
        left.makefile("rb") as stream,
        pytest.raises(SourceError, match=r"doesn't tell its size: give File\(\.\.\., size=<bytes>\)"),
    ):
        await edit(client, image=stream)
    assert not sim.requests


def interleaved() -> memoryview:
    doubled = bytearray(2 * len(PICTURE))
    doubled[::2] = PICTURE
    return memoryview(doubled)[::2]


@pytest.mark.parametrize("make", [interleaved, lambda: memoryview(PICTURE).cast("B", (4, len(PICTURE) // 4))], ids=["strided", "2-D"])
async def test_p10_memory_of_any_shape_is_sent_in_its_order(sim: Simulator, client: Client, make: Callable[[], memoryview]) -> None:
    await edit(client, image=make())
    assert seen(sim, "img2img")[0].files[0].sha256 == sha256(PICTURE)


class Uploads:
    """A file object that isn't one of Python's: it reads less than it is asked for."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def read(self, most: int = -1) -> bytes:
        return self._stream.read(min(most, 1000) if most > 0 else most)

    def seek(self, position: int, whence: int = 0) -> int:
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


async def test_p10_a_file_object_that_reads_in_small_pieces(sim: Simulator, client: Client) -> None:
    await edit(client, image=Uploads(PICTURE))
    (received,) = seen(sim, "img2img")
    check_whole(received, (received.files[0], sha256(PICTURE), "image/png"))
