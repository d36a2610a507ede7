"""Which kind of file this is, and what its name becomes."""

import pytest

from dryapi_async.protocol.media import ending_for, ending_of, match_name, sniff, type_of_name

HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "image/gif": b"GIF89a\x01\x00",
    "image/bmp": b"BM\x36\x00\x00\x00",
    "video/mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00",
    "video/webm": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm",
    "audio/mpeg": b"\xff\xfb\x90\x64\x00\x00",
    "audio/wav": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "audio/ogg": b"OggS\x00\x02",
    "audio/flac": b"fLaC\x00\x00\x00\x22",
    "audio/mp4": b"\x00\x00\x00\x18ftypM4A \x00\x00\x02\x00",
    "audio/aac": b"\xff\xf1\x50\x80",
    "image/svg+xml": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
}


@pytest.mark.parametrize(("content_type", "head"), HEADS.items())
def test_p31_magic_bytes(content_type: str, head: bytes) -> None:
    assert sniff(head) == content_type
    assert sniff(b"ID3\x04" + head) == "audio/mpeg"


@pytest.mark.parametrize(
    "head", [b"", b"hello", b"<html>", b"%PDF-1.7", b"\xff\xff\xff\xff", b"PK\x03\x04", b"\x00" * 512, b"RIFF\x00\x00\x00\x00XXXX"]
)
def test_what_is_no_media(head: bytes) -> None:
    assert sniff(head) is None


@pytest.mark.parametrize(
    ("name", "content_type", "sent"),
    [
        ("a.png", "image/png", "a.png"),
        ("a.JPEG", "image/jpeg", "a.JPEG"),
        ("a.png", "image/jpeg", "a.jpg"),
        ("a", "image/webp", "a.webp"),
        ("a.b", "image/png", "a.b.png"),
        ("report.v2", "image/png", "report.v2.png"),
        ("a.png", "application/octet-stream", "a.png"),
        (".png", "image/png", ".png.png"),
    ],
)
def test_p31_the_name_is_made_to_match(name: str, content_type: str, sent: str) -> None:
    assert match_name(name, content_type) == sent


def test_names_and_endings_agree() -> None:
    for content_type in HEADS:
        assert type_of_name(f"x{ending_for(content_type)}") == content_type
    assert (ending_of("a/b.c/d"), ending_of("x.TAR.GZ"), ending_for("nothing/known"), ending_for("image/png; q=1")) == (
        "",
        ".gz",
        "",
        ".png",
    )
