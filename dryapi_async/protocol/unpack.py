"""Bodies that a storage host compressed although it was asked not to: turned back a bounded piece at a time."""

import zlib
from typing import Final

MOST_UNPACKED_BYTES: Final = 256 * 1024
"""What one step gives at most, however little it was packed into."""
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_UNREADABLE: Final = frozenset({"br", "zstd", "compress", "x-compress"})
_ANY_WRAPPER: Final = 47
"""zlib's word for: gzip or zlib, see by the first bytes."""


class Unpacker:
    """Unpacks one gzip or deflate body."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding in _GZIP
        self._stream = zlib.decompressobj(_ANY_WRAPPER)
        self._input = b""
        self._pending = self._begun = self._over = False

    @property
    def whole(self) -> bool:
        """Whether the packed stream came to its own end."""
        return self._over or self._stream.eof

    def feed(self, piece: bytes) -> bytes:
        """Take in a piece (empty: none), and give what it unpacks to; empty where more is needed. Call it until then.

        Raises:
            ValueError: It isn't what it says to be.
        """
        self._input += piece
        while (self._input or self._pending) and not self._over:
            unpacked = self._step()
            if unpacked:
                return unpacked
        return b""

    def _step(self) -> bytes:
        if not self._begun and not self._gzip and self._input[0] & 0x0F != 8:  # noqa: PLR2004  8 is zlib's method
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)  # many servers' deflate has no wrapper
        self._begun = True
        try:
            unpacked = self._stream.decompress(self._input, MOST_UNPACKED_BYTES)
        except zlib.error as error:
            raise ValueError(f"it can't be unpacked: {error}") from None
        self._pending = len(unpacked) == MOST_UNPACKED_BYTES and not self._stream.eof
        self._input = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        if self._stream.eof and self._input:
            # gzip files may be joined; what else follows the end is padding.
            self._over = not (self._gzip and self._input.startswith(b"\x1f"))
            self._stream = self._stream if self._over else zlib.decompressobj(_ANY_WRAPPER)
        return unpacked


def read_coding(given: str) -> str | None:
    """Read a Content-Encoding: ``gzip`` or ``deflate``, or None where the bytes are the file's own.

    Words that pack nothing (identity, aws-chunked, utf-8) are passed over, as HTTP clients do.

    Raises:
        ValueError: Packed in a way, or in several, that can't be unpacked here.
    """
    found = [word for word in (one.strip().lower() for one in given.split(",")) if word in _GZIP | _UNREADABLE | {"deflate"}]
    if len(found) > 1 or _UNREADABLE.intersection(found):
        raise ValueError(", ".join(found))
    return found[0] if found else None
