"""The lanes that several processes keep together: a turn in the shared store, and what to do while it is away."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from math import inf
from secrets import token_hex
from typing import Any, Final

from attrs import define

from dryapi_async.config import DAY_SECONDS
from dryapi_async.errors import RateLimitError, RequestTimeoutError, SharedStateError
from dryapi_async.io.pacing import TellWait
from dryapi_async.protocol.endpoint import STATUS_LANE
from dryapi_async.protocol.lanes import MARGIN, DayWindow, Window
from dryapi_async.protocol.replies import next_midnight
from dryapi_async.shared import Limiter, SharedRate, WhenAway, share_of

logger: logging.Logger = logging.getLogger("dryapi_async")

ASK_AGAIN: Final = 5.0
"""Seconds after which who waits asks again, however long he was told to wait: others may have died."""
PROBE_SECONDS: Final = 0.25
"""How often it is looked whether the store is back, and whether a process alone may go on."""
DAY_MARGIN: Final = 60.0
"""Seconds that this machine's clock and the store's may differ about midnight."""
CLOSING_SECONDS: Final = 2.0


@define(eq=False)
class Grant:
    """A place that was given out, by the store or by this process alone."""

    token: str
    rates: tuple[SharedRate, ...]
    windows: tuple[Window, ...] | None = None
    """This process's own, where the store was away."""


