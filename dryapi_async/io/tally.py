"""Digests of what is sent, for sources that have no stamp that would tell of a change."""

from hashlib import blake2b
from typing import Final

Known = tuple[int, bytes]
"""The digest of the first so many bytes."""

DIGEST_BYTES: Final = 16


class Tally:
    """The digest of what was read so far, held against what is known already."""

    def __init__(self, known: Known | None) -> None:
        self._known = known
        self._count = 0
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self.known: Known | None = known

    def add(self, piece: bytes) -> bool:
        """Add the next piece; False where it isn't what it was."""
        view, same = memoryview(piece), True
        if self._known is not None and self._count < self._known[0] <= self._count + len(piece):
            left = self._known[0] - self._count
            self._add(view[:left])
            same, view = self._hash.digest() == self._known[1], view[left:]
        self._add(view)
        if self.known is None or self._count > self.known[0]:
            self.known = self._count, self._hash.digest()
        return same

    def _add(self, view: memoryview) -> None:
        self._hash.update(view)
        self._count += len(view)


def digest(view: memoryview) -> bytes:
    """Give the digest of memory; it holds the interpreter up only briefly, about 1 s a GB goes by without it."""
    return blake2b(view, digest_size=DIGEST_BYTES).digest()
