"""P19: what a result is called, which format it has, and where it may lie."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import Client, DownloadError, Image, ImgRmbg, InputError, Transcript
from dryapi_async.io.downloads import Downloads
from dryapi_async.operations.results import check_format, check_path
from dryapi_async.simulator import Simulator

from ..conftest import FOX, PNG, files_in, make_client, make_sim, seen, without_root

pytestmark = pytest.mark.anyio

HEADS = {"png": b"\x89PNG", "jpg": b"\xff\xd8\xff", "webp": b"RIFF"}


@pytest.fixture
async def image(client: Client) -> Image:
    return await client.call(FOX).result()


@pytest.mark.parametrize(
    ("target", "format_", "made", "kind"),
    [
        ("fox.png", None, "fox.png", "png"),
        ("fox.jpg", None, "fox.jpg", "jpg"),
        ("fox.jpeg", None, "fox.jpeg", "jpg"),
        ("fox.JPG", None, "fox.JPG", "jpg"),
        ("fox.webp", None, "fox.webp", "webp"),
        ("fox", None, "fox", "png"),
        ("fox.xyz", None, "fox.xyz", "png"),
        ("fox.png", "webp", "fox.png", "webp"),
        ("fox.bin", "JPEG", "fox.bin", "jpg"),
        ("fox.jpg", "png", "fox.jpg", "png"),
        (".", None, "{id}.png", "png"),
        (".", "jpg", "{id}.jpg", "jpg"),
        (".", ".webp", "{id}.webp", "webp"),
        ("Füchse im Schnee.webp", None, "Füchse im Schnee.webp", "webp"),
    ],
)
async def test_p19_the_format_is_what_is_said_or_what_the_suffix_names(
    image: Image, tmp_path: Path, target: str, format_: str | None, made: str, kind: str
) -> None:
    path = await image.save(tmp_path / target, format_)
    assert path == tmp_path / made.format(id=image.request_id)
    assert path.read_bytes().startswith(HEADS[kind])
    assert files_in(tmp_path) == [path.name]
    assert (await image.save(str(tmp_path / target), format_)) == path


async def test_p19_read_and_stream_take_a_format_too(image: Image) -> None:
    for kind, head in HEADS.items():
        assert (await image.read(kind)).startswith(head)
        assert (await anext(aiter(image.stream(kind)))).startswith(head)


async def test_p19_a_format_that_isnt_there_says_which_are(sim: Simulator, client: Client, tmp_path: Path) -> None:
    image = await client.call(ImgRmbg(image=PNG, model="Ben2")).result()
    reads = len(seen(sim, "request-status"))
    with pytest.raises(DownloadError, match=r"has no jpg link \(other formats: webp\)"):
        await image.save(tmp_path / "fox.jpg")
    # A format may have come since: that is one read.
    assert len(seen(sim, "request-status")) == reads + 1
    with pytest.raises(DownloadError, match="has no tiff link"):
        await image.read("tiff")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("variant", ["alt-null", "alt-empty-list", "alt-partial"])
async def test_p19_other_formats_may_be_missing(sim: Simulator, client: Client, tmp_path: Path, variant: str) -> None:
    sim.variants(variant)
    image = await client.call(FOX).result()
    assert (await image.save(tmp_path)).name == f"{image.request_id}.png"
    with pytest.raises(DownloadError, match="no jpg link"):
        await image.save(tmp_path, "jpg")


NONSENSE = [
    "../../x",
    "..",
    ".",
    "a/b",
    "/etc/x",
    "..\\..\\x",
    "~/x",
    "C:x",
    "x" * 400,
    "\N{FOX FACE}",
    "-rf",
    ".hidden",
    "a b",
    "%2e%2e%2fx",
    "?x=1#y",
]


@pytest.mark.parametrize("request_id", NONSENSE)
async def test_p19_a_nonsense_id_cant_leave_the_folder(tmp_path: Path, request_id: str) -> None:
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    async with make_sim() as sim, make_client(sim) as client:
        job = await client.call(FOX)
        await job.result()
        # The job goes by another id from now on, as if the service had given it.
        sim.jobs[request_id] = sim.jobs[job.id]
        path = await client.job(f"txt2img:{request_id}").save(folder)
        assert path.parent == folder
        assert files_in(tmp_path) == ["deep", "deep/er", f"deep/er/{path.name}"]
        assert not path.name.startswith(".")
        assert path.suffix == ".png"
        assert seen(sim, "request-status")[-1].request_id == request_id
        assert len({one.path.count("/") for one in seen(sim, "request-status")}) == 1


@pytest.mark.parametrize("request_id", ["", "a\0b", "a\nb", "a\x7fb"])
async def test_p19_an_id_that_is_no_text_is_no_ticket(client: Client, request_id: str) -> None:
    with pytest.raises(InputError):
        client.job(f"txt2img:{request_id}")


async def test_p19_an_error_of_the_target_passes_unchanged(sim: Simulator, image: Image, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for target, error in ((tmp_path / "no" / "where.png", FileNotFoundError), (tmp_path / "file" / "fox.png", NotADirectoryError)):
        with pytest.raises(error):
            await image.save(target)
    with pytest.raises(OSError, match="File name too long"):
        await image.save(tmp_path / ("x" * 300))
    assert files_in(tmp_path) == ["file"]


async def test_p19_a_pipe_or_device_as_target_isnt_replaced(sim: Simulator, image: Image, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(FileExistsError, match="no plain file"):
        await image.save(tmp_path / "pipe.png")
    assert (tmp_path / "pipe.png").is_fifo()
    assert files_in(tmp_path) == ["pipe.png"]


@pytest.mark.parametrize("finish", ["call", "job", "ticket"])
async def test_p19_save_from_every_side(client: Client, tmp_path: Path, finish: str) -> None:
    call = client.call(FOX)
    if finish == "call":
        path = await call.save(tmp_path / "fox.webp")
    elif finish == "job":
        path = await (await call).save(tmp_path / "fox.bin", "webp")
    else:
        path = await client.job((await call).ticket, type(FOX)).save(tmp_path / "fox.webp")
    assert path.read_bytes().startswith(HEADS["webp"])


@pytest.mark.parametrize("length", [200, 241, 242, 250, 255])
@pytest.mark.parametrize("letter", ["x", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"], ids=["ascii", "two bytes each"])
async def test_p19_a_name_as_long_as_the_file_system_takes_is_saved(image: Image, tmp_path: Path, length: int, letter: str) -> None:
    name = letter * ((length - 4) // len(letter.encode()))
    target = tmp_path / f"{name}{'x' * (length - 4 - len(name.encode()))}.png"
    assert len(target.name.encode()) == length
    assert await image.save(target) == target
    assert files_in(tmp_path) == [target.name]


async def test_p19_a_name_that_is_too_long_is_refused_before_anything_is_fetched(sim: Simulator, image: Image, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        await image.save(tmp_path / f"{'x' * 252}.png")
    assert not sim.storage_requests


@pytest.mark.parametrize("request_id", ["../../../x", "a\0b", "/etc/passwd", "." * 300, "/" * 300, "x" * 300, "\n", "\ud800", ""])
async def test_p19_no_id_of_the_network_leaves_the_folder(
    client: Client, sim: Simulator, image: Image, tmp_path: Path, request_id: str
) -> None:
    """Whatever the service calls a job: files and texts."""
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    named = Image(request_id=request_id, url=image.url, door=downloads_of(client))
    text = Transcript(request_id=request_id, text="fox", door=downloads_of(client))
    for path in (await named.save(folder), await text.save(folder)):
        assert path.parent == folder
        assert path.is_file()
        assert not path.name.startswith(".")
        assert len(path.name.encode()) < 255
    assert len(files_in(tmp_path)) == 4


def downloads_of(client: Client) -> Downloads:
    assert client._life.current is not None
    return client._life.current.downloads


@pytest.mark.parametrize(
    "good", [None, "jpg", "webp", "JPG", ".jpeg", "jpe", "png", ".PNG", "mp4", "mp3", "wav", "flac", "ogg", "txt", "json"]
)
def test_p19_formats_that_some_result_has_are_taken(good: str | None) -> None:
    check_format(good)


@pytest.mark.parametrize("wrong", ["jpgg", "jpg ", "", ".", "jp", "image/jpeg", "fox.jpg", "tiff", 7, b"jpg", True, [], ("jpg",)])
def test_p19_a_format_that_no_result_has_is_an_input_error(wrong: Any) -> None:
    with pytest.raises(InputError, match="'jpg', 'webp', or None for the file as the service made it"):
        check_format(wrong)


async def test_p19_every_results_own_ending_is_a_format(client: Client, image: Image) -> None:
    check_format(image.default_ending)
    assert (await image.read(image.default_ending)).startswith(HEADS["png"])


class Place:
    """A PathLike of whatever it is given."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def __fspath__(self) -> Any:
        return self._given


