"""Judge a file by its first bytes, as the service's mime check does."""

# ruff: noqa: PLR2004 - the numbers are those of the file formats
from __future__ import annotations

import struct

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"ID3", "mp3"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1aE\xdf\xa3", "webm"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpeg"),
    (b"0&\xb2u\x8ef\xcf\x11", "wmv"),
)
_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}
_SVG_HEAD = 1024

IMAGES = frozenset({"png", "jpeg", "gif", "bmp", "webp"})
AUDIO = frozenset({"mp3", "wav", "ogg", "flac", "m4a", "aac", "webm"})
VIDEO = frozenset({"mp4", "mov", "mpeg", "avi", "wmv", "ogg", "webm"})
KINDS = {"image": IMAGES, "images": IMAGES, "audio": AUDIO, "video": VIDEO}


def sniff(head: bytes) -> str | None:
    """Name the format of a file from its first bytes, or None."""
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return {b"M4A ": "m4a", b"M4B ": "m4a", b"qt  ": "mov"}.get(head[8:12], "mp4")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0x06 == 0 else "mp3"
    if b"<svg" in head[:_SVG_HEAD]:
        return "svg"
    return None


def measure(head: bytes) -> tuple[int, int] | None:
    """Read an image's width and height from its first bytes, or None where they don't say."""
    reader = _MEASURERS.get(sniff(head) or "")
    try:
        return reader(head) if reader is not None else None
    except struct.error:
        return None


def _measure_png(head: bytes) -> tuple[int, int]:
    return struct.unpack(">II", head[16:24])


def _measure_gif(head: bytes) -> tuple[int, int]:
    return struct.unpack("<HH", head[6:10])


def _measure_bmp(head: bytes) -> tuple[int, int]:
    width, height = struct.unpack("<ii", head[18:26])
    return width, abs(height)


def _measure_jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        at += 2 + struct.unpack(">H", head[at + 2 : at + 4])[0]
    return None


def _measure_webp(head: bytes) -> tuple[int, int] | None:
    chunk = head[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        bits = struct.unpack("<I", head[21:25])[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


_MEASURERS = {"png": _measure_png, "gif": _measure_gif, "bmp": _measure_bmp, "jpeg": _measure_jpeg, "webp": _measure_webp}
