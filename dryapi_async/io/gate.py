"""A client's places for requests: as many as its pool has connections."""

import asyncio

from dryapi_async.errors import PoolTimeoutError
from dryapi_async.io.places import Places


class Gate:
    """As many holders as the pool has connections; waiting for a place has a time-out and an error of its own."""

    def __init__(self, places: int, seconds: float | None) -> None:
        self._free = Places(places)
        self._places = places
        self._seconds = seconds

    async def __aenter__(self) -> None:
        """Take a place.

        Raises:
            PoolTimeoutError: None came free in time.
        """
        if self._free.take():
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeoutError(
                f"All {self._places} connections stayed busy for {self._seconds:g} s: nothing was sent. Raise pool_size, or send less."
            ) from None

    async def __aexit__(self, *_: object) -> None:
        """Give the place back."""
        self._free.release()
