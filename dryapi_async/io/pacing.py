"""Who may send now: the lanes of one client, in which calls queue in their order, and the slots of its transfers."""

import asyncio
import random
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from attrs import define, field

from dryapi_async.config import Limits
from dryapi_async.errors import RateLimitError, RequestTimeoutError
from dryapi_async.io.places import Places
from dryapi_async.protocol.cadence import Budget, read_budget
from dryapi_async.protocol.endpoint import STATUS_LANE
from dryapi_async.protocol.lanes import DayWindow, Lane, LimitKind, Window, make_lane
from dryapi_async.protocol.replies import next_midnight
from dryapi_async.protocol.retry import MINUTE_WINDOW, spread
from dryapi_async.protocol.wire import WireCall

if TYPE_CHECKING:
    from dryapi_async.io.shared_lanes import Grant, SharedLanes
    from dryapi_async.shared import SharedRate

TellWait = Callable[[str, float], None]
"""Told the lane that a call waits for, and for how many seconds."""
LONGEST_IDLE_GRANT: Final = 0.25
"""Seconds that a place in a lane is kept for who waits for a slot: after that it is given back, for others could use it."""


@define(eq=False, repr=False)
class Waiter:
    """One call in a lane's queue; its future is set when it may go, or has the reason why it never will."""

    number: int
    """Its turn: who asked first goes first."""
    place: asyncio.Future[float]
    """Its result is how many seconds a 429 held the lane back, if one did until now."""
    request: str
    tell: TellWait
    """Of the client that it is a call of: several share the lanes of one key."""
    told: bool = False


@define(eq=False, repr=False)
class Queue:
    """A lane, and who waits for it in which order."""

    lane: Lane
    waiters: deque[Waiter] = field(factory=deque[Waiter])
    timer: asyncio.TimerHandle | None = None
    hold: float = 0.0
    """Seconds that the last 429 asked for."""

    def take(self, now: float) -> bool:
        """Take a place where one is free and nobody waits for it."""
        return not self.waiters and self.lane.day_over(now) is None and self.lane.reserve(now) == 0

    def try_again(self, now: float) -> bool:
        """Take a place for a call that waited long enough already; not before who waits in the lane."""
        return not self.waiters and self.lane.reserve(now) == 0


