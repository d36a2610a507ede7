"""Places that are taken and given back, many times for each job."""

import asyncio


class Places:
    """So many holders at once, first come, first served.

    asyncio's semaphore does the queueing; it is asked only where somebody has to wait, for even a free one costs several calls.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting = 0
        self._queue = asyncio.Semaphore(0)
        """It holds what was given back while somebody waited, also where that one was cancelled meanwhile."""

    def locked(self) -> bool:
        """Say whether who asks now has to wait."""
        return not self._free and self._queue.locked()

    def take(self) -> bool:
        """Take a place that nobody ever had to wait for; where there is none, `acquire` may still find one without waiting."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def acquire(self) -> None:
        """Take a place."""
        if self.take():
            return
        self._waiting += 1
        try:
            await self._queue.acquire()
        finally:
            self._waiting -= 1

    def release(self) -> None:
        """Give a place back."""
        if self._waiting:
            self._queue.release()
        else:
            self._free += 1

    async def __aenter__(self) -> None:
        """Take a place."""
        if not self.take():
            await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self.release()
