"""Run minutes of waiting in milliseconds, over real sockets: an event loop whose clock jumps.

In plain code::

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())

With anyio's pytest plugin::

    @pytest.fixture
    def anyio_backend():
        return "asyncio", {"loop_factory": JumpingLoop}

What the clock does:

* It stands still while callbacks run, and while a thread call is out.
* It jumps to the next timer when nothing is ready, no socket has news, no thread call is out, and no connect is young.
* It walks with the real clock inside `JumpingLoop.hold`.

Counted thread calls, each until its answer is in the loop's queue, even where nobody waits for it any more: `loop.run_in_executor`
with any executor, and so `asyncio.to_thread`, aiofiles, `loop.getaddrinfo` and `loop.getnameinfo`; `anyio.to_thread.run_sync` and
`anyio.open_file` while they hold a token of anyio's default limiter. Not counted, so wait for them inside `hold`: other processes,
threads of your own, anyio thread calls with a limiter of their own, and those given up with `abandon_on_cancel=True`. A thread call
that itself waits for a timer of the loop never ends, for the clock stands still for it: `patience` tells.

Code that asks `time.monotonic` sees real time. aiohttp's client dates its idle connections so: they don't grow old here. The server's
keep-alive runs on the loop's timers, and does.
"""

import asyncio
import contextvars
import math
import selectors
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from anyio.to_thread import current_default_thread_limiter

if TYPE_CHECKING:
    from socket import socket

    from anyio import CapacityLimiter

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Events = list[tuple[selectors.SelectorKey, int]]
Select = Callable[[float | None], Events]

# Linux delivers loopback bytes inside the call that sends them: of 60,003 waits of an HTTP client and server in one loop, most of them on
# busy CPUs, none looked too early, and 120 rounds of 16 uploads of 10 MiB (plain, from files, TLS; busy CPUs) met no false time-out, 20
# of them without a grace. Where another CPU delivers (tried with receive packet steering on loopback; other systems may always do so),
# 6,365 of 29,000 waits looked too early; a sleep of 0.1 ms left 183 of 3,940 such, 0.2 ms 85 of 7,921, 1 ms 6 of 109. The price:
# 3,000 seconds with a request each take 2.3 s, not 1.3 s; on busy CPUs 4.7 s, not 3.5 s (30 s, had it yielded in place of sleeping).
GRACE_SECONDS = 0.0002
# A full accept queue drops a connect; Linux repeats it after 1 s (twice with 500 at once on a backlog of 100), which no socket shows.
CONNECT_SECONDS = 2.5
CLOCK_RESOLUTION = time.get_clock_info("monotonic").resolution
TASKS_SHOWN = 5


