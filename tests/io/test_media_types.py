"""P31: a content type is the explicit one, else what the first bytes show, else what the name says; the name's ending is made to match."""

import io
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import frozen

from dryapi_async import Client, File, SourceError
from dryapi_async.io.sources import Reader
from dryapi_async.io.uploads import size_up
from dryapi_async.protocol.files import Source
from dryapi_async.protocol.multipart import SizedFile
from dryapi_async.protocol.wire import FilePart
from dryapi_async.simulator import Simulator
from dryapi_async.simulator.blobs import tiny_picture

from ..conftest import edit, seen, sha256

pytestmark = pytest.mark.anyio

Kind = Literal["image", "audio", "video"]


def make_bmp() -> bytes:
    pixels = bytes(8 * 8 * 3)
    header = struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + header + pixels


def make_wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return out.getvalue()


def container(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand + b"isom" + b"\0\0\0\x08free" + bytes(64)


EBML = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webmB\x87\x81\x04B\x85\x81\x02" + bytes(64)


@frozen
class Format:
    """One of the twelve: its bytes, its type, the endings that fit, the usual one first."""

    content: bytes
    content_type: str
    endings: tuple[str, ...]
    kind: Kind


FORMATS = {
    "PNG": Format(tiny_picture("p31", "png"), "image/png", (".png", ".PNG"), "image"),
    "JPEG": Format(tiny_picture("p31", "jpg"), "image/jpeg", (".jpg", ".jpeg", ".JPG"), "image"),
    "WebP": Format(tiny_picture("p31", "webp"), "image/webp", (".webp",), "image"),
    "GIF": Format(tiny_picture("p31", "gif"), "image/gif", (".gif",), "image"),
    "BMP": Format(make_bmp(), "image/bmp", (".bmp",), "image"),
    "MP4": Format(container(b"mp42"), "video/mp4", (".mp4", ".m4v"), "video"),
    "WebM": Format(EBML, "video/webm", (".webm",), "video"),
    "MP3": Format(b"ID3\x04\0\0\0\0\0\0" + bytes(64), "audio/mpeg", (".mp3",), "audio"),
    "WAV": Format(make_wav(), "audio/wav", (".wav",), "audio"),
    "OGG": Format(b"OggS\0\x02" + bytes(64), "audio/ogg", (".ogg", ".oga"), "audio"),
    "FLAC": Format(b"fLaC\0\0\0\x22" + bytes(64), "audio/flac", (".flac",), "audio"),
    "M4A": Format(container(b"M4A "), "audio/mp4", (".m4a",), "audio"),
}
VARIETIES = {
    "MP3 without a tag": Format(b"\xff\xfb\x90\x64" + bytes(400), "audio/mpeg", (".mp3",), "audio"),
    "MP3 of MPEG 2": Format(b"\xff\xf3\x40\xc4" + bytes(400), "audio/mpeg", (".mp3",), "audio"),
    "MP4 isom": Format(container(b"isom"), "video/mp4", (".mp4",), "video"),
    "MP4 avc1": Format(container(b"avc1"), "video/mp4", (".mp4",), "video"),
    "JPEG Exif": Format(b"\xff\xd8\xff\xe1\0\x10Exif\0\0" + bytes(64), "image/jpeg", (".jpg",), "image"),
    "GIF 89a": Format(b"GIF89a\x01\0\x01\0\0\0\0;", "image/gif", (".gif",), "image"),
}
ALL = {**FORMATS, **VARIETIES}


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def judge(source: Source, kind: Kind) -> SizedFile:
    """Do what an upload does before it lays its form out."""
    reader = Reader(source)
    try:
        return size_up(FilePart(name="file", kind=kind, source=source), reader, reader.open())
    finally:
        reader.close()


MAKERS: dict[str, Callable[[Path, str, bytes], Any]] = {
    "path": write,
    "str": lambda folder, name, content: str(write(folder, name, content)),
    "bytes": lambda _, __, content: content,
    "BytesIO": lambda _, __, content: io.BytesIO(content),
    "open file": lambda folder, name, content: write(folder, name, content).open("rb"),
}


@pytest.mark.parametrize("named", ["right", "wrong", "unknown", "bare"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("row", ALL.values(), ids=ALL)
def test_p31_the_first_bytes_tell(tmp_path: Path, row: Format, make: Callable[[Path, str, bytes], Any], named: str) -> None:
    wrong = ".png" if row.content_type != "image/png" else ".mp3"
    name = "fox" + {"right": row.endings[0], "wrong": wrong, "unknown": ".xyz", "bare": ""}[named]
    source = make(tmp_path, name, row.content)
    try:
        found = judge(source, row.kind)
    finally:
        if hasattr(source, "close"):
            source.close()
    assert (found.content_type, found.size) == (row.content_type, len(row.content))
    assert found.filename.endswith(row.endings)
    if make is MAKERS["path"]:
        expected = {"right": name, "wrong": "fox" + row.endings[0], "unknown": "fox.xyz" + row.endings[0], "bare": "fox" + row.endings[0]}
        assert found.filename == expected[named]


@pytest.mark.parametrize("row", ALL.values(), ids=ALL)
def test_p31_an_ending_that_fits_is_left_as_it_is(row: Format) -> None:
    for ending in row.endings:
        assert judge(File(row.content, name=f"A Fox{ending}"), row.kind).filename == f"A Fox{ending}"


@pytest.mark.parametrize("row", ALL.values(), ids=ALL)
def test_p31_what_is_said_outdoes_the_first_bytes(row: Format) -> None:
    other = {"image": "image/png", "audio": "audio/flac", "video": "video/webm"}[row.kind]
    found = judge(File(row.content, name="fox.bin", content_type=other), row.kind)
    assert found.content_type == other
    assert found.filename == "fox.bin" + {"image": ".png", "audio": ".flac", "video": ".webm"}[row.kind]


@pytest.mark.parametrize(
    ("name", "kind", "content_type"),
    [
        ("a.mp3", "audio", "audio/mpeg"),
        ("a.M4A", "audio", "audio/mp4"),
        ("a.mov", "video", "video/quicktime"),
        ("a.mpeg", "video", "video/mpeg"),
        ("a.aac", "audio", "audio/aac"),
        ("a.xyz", "audio", "application/octet-stream"),
        ("a", "video", "application/octet-stream"),
        (".mp3", "audio", "application/octet-stream"),
    ],
)
def test_p31_where_the_bytes_say_nothing_the_name_tells(name: str, kind: Kind, content_type: str) -> None:
    assert judge(File(b"\x01\x02\x03\x04 nothing known", name=name), kind).content_type == content_type


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("fox.jpeg", "fox.png"),
        ("fox.tar.gz", "fox.tar.gz.png"),
        ("fox.v2", "fox.v2.png"),
        ("fox.", "fox..png"),
        (".png", ".png.png"),
        (".hidden", ".hidden.png"),
        ("Füchse im Schnee.png", "Füchse im Schnee.png"),
        ('ein "Fuchs".png', 'ein "Fuchs".png'),
        ("a;b=c.png", "a;b=c.png"),
        ("\N{FOX FACE}.webp", "\N{FOX FACE}.png"),
        ("x" * 300 + ".png", "x" * 300 + ".png"),
    ],
)
async def test_p31_names_of_all_kinds_reach_the_service(sim: Simulator, client: Client, name: str, sent: str) -> None:
    await edit(client, image=File(FORMATS["PNG"].content, name=name))
    (received,) = seen(sim, "img2img")
    assert received.files[0].name == sent
    assert set(received.fields) == {"prompt", "model", "steps", "seed"}


async def test_p31_a_name_cant_break_out_of_its_header(sim: Simulator, client: Client, tmp_path: Path) -> None:
    path = write(tmp_path, 'a"\r\nX-Evil: 1\r\n\r\nprompt.png', FORMATS["PNG"].content)
    await edit(client, image=path)
    (received,) = seen(sim, "img2img")
    assert [file.sha256 for file in received.files] == [sha256(path)]
    assert received.fields["prompt"] == "the same, at night"
    assert int(received.headers["Content-Length"]) == received.body_size


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("row", [row for row in FORMATS.values() if row.kind == "image"], ids=lambda row: row.content_type)
async def test_p31_pictures_arrive_as_what_they_are(
    sim: Simulator, client: Client, tmp_path: Path, row: Format, make: Callable[[Path, str, bytes], Any]
) -> None:
    sources = [make(tmp_path, name, row.content) for name in ("right" + row.endings[0], "wrong.txt")]
    try:
        await edit(client, image=sources[0])
        await edit(client, images=sources)
    finally:
        for source in sources:
            if hasattr(source, "close"):
                source.close()
    files = [file for received in seen(sim, "img2img") for file in received.files]
    assert len(files) == 3
    for file in files:
        assert (file.content_type, file.sha256) == (row.content_type, sha256(row.content))
        assert file.name.endswith(row.endings[0])
    assert sim.jobs_billed == 2


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_p31_a_file_of_another_kind_is_refused(row: Format, kind: Kind) -> None:
    # Sound and film share containers.
    if kind == row.kind or {kind, row.kind} == {"audio", "video"}:
        assert judge(row.content, kind).content_type == row.content_type
    else:
        with pytest.raises(SourceError, match=f"is {row.content_type}, but file takes {kind}"):
            judge(row.content, kind)
        assert judge(File(row.content, content_type=f"{kind}/x-of-the-user"), kind).content_type == f"{kind}/x-of-the-user"


def test_p31_a_picture_of_no_known_kind_may_be_sent_where_the_user_says_so() -> None:
    with pytest.raises(SourceError, match=r"say File\(\.\.\., content_type='image/\.\.\.'\)"):
        judge(File(b"unknown", name="fox.png"), "image")
    assert judge(File(b"unknown", name="fox.jxl", content_type="image/jxl"), "image").filename == "fox.jxl"