class SharedLanes:
    """One account's lanes as this process sees them. It has a task only while the store is away."""

    def __init__(self, limiter: Limiter, *, processes: int, when_away: WhenAway, tell: TellWait, wall: Callable[[], float]) -> None:
        self._limiter = limiter
        self._processes = processes
        self._when_away = when_away
        self._tell = tell
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._away: str | None = None
        self._asked_at: float | None = None
        self._windows: dict[tuple[str, float], Window] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._alone: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Task[None] | None = None

    async def enter(
        self, lane: str, rates: tuple[SharedRate, ...], *, deadline: float, request: str, tell: TellWait | None = None
    ) -> Grant:
        """Wait for a place that all processes leave; ``tell`` hears of it, in place of the lanes' first client.

        Raises:
            RequestTimeoutError: It would come after the deadline: said at once, and no place is kept.
            RateLimitError: The day's limit is used up.
            SharedStateError: The store is away, and calls are to be refused then.
        """
        grant, told = Grant(token_hex(12), rates), False
        try:
            while True:
                if self._away is None:
                    wait = await self._reserve(lane, grant, deadline, request)
                    if wait == 0:
                        return grant
                    if wait < inf and not told:
                        told = True
                        (tell or self._tell)(lane, wait)
                    if wait < inf:
                        await asyncio.sleep(min(wait, ASK_AGAIN))
                elif await self._enter_alone(lane, grant, request):
                    return grant
        except BaseException:
            if self._away is None:
                self.end(grant, counted=False)
            raise

    async def _reserve(self, lane: str, grant: Grant, deadline: float, request: str) -> float:
        """Ask the store: 0 is a place, infinity that it is away."""
        left, day = deadline - self._loop.time(), next_midnight(self._wall()) - self._wall()
        # Nobody waits for tomorrow; a day that is almost over is waited for.
        most_wait = min(left, max(day - DAY_MARGIN, 2 * DAY_MARGIN))
        try:
            wait = await self._limiter.reserve(lane, grant.rates, token=grant.token, most_wait=most_wait, first=lane == STATUS_LANE)
        except SharedStateError as error:
            self._go_away(lane, error)
            return inf
        self._asked_at = self._loop.time()
        if wait <= most_wait:
            return wait
        if wait > left:
            raise RequestTimeoutError(
                f"{request}: the time given would be over before its turn in lane {lane}, which comes in {wait:.1f} s. Nothing was sent; "
                "give a longer timeout."
            )
        raise self._day_is_over(lane, request, wait)

    async def _enter_alone(self, lane: str, grant: Grant, request: str) -> bool:
        """Wait for a place of this process's own share, or refuse; False where the store is back before."""
        if self._when_away == "raise":
            raise SharedStateError(self._away or "The shared store was away. Make the call again.")
        async with self._turns.setdefault(lane, asyncio.Lock()):
            while self._away is not None:
                windows, now = tuple(self._window(rate) for rate in grant.rates), self._loop.time()
                wait = max(window.wait(now) for window in windows)
                if wait <= 0:
                    for window in windows:
                        window.out += 1
                    grant.windows = windows
                    self._alone[lane] = max((rate.seconds for rate in grant.rates if not rate.daily), default=0.0)
                    return True
                if any(isinstance(window, DayWindow) and window.wait(now) > DAY_MARGIN for window in windows):
                    raise self._day_is_over(lane, request, wait)
                await asyncio.sleep(min(wait, PROBE_SECONDS))
        return False

    def _window(self, rate: SharedRate) -> Window:
        """Make this process's part of a limit: nothing of it is free before what all sent until now counts no more."""
        key = (rate.name, rate.seconds)
        if key not in self._windows:
            limit, seconds = share_of(rate.limit, rate.seconds, self._processes)
            if rate.daily and seconds == DAY_SECONDS:
                midnight = self._loop.time() + next_midnight(self._wall()) - self._wall()
                self._windows[key] = DayWindow(limit=limit, seconds=seconds, midnight=midnight)
            else:
                closed_until = -inf if self._asked_at is None or rate.daily else self._asked_at + rate.seconds + MARGIN
                self._windows[key] = Window(limit=limit, seconds=seconds, closed_until=closed_until)
        return self._windows[key]

    def _go_away(self, lane: str, error: SharedStateError) -> None:
        self._alone.setdefault(lane, 0.0)
        if self._away is not None:
            return
        self._away = str(error)
        rule = "calls are refused" if self._when_away == "raise" else f"this process keeps to a {self._processes}th of the limits"
        logger.warning("the shared store is away, so %s until it is back: %s", rule, error)
        self._probe = self._loop.create_task(self._wait_for_return())

    async def _wait_for_return(self) -> None:
        """Look until the store is back; what was sent without it is still counted there by the service, so its lanes wait a window."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                for lane, seconds in self._alone.items():
                    await self._limiter.hold(lane, seconds * 1.01)
            except SharedStateError:
                continue
            except RuntimeError:
                # A lane was used for the first time meanwhile: it has to be held, too.
                continue
            self._away = None
            self._windows.clear()
            self._alone.clear()
            logger.warning("the shared store is back: the limits are shared again")
            return

    def end(self, grant: Grant, *, counted: bool) -> None:
        """Say that a request was answered, or with ``counted=False`` that nothing was sent; it isn't waited for."""
        if grant.windows is None:
            self._start(self._limiter.end(grant.rates, token=grant.token, counted=counted))
            return
        now = self._loop.time()
        for window in grant.windows:
            if counted:
                window.settle(now)
            else:
                window.out -= 1

    def hold(self, lane: str, seconds: float) -> None:
        """Hold a lane back in all processes."""
        self._start(self._limiter.hold(lane, seconds))

    def _start(self, step: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(_try(step))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _day_is_over(self, lane: str, request: str, seconds: float) -> RateLimitError:
        error = RateLimitError(
            f"{request} wasn't sent: the processes of this account used up the limit of lane {lane} for {seconds / 3600:.1f} hours "
            "(error.resets_at): send it again then, or raise the limit if the account allows more.",
            status=429,
            message="The day's limit is used up.",
            request=request,
        )
        error.kind, error.retry_after, error.resets_at, error.lane = "daily", seconds, self._wall() + seconds, lane
        return error

    async def close(self) -> None:
        """Tell the store what is still to be told, for a moment, and stop."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        tasks = list(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)


async def _try(step: Coroutine[Any, Any, None]) -> None:
    try:
        await step
    except SharedStateError as error:
        # Its place lapses by itself.
        logger.debug("the shared store wasn't told: %s", error)