class _AskingSelector(selectors.DefaultSelector):
    """Let the loop decide how it waits."""

    def __init__(self, wait: Callable[[Select, float | None], Events]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> Events:
        return self._wait(super().select, timeout)


class VirtualClock:
    """Virtual seconds, from 0.0, which walk with the real ones while they are held."""

    def __init__(self, wall_start: float | None) -> None:
        self._now = 0.0
        self._wall_start = time.time() if wall_start is None else wall_start
        self._holds = 0
        self._held_since = 0.0

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._now + (time.monotonic() - self._held_since) if self._holds else self._now

    def wall_time(self) -> float:
        """Return the seconds since the epoch that a wall clock would show, had the virtual time really passed."""
        return self._wall_start + self.time()

    @contextmanager
    def hold(self) -> Generator[None]:
        """Let the clock walk with the real one, without a jump, while something real but uncounted is at work: a process, a thread.

        Timers then fire after real seconds, and `patience` doesn't count. May be nested. Enter and leave it on the loop's own thread.
        """
        if not self._holds:
            self._held_since = time.monotonic()
        self._holds += 1
        try:
            yield
        finally:
            if self._holds == 1:
                self._now = self.time()
            self._holds -= 1


class JumpingLoop(VirtualClock, asyncio.SelectorEventLoop):
    """Keep virtual seconds, from 0.0, and jump to the next timer in place of sleeping.

    Args:
        patience: real seconds without any event, where no timer is set or a thread call holds the clock, after which a RuntimeError
            names the waiting tasks; None waits for ever, as other loops do.
        limit: virtual seconds after which a jump raises a RuntimeError (once per such span, so that the clean-up has time too); None
            lives for ever.
        grace: real seconds to sleep, for late bytes, before each jump while any socket is open.
        wall_start: the wall clock at virtual zero, in seconds since the epoch; None takes the real one.
    """

    def __init__(
        self,
        *,
        patience: float | None = 10.0,
        limit: float | None = None,
        grace: float = GRACE_SECONDS,
        wall_start: float | None = None,
    ) -> None:
        VirtualClock.__init__(self, wall_start)
        self._patience = patience
        self._limit = limit
        self._end = math.inf if limit is None else limit
        self._grace = grace
        self._calls_out: set[Future[Any]] = set()
        self._connects: list[float] = []
        self._threads: ThreadPoolExecutor | None = None
        self._limiter: CapacityLimiter | None = None
        self._asking = _AskingSelector(self._wait)
        asyncio.SelectorEventLoop.__init__(self, self._asking)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `func(*args)` in a thread (or a process), and keep the clock still until its answer is in the loop's queue."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        call = (self._default_threads() if executor is None else executor).submit(func, *args)
        self._calls_out.add(call)
        answer = asyncio.wrap_future(call, loop=self)
        # After wrap_future's own callback, and through the same queue: the clock can't pass between the end of the call and its answer.
        call.add_done_callback(self._report_end)
        return answer

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:  # type: ignore[override]  # asyncio takes threads only, too
        """Use these threads where `run_in_executor` is given none."""
        super().set_default_executor(executor)
        self._threads = executor

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the default threads within `timeout` real seconds (Python 3.11: without a time-out, as its other loops do)."""
        # The joining thread is asyncio's own and uncounted: unheld, the clock would jump to the time-out at once.
        with self.hold():
            if sys.version_info >= (3, 12):
                await super().shutdown_default_executor(timeout)
            else:
                await super().shutdown_default_executor()

    async def sock_connect(self, sock: "socket", address: Any) -> None:
        """Connect, and keep the clock still for the first `CONNECT_SECONDS` real seconds of it."""
        began = time.monotonic()
        self._connects.append(began)
        try:
            await super().sock_connect(sock, address)
        finally:
            self._connects.remove(began)

    def _default_threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
            super().set_default_executor(self._threads)
        return self._threads

    def _report_end(self, call: Future[Any]) -> None:
        # Runs in the worker thread, where a closed loop has nobody left to tell.
        with suppress(RuntimeError):
            self.call_soon_threadsafe(self._calls_out.discard, call)

    def _wait(self, select: Select, timeout: float | None) -> Events:
        if self._holds or (timeout is not None and timeout <= 0):
            return select(timeout)
        if events := select(0):
            return events
        calls = len(self._calls_out) + self._count_anyio_calls()
        connecting = max(self._connects, default=-math.inf) + CONNECT_SECONDS - time.monotonic()
        if not calls and connecting > 0:
            return select(connecting)
        if calls or timeout is None:
            return self._wait_for_news(select, calls)
        events = self._grant_grace(select)
        if not events:
            self._jump(timeout)
        return events

    def _wait_for_news(self, select: Select, calls: int) -> Events:
        events = select(self._patience)
        if events or self._patience is None:
            return events
        cause = (
            f"{calls} thread call(s) are out, and the clock stands still for them" if calls else "no timer is set, no thread call is out"
        )
        waiting = sorted(map(repr, asyncio.all_tasks(self)))
        raise RuntimeError(
            f"Nothing happened for {self._patience:g} real seconds: {cause}. For other processes and threads, wait inside "
            f"`with loop.hold():`; JumpingLoop(patience=None) waits for ever. {len(waiting)} task(s) wait:\n"
            + "\n".join(waiting[:TASKS_SHOWN])
        )

    def _grant_grace(self, select: Select) -> Events:
        # One file is always there: the loop's own wake-up pipe.
        if self._grace <= 0 or len(self._asking.get_map()) <= 1:
            return []
        time.sleep(self._grace)
        return select(0)

    def _jump(self, seconds: float) -> None:
        then = self._now + seconds
        if then > self._end:
            reached, self._end = self._end, then + (self._limit or 0)
            raise RuntimeError(f"The clock reached its limit of {reached:g} virtual seconds, and the next timer is at {then:g}")
        # A timer is due before now + resolution. Past 2**23 seconds (97 days) a float can't tell the two apart, so the clock goes one
        # step beyond it: else the timer would never be due, nor the clock move again.
        self._now = then if then + CLOCK_RESOLUTION > then else math.nextafter(then, math.inf)

    def _count_anyio_calls(self) -> int:
        if self._limiter is None:
            # In a context of its own, and only once.
            self._limiter = contextvars.copy_context().run(_find_limiter)
        return self._limiter.borrowed_tokens


def _find_limiter() -> "CapacityLimiter":
    # sniffio, where another package brings it, sees asyncio only from inside a task, and the loop's wait is outside of all tasks.
    if (sniffio := sys.modules.get("sniffio")) is not None:
        sniffio.current_async_library_cvar.set("asyncio")
    return current_default_thread_limiter()


@contextmanager
def hold_clock() -> Generator[None]:
    """Hold the running loop's clock as `VirtualClock.hold` does; under any other loop, do nothing."""
    loop = asyncio.get_running_loop()
    with loop.hold() if isinstance(loop, VirtualClock) else nullcontext():
        yield


def wall_time() -> float:
    """Return the seconds since the epoch: by the running `VirtualClock`, else by the real clock."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return time.time()
    return loop.wall_time() if isinstance(loop, VirtualClock) else time.time()
