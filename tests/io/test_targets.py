"""P19: what a result is called, which format it has, and where it may lie."""

import os
from pathlib import Path

import pytest

from dryapi_async import Client, DownloadError, Image, ImgRmbg, InputError
from dryapi_async.simulator import Simulator

from ..conftest import FOX, PNG, files_in, make_client, make_sim, seen

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
