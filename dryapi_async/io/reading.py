"""Answers while they are read."""

from typing import Final

import aiohttp

MOST_ANSWER_BYTES: Final = 128 * 1024 * 1024
"""An answer of the API that is longer isn't one: the longest by contract is about 46 MB (2,048 embeddings)."""


class Reading:
    """An answer to a request without a body, while it is read. Leaving it costs nothing where it was read to its end."""

    __slots__ = ("_all", "_response")

    def __init__(self, all_of_them: set[aiohttp.ClientResponse], response: aiohttp.ClientResponse) -> None:
        self._all = all_of_them
        self._response = response

    def __enter__(self) -> None:
        self._all.add(self._response)

    def __exit__(self, *_: object) -> None:
        self._all.discard(self._response)
        if not self._response.closed:
            self._response.release()


async def read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer of no known length."""
    pieces: list[bytes] = []
    total = 0
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > MOST_ANSWER_BYTES:
            response.close()
            raise aiohttp.ClientPayloadError(f"more than {MOST_ANSWER_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)
