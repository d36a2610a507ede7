"""uvloop with a clock that jumps: the same tests on the other loop. libuv can't be asked how it waits, so it is watched.

A jump is made where for a real millisecond nothing was put into the loop's queue, no thread call is out, and the sockets were looked at
since: loopback delivers at once, so nothing is under way then.
"""

import asyncio
import heapq
from concurrent.futures import Executor
from contextvars import Context
from typing import Any

import uvloop

from dryapi_async.testing.clock import VirtualClock

WATCH_SECONDS = 0.001
LOOKS = 3
"""Rounds of the loop, each with a look at the sockets, before a jump."""


class JumpingUvloop(VirtualClock, uvloop.Loop):  # type: ignore[misc]  # uvloop's own class has a time, too
    def __init__(self) -> None:
        VirtualClock.__init__(self, None)
        uvloop.Loop.__init__(self)
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._queued = 0
        self._calls_out = 0
        self._watch: asyncio.TimerHandle | None = None

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        self._queued += 1
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        self._queued += 1
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        self._start_watch()
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Take asyncio's word; what is cancelled is dropped when its turn comes."""

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:
        self._calls_out += 1
        answer = super().run_in_executor(executor, func, *args)
        answer.add_done_callback(self._end_call)
        return answer

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        # It runs in libuv's own threads.
        self._calls_out += 1
        try:
            return await super().getaddrinfo(*args, **kwargs)
        finally:
            self._calls_out -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        with self.hold():
            await super().shutdown_default_executor(timeout)

    def _end_call(self, _: Any) -> None:
        self._calls_out -= 1

    def _start_watch(self) -> None:
        if self._watch is None and not self.is_closed():
            self._watch = super().call_later(WATCH_SECONDS, self._look, self._queued, LOOKS)

    def _look(self, queued: int, left: int) -> None:
        self._watch = None
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            return
        if self._holds:
            self._run_due()
        elif self._queued == queued and not self._calls_out:
            if left:
                super().call_soon(self._look, queued, left - 1)
                return
            self._now = max(self._now, self._timers[0][0])
            self._run_due()
        self._start_watch()

    def _run_due(self) -> None:
        now = self.time()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                self._queued += 1
                # As asyncio does it: the callback runs in the loop's next round, and may be cancelled until then.
                super().call_soon(_run_timer, timer)


def _run_timer(timer: asyncio.TimerHandle) -> None:
    if not timer.cancelled():
        timer._run()
