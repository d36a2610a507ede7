"""What a card shows of a file: which kind it is, a small picture, or the beginning of a text."""

import io
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dryapi_async.protocol.media import SNIFF_BYTES, sniff

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_PIXELS: Final = 240
"""The longer side of a thumbnail."""
THUMBNAIL_QUALITY: Final = 60
"""WebP's: about 4 KB for a photo of this size."""
MOST_PIXELS: Final = 50_000_000
"""Larger pictures aren't decoded: one of 50 million takes 200 MB while it is made small."""
MOST_CHARACTERS: Final = 2_000
"""Of a text's beginning."""

_KINDS: Final = {"image": "picture", "audio": "audio", "video": "video", "text": "text"}
_FORMATS: Final = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
}


@frozen
class Preview:
    """What can be said of a file without its neighbours.

    Args:
        kind: ``picture``, ``audio``, ``video``, ``text`` or ``other``, by the first bytes.
        size: Bytes.
        pixels: A picture's width and height as it is shown, where they could be read.
        thumbnail: A small WebP in base64; None where the file is no picture, or none that can be made small.
        text: A text's beginning.
        readable: False for a picture that is damaged or too large: a browser isn't asked to decode it for a card.
    """

    kind: str
    size: int
    pixels: tuple[int, int] | None = None
    thumbnail: str | None = None
    text: str | None = None
    readable: bool = True


def preview(file: Path, *, thumbnail: bool = True) -> Preview | None:
    """Look at a file: 10 to 40 ms of one core for a picture of a megapixel. None where it can't be read."""
    try:
        with file.open("rb") as opened:
            head = opened.read(max(SNIFF_BYTES, 4 * MOST_CHARACTERS))
            size = file.stat().st_size
    except OSError:
        return None
    content_type = sniff(head[:SNIFF_BYTES])
    if content_type is None:
        text = read_text(head, whole=size <= len(head))
        return Preview("other" if text is None else "text", size, text=text)
    kind = _KINDS[content_type.partition("/")[0]]
    if kind != "picture" or not thumbnail:
        return Preview(kind, size)
    return _shrink(file, content_type, size)


def read_text(head: bytes, *, whole: bool) -> str | None:
    """Decode the beginning of a text in UTF-8; None where it is none."""
    if not head or b"\0" in head:
        return None
    # The last character may be cut.
    for cut in range(1 if whole else 4):
        try:
            text = head[: len(head) - cut].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        return text if whole and len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
    return None


def _shrink(file: Path, content_type: str, size: int) -> Preview:
    """Make a picture small. Without Pillow, or for a kind it doesn't know, the page shows the file itself."""
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415  an extra: only who shrinks imports it
    except ImportError:
        return Preview("picture", size)
    Image.init()
    plugin = Image.OPEN.get(_FORMATS.get(content_type, ""))
    if plugin is None:
        return Preview("picture", size)
    pixels: tuple[int, int] | None = None
    try:
        # Not Image.open, which warns on stderr of what is refused here by a limit of its own.
        with file.open("rb") as opened, plugin[0](opened, str(file)) as image:
            pixels = image.size
            if pixels[0] * pixels[1] > MOST_PIXELS:
                return Preview("picture", size, pixels, readable=False)
            # A JPEG is decoded at an eighth of its size where that is enough.
            image.draft("RGB", (THUMBNAIL_PIXELS * 2, THUMBNAIL_PIXELS * 2))
            small: Image.Image = image
            small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            turned = ImageOps.exif_transpose(small)
            if (turned.width > turned.height) != (small.width > small.height):
                pixels = (pixels[1], pixels[0])
            return Preview("picture", size, pixels, encode(turned))
    except Exception:  # noqa: BLE001  a damaged file makes Pillow raise anything, from OSError to IndexError
        return Preview("picture", size, pixels, readable=False)


def encode(image: "Image.Image") -> str:
    """Encode as WebP in base64, and keep what is transparent so."""
    out = io.BytesIO()
    image.convert("RGBA" if image.has_transparency_data else "RGB").save(out, "WEBP", quality=THUMBNAIL_QUALITY, method=2)
    return b64encode(out.getvalue()).decode("ascii")