@pytest.mark.parametrize("good", ["fox.png", "/tmp", Path("fox.png"), Path(), ".", "a b\nc", "\udcff.png", Place("fox.png")])  # noqa: S108  nothing is written
def test_p19_paths_are_str_or_pathlike(good: Any) -> None:
    assert check_path(good) == Path(os.fspath(good))


WRONG_PATHS = [None, b"fox.png", 7, 1.5, True, "", "a\0b", "\ud800.png", Place(b"fox.png"), Place(7), Place(""), [], ["fox.png"], object()]


@pytest.mark.parametrize("wrong", WRONG_PATHS)
async def test_p19_what_is_no_path_is_an_input_error(sim: Simulator, image: Image, wrong: Any) -> None:
    with pytest.raises(InputError, match="str or PathLike"):
        check_path(wrong)
    with pytest.raises(InputError, match="str or PathLike"):
        await image.save(wrong)
    assert not sim.storage_requests


@pytest.mark.parametrize("target", ["fox.png", ".", "old.png", "dangling", "link"])
async def test_p19_a_good_target_is_found_good_and_left_as_it_is(client: Client, image: Image, tmp_path: Path, target: str) -> None:
    (tmp_path / "old.png").write_bytes(b"an older result")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "link").symlink_to(tmp_path / "old.png")
    there = files_in(tmp_path)
    await downloads_of(client).check_target(tmp_path / target)
    assert files_in(tmp_path) == there
    assert (tmp_path / "old.png").read_bytes() == b"an older result"
    assert (await image.save(tmp_path / target)).is_file()


