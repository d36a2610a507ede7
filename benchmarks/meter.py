"""What a piece of work costs the process and the loop that it runs in."""

import asyncio
import gc
import resource
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen

TICK_SECONDS: Final = 0.005
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


@frozen(kw_only=True)
class Reading:
    """What was measured."""

    seconds: float
    cpu_seconds: float
    """User and system time of the whole process, its threads included."""
    rss_growth_bytes: int
    """Peak resident memory over what was resident when the work began."""
    rss_peak_bytes: int
    """Peak resident memory of the work, the interpreter and all that was imported included."""
    stall_seconds: float
    """The latest that a task which sleeps `TICK_SECONDS` again and again in the same loop was woken."""


class Ticker:
    """A task that wants to be woken every `TICK_SECONDS`, and notes how late that happens."""

    def __init__(self) -> None:
        self.latest_seconds = 0.0

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.latest_seconds = max(self.latest_seconds, time.perf_counter() - due)


async def measure(work: Coroutine[Any, Any, None]) -> Reading:
    """Run some work beside a ticker, and say what it cost."""
    gc.collect()
    resident = _reset_peak()
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0)
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        await work
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        await asyncio.sleep(2 * TICK_SECONDS)  # else a stall at the very end would go unseen
    finally:
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
    peak = _peak_bytes()
    return Reading(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        rss_growth_bytes=max(peak - resident, 0),
        rss_peak_bytes=peak,
        stall_seconds=ticker.latest_seconds,
    )


def describe_memory() -> str:
    """Say where the peak of resident memory is read from."""
    if _CLEAR.exists():
        return "the kernel's high-water mark (VmHWM), set back when the work begins"
    return "getrusage's ru_maxrss, which can't be set back: growth below an earlier peak is not seen"


def _reset_peak() -> int:
    """Set the high-water mark back to what is resident now, where the system can; bytes."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    if _CLEAR.exists():
        mark = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(mark.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
