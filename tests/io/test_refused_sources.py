"""What can't be a source says what to do, and nothing is billed."""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiofiles
import anyio
import pytest

from dryapi_async import AudioFile2Txt, Client, File, Img2Img, InputError, SourceError
from dryapi_async.simulator import Simulator

from ..conftest import PNG, edit, seen, sha256
from .streams import PICTURE, Stream, no_threads_left, open_file, spool, stream_at

pytestmark = pytest.mark.anyio


def released() -> memoryview:
    view = memoryview(PICTURE)
    view.release()
    return view


def closed(stream: Any) -> Any:
    stream.close()
    return stream


def detached(folder: Path) -> Any:
    stream = open_file(folder)
    stream.detach().close()
    return stream


class OddPath:
    """A path that gives no text."""

    def __fspath__(self) -> str:
        return 5  # type: ignore[return-value]


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a NUL in a path": (lambda folder: f"{folder}/a\0.png", "NUL character.*check how it was made"),
    "a NUL in a Path": (lambda folder: folder / "a\0.png", "NUL character"),
    "a path too long": (lambda folder: f"{folder}/{'x/' * 5000}fox.png", "File name too long. Check the path"),
    "a name too long": (lambda folder: folder / ("x" * 300), "File name too long. Check the path"),
    "a surrogate in a path": (lambda folder: f"{folder}/\ud800.png", "can't be read: UnicodeEncodeError"),
    "a directory": (lambda folder: folder, "is a directory: give the path of one file"),
    "no path": (lambda _: "", "No such file"),
    "an odd path": (lambda _: OddPath(), "can't be read: TypeError"),
    "a released memoryview": (lambda _: released(), "memoryview.*can't be read: ValueError.*released"),
    "StringIO": (lambda _: File(io.StringIO("x")), "is open as text: open it with mode 'rb'"),  # type: ignore[arg-type]
    "a wrapped text file": (lambda _: tempfile.NamedTemporaryFile("w+"), "is empty|gives str, not bytes"),  # noqa: SIM115  it closes itself
    "a closed file": (lambda folder: closed(open_file(folder)), "is closed: open it again, or give its path"),
    "a closed BytesIO": (lambda _: closed(io.BytesIO(PICTURE)), "is closed: open it again"),
    "a closed spool": (lambda folder: closed(spool(folder)), "is closed: open it again"),
    "a detached file": (detached, "BufferedReader.*detached"),
    "BytesIO at its end": (
        lambda _: stream_at(io.BytesIO(PICTURE), len(PICTURE)),
        r"is empty from where it stands, 700000: seek\(0\) first",
    ),
    "open file at its end": (
        lambda folder: stream_at(open_file(folder), 999_999),
        r"is empty from where it stands, 999999: seek\(0\) first",
    ),
    "own class at its end": (lambda _: stream_at(Stream(), 700_000), r"is empty from where it stands, 700000: seek\(0\) first"),
    "nothing": (lambda _: b"", "is empty"),
    "no FileIO": (lambda _: File(None), "File takes a path"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
async def test_p26_what_cant_be_a_source_says_what_to_do_and_sends_nothing(
    sim: Simulator, client: Client, tmp_path: Path, make: Callable[[Path], Any], said: str
) -> None:
    source: Any = None
    with pytest.raises(InputError, match=said):
        await edit(client, image=(source := make(tmp_path)))
    assert not sim.requests
    with suppress(AttributeError, ValueError):
        source.close()
    await no_threads_left()


@pytest.mark.parametrize("wrap", [lambda source: source, lambda source: File(source, size=5), lambda source: File(source, name="fox.png")])
async def test_p26_handles_that_are_read_asynchronously_say_what_to_give(
    client: Client, tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    (tmp_path / "fox.png").write_bytes(PICTURE)
    async with aiofiles.open(tmp_path / "fox.png", "rb") as first, await anyio.open_file(tmp_path / "fox.png", "rb") as second:
        for source in (first, second):
            with pytest.raises(InputError, match=r"give the path, or a file that open\(path, 'rb'\) opened|needs File"):
                edit(client, image=wrap(source))


@pytest.mark.parametrize("said", [{"name": 5}, {"content_type": 5}, {"name": b"fox.png"}, {"size": "5"}, {"content_type": ""}])
def test_p26_what_is_said_of_a_file_must_be_text(said: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"File\({next(iter(said))}="):
        File(PICTURE, **said)


class Odd(Stream):
    """A file object that gives something else than it should, after its first bytes were looked at."""

    __slots__ = ("gives", "reads")

    def __init__(self, gives: object) -> None:
        super().__init__()
        self.gives = gives
        self.reads = 0

    def read(self, most: int = -1) -> Any:
        self.reads += 1
        return super().read(most) if self.reads == 1 else self.gives


@pytest.mark.parametrize(
    ("gives", "said"), [("text", "gives str, not bytes"), (None, "gives NoneType, not bytes"), (PICTURE + b"1", "changed")]
)
async def test_p26_pieces_that_arent_bytes_are_told_and_nothing_is_billed(sim: Simulator, client: Client, gives: Any, said: str) -> None:
    async def odd() -> AsyncIterator[Any]:
        yield gives

    for source in (Odd(gives), File(odd(), name="fox.png", size=len(PICTURE))):
        with pytest.raises(SourceError, match=said):
            await edit(client, image=source)
    await asyncio.sleep(1)
    assert sim.jobs_billed == 0


async def test_p10_a_file_for_update_is_sent_with_what_was_written_to_it(sim: Simulator, client: Client, tmp_path: Path) -> None:
    with (tmp_path / "fox.png").open("wb+") as file:
        file.write(b"else" + PICTURE[4:])
        file.seek(0)
        file.read(1)
        file.seek(0)
        file.write(PNG[:4])
        file.seek(0)
        await edit(client, image=file)
        assert file.tell() == 0
    assert seen(sim, "img2img")[0].files[0].sha256 == sha256(PICTURE)


@pytest.mark.parametrize("given", [[], (), [PNG], (PNG, PNG)], ids=["none", "no tuple", "one", "two"])
def test_a_list_where_one_file_is_taken_is_refused(given: Any) -> None:
    """An empty one was sent, and paid for, without its file."""
    with pytest.raises(InputError, match=r"AudioFile2Txt: audio must be a path, bytes, a binary file, or File\(\.\.\.\), not (list|tuple)"):
        AudioFile2Txt(audio=given, model="WhisperLargeV3", include_ts=False)
    with pytest.raises(InputError, match=r"Img2Img: image must be a path"):
        Img2Img(prompt="a fox", model="QwenImageEdit_Plus_NF4", steps=4, seed=1, image=given)