BAD_TARGETS = {
    "missing folder": ("no/where.png", FileNotFoundError),
    "file as folder": ("file/fox.png", NotADirectoryError),
    "pipe": ("pipe", FileExistsError),
    "device": ("null", FileExistsError),
    "long name": ("x" * 256, OSError),
    "long folder": ("x" * 256 + "/fox.png", OSError),
    "circle": ("circle/fox.png", OSError),
}


@pytest.mark.parametrize(("target", "kind"), BAD_TARGETS.values(), ids=BAD_TARGETS)
async def test_p19_a_bad_target_is_told_before_and_as_saving_tells_it(
    sim: Simulator, client: Client, image: Image, tmp_path: Path, target: str, kind: type[OSError]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    there = files_in(tmp_path)
    with pytest.raises(kind) as before:
        await downloads_of(client).check_target(tmp_path / target)
    with pytest.raises(kind) as saving:
        await image.save(tmp_path / target)
    assert (type(before.value), before.value.errno) == (type(saving.value), saving.value.errno)
    assert files_in(tmp_path) == there
    assert not sim.storage_requests


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """Give a folder that may not be written, to somebody whom its mode holds."""
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        folder.chmod(0o555)
        with without_root():
            yield folder
        folder.chmod(0o700)


async def test_p19_a_folder_that_may_not_be_written_is_told_before(
    sim: Simulator, client: Client, image: Image, locked_folder: Path
) -> None:
    with pytest.raises(PermissionError):
        await downloads_of(client).check_target(locked_folder)
    with pytest.raises(PermissionError):
        await downloads_of(client).check_target(locked_folder / "fox.png")
    with pytest.raises(PermissionError):
        await image.save(locked_folder / "fox.png")
    assert not sim.storage_requests
    assert files_in(locked_folder) == []
