"""Result files: in memory, on disk, or made up while they are read."""

from __future__ import annotations

import base64
import functools
import hashlib
import struct
import zlib
from pathlib import Path
from typing import Protocol

from attrs import frozen

_FILLER = 262_139  # a prime: no two pieces of any usual size are alike, so one in the place of another shows


class Blob(Protocol):
    """A file's bytes, readable at any place."""

    @property
    def content_type(self) -> str:
        """The media type it is served with."""
        ...

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    @property
    def etag(self) -> str:
        """A strong validator, with its quotes."""
        ...

    def read(self, start: int, size: int) -> bytes:
        """Read a part."""
        ...


@frozen
class MemoryBlob:
    """Bytes held in memory."""

    content_type: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.data)

    @property
    def etag(self) -> str:
        """A strong validator, with its quotes."""
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'

    def read(self, start: int, size: int) -> bytes:
        """Read a part."""
        return self.data if not start and size >= len(self.data) else self.data[start : start + size]


@frozen
class DiskBlob:
    """A file on disk; ``etag`` is of its bytes, computed once when it was written."""

    content_type: str
    path: Path
    size: int
    etag: str

    def read(self, start: int, size: int) -> bytes:
        """Read a part."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)


@frozen
class PaddedBlob:
    """A small file followed by filler (shifted by what is drawn from the seed) up to a size: any length without holding it."""

    content_type: str
    head: bytes
    size: int
    seed: bytes

    @property
    def etag(self) -> str:
        """A strong validator, with its quotes."""
        digest = hashlib.md5(self.head + self.seed + str(self.size).encode(), usedforsecurity=False)
        return f'"{digest.hexdigest()}"'

    def read(self, start: int, size: int) -> bytes:
        """Read a part."""
        stop = min(start + size, self.size)
        pieces = [self.head[start:stop]] if start < len(self.head) else []
        at = max(start, len(self.head))
        shift = int.from_bytes(hashlib.blake2b(self.seed, digest_size=8).digest(), "big")
        while at < stop:
            place = (at - len(self.head) + shift) % _FILLER
            piece = _fill()[place : place + stop - at]
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)


@functools.cache
def _fill() -> bytes:
    return hashlib.shake_128(b"filler").digest(_FILLER)


def write_blob(path: Path, content_type: str, data: bytes) -> DiskBlob:
    """Keep bytes on disk."""
    path.write_bytes(data)
    return DiskBlob(content_type, path, len(data), f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"')


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiny_png(label: str, width: int = 8, height: int = 8) -> bytes:
    """Make a valid one-colour PNG that differs by its label, without Pillow."""
    colour = hashlib.sha256(label.encode()).digest()[:3]
    rows = (b"\x00" + colour * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = b"Comment\x00" + label.encode("latin-1", "replace")
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"tEXt", text)
        + _chunk(b"IDAT", zlib.compress(rows, 1))
        + _chunk(b"IEND", b"")
    )


# Eight by eight pixels of one colour; what follows a file's end is ignored by every decoder, so a label makes each differ.
_TINY = {
    "jpg": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8yb"
    "qmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/wAAR"
    "CAAIAAgDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAL/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAAAw"
    "T/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCQFoX/2Q==",
    "webp": "UklGRh4AAABXRUJQVlA4TBEAAAAvB8ABAAdQvGoVuf+BiOh/AAA=",
    "gif": "R0lGODdhCAAIAIEAAFp4yAAAAAAAAAAAACwAAAAACAAIAAAIDwABCBxIsKDBgwgTKkwYEAA7",
}


def tiny_picture(label: str, kind: str) -> bytes:
    """Make a valid small picture (png, jpg, webp, gif) that differs by its label, without Pillow."""
    return tiny_png(label) if kind == "png" else base64.b64decode(_TINY[kind]) + label.encode("latin-1", "replace")
