"""What a card shows of a file: judged by its first bytes, and no file can break it."""

import io
import struct
import sys
import zlib
from base64 import b64decode
from pathlib import Path

import pytest

from dryapi_async.sheet.preview import MOST_PIXELS, preview
from dryapi_async.simulator.blobs import tiny_picture, tiny_png

Image = pytest.importorskip("PIL.Image", reason="thumbnails are Pillow's")


def save(path: Path, image: "Image.Image", **options: object) -> Path:
    image.save(path, **options)
    return path


def opened(thumbnail: str | None) -> "Image.Image":
    assert thumbnail is not None
    image = Image.open(io.BytesIO(b64decode(thumbnail)))
    assert image.format == "WEBP"
    return image


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(side: int) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_pictures_become_small(tmp_path: Path, ending: str) -> None:
    seen = preview(save(tmp_path / f"a.{ending}", Image.linear_gradient("L").convert("RGB").resize((1000, 500))))
    assert seen is not None
    assert (seen.kind, seen.pixels, seen.readable) == ("picture", (1000, 500), True)
    assert opened(seen.thumbnail).size == (240, 120)
    assert len(seen.thumbnail or "") < 8000


def test_a_thumbnail_of_a_photo_has_a_few_kilobytes(tmp_path: Path) -> None:
    noise = Image.effect_noise((1024, 1024), 60).convert("RGB")
    seen = preview(save(tmp_path / "a.png", Image.blend(Image.linear_gradient("L").convert("RGB").resize((1024, 1024)), noise, 0.2)))
    assert seen is not None
    assert len(seen.thumbnail or "") < 12_000


def test_what_is_transparent_stays_so(tmp_path: Path) -> None:
    seen = preview(save(tmp_path / "a.png", Image.new("RGBA", (300, 300), (255, 0, 0, 0))))
    assert seen is not None
    assert opened(seen.thumbnail).convert("RGBA").getpixel((100, 100))[3] == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16"])
def test_every_mode_is_taken(tmp_path: Path, mode: str) -> None:
    ending = "jpg" if mode == "CMYK" else "png"
    seen = preview(save(tmp_path / f"a.{ending}", Image.new(mode, (400, 300))))
    assert seen is not None
    assert opened(seen.thumbnail).size == (240, 180)


def test_a_photo_lies_as_its_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = preview(save(tmp_path / "a.jpg", Image.new("RGB", (2000, 1000)), exif=exif))
    assert seen is not None
    assert seen.pixels == (1000, 2000)
    assert opened(seen.thumbnail).size == (120, 240)


def test_a_small_picture_isnt_enlarged(tmp_path: Path) -> None:
    seen = preview(save(tmp_path / "a.png", Image.new("RGB", (20, 10))))
    assert seen is not None
    assert opened(seen.thumbnail).size == (20, 10)


def test_a_very_large_picture_isnt_decoded(tmp_path: Path) -> None:
    side = int(MOST_PIXELS**0.5) + 1
    seen = preview(save(tmp_path / "a.png", Image.new("1", (side, side))))
    assert seen is not None
    assert (seen.pixels, seen.thumbnail, seen.readable) == ((side, side), None, False)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_isnt_decoded_and_nobody_is_warned(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(bomb(side))
    seen = preview(tmp_path / "a.png")
    assert seen is not None
    assert (seen.kind, seen.pixels, seen.thumbnail, seen.readable) == ("picture", (side, side), None, False)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif"])
def test_no_damage_breaks_it(tmp_path: Path, ending: str) -> None:
    whole = tiny_picture("a fox", ending)
    file = tmp_path / "a"
    for size in range(12, len(whole), max(1, len(whole) // 60)):
        for content in (whole[:size], whole[:size] + b"\xa5" * 20 + whole[size + 20 :]):
            file.write_bytes(content)
            seen = preview(file)
            assert seen is not None
            assert seen.readable == (seen.thumbnail is not None)


def test_kinds_are_told_by_the_first_bytes(tmp_path: Path) -> None:
    kinds = {
        b"RIFF\0\0\0\0WAVEfmt ": "audio",
        b"ID3\x04" + bytes(20): "audio",
        b"\0\0\0\x18ftypisom" + bytes(20): "video",
        b"\x1aE\xdf\xa3....webm": "video",
        b"hello": "text",
        "für Füchse".encode(): "text",
        b"\xff\xfe\xfa": "other",
        b"PK\x03\x04\0\0": "other",
        b"": "other",
    }
    for content, kind in kinds.items():
        (tmp_path / "a.png").write_bytes(content)
        seen = preview(tmp_path / "a.png")
        assert seen is not None
        assert seen.kind == kind, content
    assert preview(tmp_path / "nothing") is None
    assert preview(tmp_path) is None


def test_a_texts_beginning_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for text, kept in {
        "short": "short",
        "x" * 3000: "x" * 2000 + "…",
        "ü" * 90_001: "ü" * 2000 + "…",
        "a" + "ü" * 90_000: "a" + "ü" * 1999 + "…",
    }.items():
        file.write_text(text, encoding="utf-8")
        seen = preview(file)
        assert seen is not None
        assert seen.text == kept


def test_without_pillow_the_page_shows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(tiny_png("a"))
    monkeypatch.setitem(sys.modules, "PIL", None)
    seen = preview(tmp_path / "a.png")
    assert seen is not None
    assert (seen.kind, seen.thumbnail, seen.readable) == ("picture", None, True)


def test_pillow_is_loaded_by_the_first_picture_only() -> None:
    import subprocess  # noqa: PLC0415  a fresh interpreter is asked

    asked = "import sys, dryapi_async; a = 'dryapi_async.sheet' in sys.modules; import dryapi_async.sheet; print(a, 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout == "False False\n"