class Pacing:
    """The limits of one account as one client keeps them. Places go out in the order in which they were asked for."""

    def __init__(self, limits: Limits, slots: int, *, tell: TellWait, wall: Callable[[], float], before: "Pacing | None" = None) -> None:
        """Open the lanes, or take over those of the life ``before``; ``wall`` gives unix time, at the pace of the loop's."""
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._tell = tell
        self._wall = wall
        self._count = 0
        self.pot: Window | None = None
        self.shared: SharedLanes | None = None
        """The same lanes over all processes, where they are shared."""
        self.queues: dict[str, Queue] = {}
        self.slots: Places = Places(slots)
        self.seconds_waited: float = 0.0 if before is None else before.seconds_waited
        """By requests, for the account's limits: all their waits together."""
        if before is not None and before.last_seen <= self._loop.time():
            self._inherit(before)
        elif limits.pot is not None:
            self.pot = Window(limit=limits.pot.limit, seconds=limits.pot.seconds)
        self.last_seen: float = self._loop.time()

    def _inherit(self, before: "Pacing") -> None:
        """Go on with the lanes of a loop that has ended; what was out then is as good as answered now."""
        self.pot = before.pot
        now = self._loop.time()
        for name, queue in before.queues.items():
            self.queues[name] = Queue(queue.lane)
            for window in queue.lane.windows:
                while window.out:
                    window.settle(now)

    def find(self, name: str) -> Queue:
        """Find a lane, or open it."""
        return self.queues.get(name) or self._open_queue(name)

    def _open_queue(self, name: str) -> Queue:
        midnight = self._loop.time() + next_midnight(self._wall()) - self._wall()
        queue = self.queues[name] = Queue(make_lane(name, self._limits, self.pot, midnight))
        return queue

    def must_wait(self, name: str, *, slot: bool) -> bool:
        """Say whether a call that asked now would have to wait."""
        queue = self.find(name)
        return bool(queue.waiters) or queue.lane.wait(self._loop.time()) > 0 or (slot and self.slots.locked())

    def take_number(self) -> int:
        """Take a number, which is a call's turn in every queue."""
        self._count += 1
        return self._count

    def take(self, queue: Queue) -> bool:
        """Take a place in a lane where one is free and nobody waits for it."""
        self.last_seen = now = self._loop.time()
        return queue.take(now)

    async def enter(self, queue: Queue, request: str, number: int, *, tell: TellWait | None = None) -> float:
        """Take a place in a lane, behind all that have a lower number; give the seconds that a 429 held the lane back just before.

        ``tell`` hears that it has to wait, in place of the lanes' first client.

        Raises:
            RateLimitError: The day's limit is used up, by what was sent or by who waits already.
        """
        if self.take(queue):
            return 0.0
        if (until := queue.lane.day_over(self._loop.time(), ahead=len(queue.waiters))) is not None:
            raise self._day_is_over(queue.lane, request, until)
        waiter = Waiter(number, self._loop.create_future(), request, tell or self._tell)
        insort(queue.waiters, waiter, key=_turn)
        self._pump()
        try:
            return await waiter.place
        except asyncio.CancelledError:
            if waiter.place.done() and not waiter.place.cancelled() and waiter.place.exception() is None:
                self.give_back(queue)
            elif waiter in queue.waiters:
                queue.waiters.remove(waiter)
                self._pump()
            raise

    def shared_rates(self, lane: Lane) -> "tuple[SharedRate, ...]":
        """Give what all processes keep together in a lane, by what is known of it now: what nobody limits costs the store nothing."""
        from dryapi_async.shared import SharedRate  # noqa: PLC0415  here and nowhere before: few clients share

        return tuple(
            SharedRate(
                name="pot" if window is self.pot else lane.name,
                limit=max(int(window.limit), 1),
                seconds=window.seconds,
                gap=window.seconds / max(window.limit, 1) / 2 if window is self.pot else 0.0,
                daily=isinstance(window, DayWindow),
            )
            for window in lane.windows
            if window.blocks and window.limit != inf
        )

    def give_back(self, queue: Queue) -> None:
        """Return a place that nothing was sent with."""
        queue.lane.give_back()
        self._pump_behind(queue)

    def budget(self, name: str) -> Budget:
        """Say what a lane has left, and how many calls of other lanes wait for the same pot."""
        waiting = sum(len(queue.waiters) for other, queue in self.queues.items() if other != name) if self.pot is not None else 0
        return read_budget(self.find(name).lane, self._loop.time(), shared=self.pot is not None, waiting=waiting)

    def settle(self, queue: Queue) -> None:
        """Note that a request was answered, or never will be."""
        self.last_seen = now = self._loop.time()
        queue.lane.settle(now)
        self._pump_behind(queue)

    def _pump_behind(self, queue: Queue) -> None:
        """Give out what came free in a lane; that is nothing to the others, but where all share a pot."""
        if queue.waiters or self.pot is not None:
            self._pump()

    def learn(self, name: str, headers: Mapping[str, str]) -> None:
        """Learn from the headers of an answer that wasn't a 429."""
        if self.shared is not None:
            # A window that others have used up is no surprise, and the shared lanes say exactly when it is free again.
            headers = {key: value for key, value in headers.items() if key != "x-ratelimit-remaining"}
        lane = self.find(name).lane
        if lane.windows:
            lane.learn(headers, self._loop.time())

    def refuse(self, name: str, retry_after: float | None, kind: LimitKind) -> None:
        """Hold everyone in the lane back after a 429."""
        if retry_after is None and kind == "daily":
            retry_after = next_midnight(self._wall()) - self._wall()
        queue = self.find(name)
        queue.hold = MINUTE_WINDOW if retry_after is None else retry_after
        queue.lane.refuse(self._loop.time(), retry_after, kind)
        if self.shared is not None:
            self.shared.hold(name, queue.hold)

    def _pump(self) -> None:
        """Give out the places that there are, the oldest call first; set a timer for the next, and tell who has to wait."""
        waiting = [queue for queue in self.queues.values() if queue.waiters]
        if not waiting:
            return
        now = self._loop.time()
        while waiting:
            # A read whose turn it is goes before the submits that wait for the same pot, which would keep it for minutes: how many reads
            # there are in all is the cadence's to say.
            queue = min(waiting, key=lambda one: (one.lane.name != STATUS_LANE, one.waiters[0].number))
            if queue.waiters[0].place.done():
                # Cancelled, and not yet awake to leave the queue by itself.
                queue.waiters.popleft()
            elif (until := queue.lane.day_over(now)) is not None:
                waiter = queue.waiters.popleft()
                waiter.place.set_exception(self._day_is_over(queue.lane, waiter.request, until))
            elif queue.lane.reserve(now) == 0:
                was_held = queue.hold > 0 and now - queue.lane.not_before < 1
                queue.waiters.popleft().place.set_result(queue.hold if was_held else 0.0)
            else:
                self._plan(queue, now)
                waiting.remove(queue)
                continue
            if not queue.waiters:
                waiting.remove(queue)

    def _plan(self, queue: Queue, now: float) -> None:
        """Look again when the lane opens, and tell each call once how long it will be."""
        wait = queue.lane.wait(now)
        if wait == inf:
            return
        if queue.timer is not None:
            queue.timer.cancel()
        queue.timer = self._loop.call_at(now + wait, self._pump)
        for ahead in range(len(queue.waiters) - 1, -1, -1):
            if queue.waiters[ahead].told:
                break
            queue.waiters[ahead].told = True
            queue.waiters[ahead].tell(queue.lane.name, queue.lane.wait(now, ahead))

    def _day_is_over(self, lane: Lane, request: str, until: float) -> RateLimitError:
        seconds = max(until - self._loop.time(), 0.0)
        error = RateLimitError(
            f"{request} wasn't sent: the day's limit of lane {lane.name} is used up. It starts anew in {seconds / 3600:.1f} hours "
            "(error.resets_at): send it again then, or raise the limit if the account allows more.",
            status=429,
            message="The day's limit is used up.",
            request=request,
        )
        error.kind, error.retry_after, error.resets_at, error.lane = "daily", seconds, self._wall() + seconds, lane.name
        return error

    def close(self) -> None:
        """Stop the timers; who waits is cancelled by its owner."""
        for queue in self.queues.values():
            if queue.timer is not None:
                queue.timer.cancel()


