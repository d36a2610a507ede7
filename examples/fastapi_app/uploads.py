"""An upload's way from the socket to the disk: piece by piece, within a limit, and only pictures."""

from collections.abc import AsyncIterable
from pathlib import Path
from typing import Final

import aiofiles

_KINDS: Final = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png", b"GIF8": "image/gif", b"BM": "image/bmp"}
_HEAD_BYTES: Final = 12
_HEARD_OUT: Final = 4
"""Times the limit: what is too large is read so far, and not kept. Who is cut off while sending mostly doesn't get the answer."""


class RefusedError(Exception):
    """An upload that isn't taken: an HTTP status, and why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def receive(chunks: AsyncIterable[bytes], target: Path, *, most_bytes: int) -> str:
    """Write an upload to a file, whole or not at all, and give its media type.

    Raises:
        RefusedError: It is too large, or no picture.
    """
    part, size, head = target.with_suffix(".part"), 0, b""
    try:
        async with aiofiles.open(part, "xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                head = (head + chunk[:_HEAD_BYTES])[:_HEAD_BYTES]
                if size <= most_bytes:
                    await file.write(chunk)
                elif size > _HEARD_OUT * most_bytes:
                    break
        if size > most_bytes:
            raise RefusedError(413, f"The photo is too large: at most {most_bytes / 2**20:.3g} MiB.")
        if (kind := kind_of(head)) is None:
            raise RefusedError(415, "That is no JPEG, PNG, WebP, GIF or BMP.")
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return kind


def kind_of(head: bytes) -> str | None:
    """Tell a picture's media type by its first bytes; what the sender says of it proves nothing."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _KINDS.items() if head.startswith(start)), None)
