"""Which webhooks were delivered already, and news that came before its job was known."""

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dryapi_async.protocol.status import Update, fold
from dryapi_async.values import Value

if TYPE_CHECKING:
    from dryapi_async.protocol.signature import WebhookEvent

MOST_DELIVERIES = 100_000
# The service gives up after 22 hours and 48 minutes.
DELIVERY_SECONDS = 86_400.0
MOST_EARLY_JOBS = 1_000
EARLY_SECONDS = 900.0

_Key = str | tuple[str, str]


class Deliveries:
    """Remember what was delivered, so that a repeat is known as one: by the delivery's id, and by its job with the event.

    Hand an event over first and remember it then: one that was lost in between comes again, and is no duplicate.
    """

    def __init__(self, *, most: int = MOST_DELIVERIES, seconds: float = DELIVERY_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        # From a key to the time it was remembered, oldest first; the keys of an event stand side by side.
        self._times: dict[_Key, float] = {}

    def __len__(self) -> int:
        return len(self._times)

    def seen(self, event: "WebhookEvent", now: float) -> bool:
        """Say whether an event was delivered before. ``now`` is any clock's seconds, always the same clock's."""
        return any(key in self._times and now - self._times[key] < self._seconds for key in _keys(event))

    def remember(self, event: "WebhookEvent", now: float) -> None:
        """Keep an event as delivered, and forget what is old or too much. A repeat is kept from its latest delivery on."""
        times = self._times
        for key in _keys(event):
            times.pop(key, None)
            times[key] = now
        while times and (len(times) > 2 * self._most or now - next(iter(times.values())) >= self._seconds):
            del times[next(iter(times))]


def _keys(event: "WebhookEvent") -> tuple[_Key, ...]:
    by_id: _Key = event.delivery_id
    return (by_id,) if event.request_id is None else (by_id, (event.request_id, event.event))


@frozen(kw_only=True, eq=False, repr=False)
class Early(Value):
    """News of a job that isn't known here: folded into one, and when the first and the latest of it came."""

    update: Update
    first_at: float
    last_at: float


class EarlyNews:
    """Keep news that came before its job was known: a webhook or a message may overtake the answer that carries the job's id.

    Bounded in jobs and time, and without previews, which have 150 KB each.
    """

    def __init__(self, *, most: int = MOST_EARLY_JOBS, seconds: float = EARLY_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        # The job whose latest news is the oldest stands first.
        self._jobs: dict[str, Early] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def keep(self, request_id: str, update: Update, now: float) -> None:
        """Fold news into what is kept of a job, and forget what is old or too much."""
        self._forget(now)
        known = self._jobs.pop(request_id, None)
        news = evolve(update, preview=None)
        self._jobs[request_id] = Early(
            update=news if known is None else fold(known.update, news),
            first_at=now if known is None else known.first_at,
            last_at=now,
        )
        while len(self._jobs) > self._most:
            del self._jobs[next(iter(self._jobs))]

    def take(self, request_id: str, now: float) -> Update | None:
        """Give what is kept of a job, and keep it no longer."""
        if not self._jobs:
            return None
        self._forget(now)
        early = self._jobs.pop(request_id, None)
        return None if early is None else early.update

    def peek(self) -> dict[str, Early]:
        """Show what is kept, by request_id, and take nothing."""
        return dict(self._jobs)

    def _forget(self, now: float) -> None:
        while self._jobs:
            oldest = next(iter(self._jobs))
            if now - self._jobs[oldest].last_at < self._seconds:
                return
            del self._jobs[oldest]