def _turn(waiter: Waiter) -> int:
    return waiter.number


class Passage:
    """One attempt's way to the wire: its lane first, then a slot where it is a transfer. Leaving it gives back what it holds."""

    _holds_place = False
    _holds_slot = False
    _grant: "Grant | None" = None
    may_count: bool = False
    """Whether the service may have counted the request: then its place is held for the window."""

    def __init__(self, pacing: Pacing, call: WireCall, *, deadline: float, tell: TellWait | None = None) -> None:
        """Hold nothing yet; ``tell`` hears of waits, in place of the lanes' first client."""
        self._pacing = pacing
        self._tell = tell
        self._call = call
        self._queue = pacing.find(call.lane)
        self._slot = call.billed
        self._deadline = deadline

    async def __aenter__(self) -> Self:
        pacing = self._pacing
        if pacing.shared is None and (not self._slot or pacing.slots.take()):
            self._holds_slot = self._slot
            self._holds_place = pacing.take(self._queue)
            if self._holds_place:
                # Nothing has to be waited for, so there is nothing to time.
                return self
            self._leave_slot()
        try:
            async with asyncio.timeout_at(None if self._deadline == inf else self._deadline):
                await self._enter()
        except BaseException as error:
            self._leave()
            if not isinstance(error, TimeoutError) or isinstance(error, RequestTimeoutError):
                raise
            raise RequestTimeoutError(
                f"{self._call.name}: the time given was over while it waited for its turn in lane {self._call.lane}. Nothing was sent; "
                "give a longer timeout."
            ) from None
        return self

    async def _enter(self) -> None:
        loop, number = asyncio.get_running_loop(), self._pacing.take_number()
        while True:
            await self._wait_for_place(number)
            if self._slot:
                await self._take_slot()
            # Much may have happened meanwhile: a 429, a learned limit, the lapse of a place that wasn't used.
            if self._holds_place and self._queue.lane.is_overdrawn(loop.time()):
                self._leave_lane()
            if self._holds_place or await self._try_again():
                return
            self._leave_slot()

    async def _wait_for_place(self, number: int) -> None:
        """Wait until the account's limits leave a place."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            held = await self._pacing.enter(self._queue, self._call.name, number, tell=self._tell)
            self._holds_place = True
            if held:
                await asyncio.sleep(spread(held, random.random()))  # noqa: S311  jitter, no secret
            await self._share(self._deadline)
        finally:
            self._pacing.seconds_waited += loop.time() - began

    async def _share(self, deadline: float) -> None:
        """Wait until the other processes leave a place, too."""
        shared = self._pacing.shared
        rates = () if shared is None else self._pacing.shared_rates(self._queue.lane)
        if shared is not None and rates:
            self._grant = await shared.enter(self._call.lane, rates, deadline=deadline, request=self._call.name, tell=self._tell)

    async def _try_again(self) -> bool:
        """Take a place once more, now or not at all: a slot is held meanwhile."""
        now = asyncio.get_running_loop().time()
        if not self._queue.try_again(now):
            return False
        self._holds_place = True
        try:
            await self._share(now)
        except RequestTimeoutError:
            self._leave_lane()
        return self._holds_place

    async def _take_slot(self) -> None:
        if self._pacing.slots.locked():
            await self._wait_for_slot()
        else:
            await self._pacing.slots.acquire()
            self._holds_slot = True

    async def _wait_for_slot(self) -> None:
        lapse = asyncio.get_running_loop().call_later(LONGEST_IDLE_GRANT, self._leave_lane)
        try:
            await self._pacing.slots.acquire()
            self._holds_slot = True
        except BaseException:
            self._leave_lane()
            raise
        finally:
            lapse.cancel()

    def _leave_lane(self) -> None:
        if not self._holds_place:
            return
        self._holds_place = False
        grant, self._grant = self._grant, None
        if grant is not None and self._pacing.shared is not None:
            self._pacing.shared.end(grant, counted=self.may_count)
        if self.may_count:
            self._pacing.settle(self._queue)
        else:
            self._pacing.give_back(self._queue)

    def _leave_slot(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self._pacing.slots.release()

    def _leave(self) -> None:
        self._leave_slot()
        self._leave_lane()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()
