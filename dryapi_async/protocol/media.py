"""Which kind of file this is: by its first bytes, else by its name."""

from typing import Final

SNIFF_BYTES: Final = 512
"""How many first bytes are looked at."""

OCTETS: Final = "application/octet-stream"

_ENDINGS: Final[dict[str, tuple[str, ...]]] = {
    "image/png": (".png", ".apng"),
    "image/jpeg": (".jpg", ".jpeg", ".jpe"),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
    "image/bmp": (".bmp",),
    "image/tiff": (".tif", ".tiff"),
    "image/avif": (".avif",),
    "image/heic": (".heic", ".heif"),
    "image/svg+xml": (".svg",),
    "video/mp4": (".mp4", ".m4v"),
    "video/webm": (".webm",),
    "video/quicktime": (".mov", ".qt"),
    "video/x-matroska": (".mkv",),
    "video/x-msvideo": (".avi",),
    "video/x-ms-wmv": (".wmv", ".asf"),
    "video/mpeg": (".mpeg", ".mpg"),
    "audio/mpeg": (".mp3",),
    "audio/wav": (".wav",),
    "audio/ogg": (".ogg", ".oga", ".opus"),
    "video/ogg": (".ogv",),
    "audio/flac": (".flac",),
    "audio/mp4": (".m4a",),
    "audio/aac": (".aac",),
    "audio/webm": (".weba",),
    "text/plain": (".txt",),
    "application/json": (".json",),
}
_TYPES: Final = {ending: content_type for content_type, endings in _ENDINGS.items() for ending in endings}

_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
    (b"0&\xb2u\x8ef\xcf\x11", "video/x-ms-wmv"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS: Final = {
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heic",
}


def sniff(head: bytes) -> str | None:
    """Name the content type that a file's first bytes show, or None.

    Knows PNG JPEG WebP GIF BMP TIFF AVIF HEIC SVG, MP4 MOV WebM MKV AVI WMV MPEG, MP3 WAV OGG FLAC M4A AAC.
    """
    for magic, content_type in _MAGIC:
        if head.startswith(magic):
            return content_type
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    return _sniff_frames(head) or _sniff_svg(head)


def _sniff_frames(head: bytes) -> str | None:
    """Look for an MPEG audio frame: eleven sync bits, then a layer (0 is AAC's ADTS) and a bit rate that exist."""
    if len(head) < 3 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:  # noqa: PLR2004  the frame's sync word
        return None
    if head[1] & 0xF6 == 0xF0:  # noqa: PLR2004  twelve sync bits, layer 0
        return "audio/aac"
    layer, bit_rate = head[1] >> 1 & 3, head[2] >> 4
    return "audio/mpeg" if layer and bit_rate != 15 else None  # noqa: PLR2004  15 is no bit rate


def _sniff_svg(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return (
        "image/svg+xml"
        if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text)
        else None
    )


def ending_of(name: str) -> str:
    """Cut a file name's ending off, lower-case and with its dot; empty where it has none."""
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem and "/" not in ending else ""


def type_of_name(name: str) -> str | None:
    """Name the content type that a file name promises, or None."""
    return _TYPES.get(ending_of(name))


def ending_for(content_type: str) -> str:
    """Name the usual ending of a content type, with its dot; empty where none is known."""
    return _ENDINGS.get(content_type.partition(";")[0].strip().lower(), ("",))[0]


def fits_name(name: str, content_type: str) -> bool:
    """Say whether a file of a content type may have this name: only an ending that promises another type is wrong."""
    promised, endings = type_of_name(name), _ENDINGS.get(content_type.partition(";")[0].strip().lower())
    return promised is None or endings is None or ending_of(name) in endings


def match_name(name: str, content_type: str) -> str:
    """Make a file name's ending agree with its content type: the service judges both."""
    endings = _ENDINGS.get(content_type)
    if endings is None or ending_of(name) in endings:
        return name
    stem = name[: -len(ending)] if (ending := ending_of(name)) in _TYPES else name
    return stem + endings[0]
