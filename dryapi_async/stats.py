"""What a client did so far and does now, as plain numbers: ``client.stats()``."""

from collections.abc import Mapping
from math import inf, isfinite
from typing import Final

from attrs import field, frozen

from dryapi_async.engine import Engine
from dryapi_async.io.counts import Counts
from dryapi_async.protocol.cadence import Budget
from dryapi_async.protocol.lanes import MARGIN


@frozen(kw_only=True)
class LaneStats:
    """What a lane of the account's limits has left, as this client keeps it. None is no limit, or none that is known."""

    limit: int | None
    """Requests in any ``seconds``."""
    seconds: float | None
    remaining: int | None
    """How many of them may be sent now."""
    day_limit: int | None
    day_remaining: int | None
    waiting: int
    """Requests that wait for their turn."""
    opens_in: float
    """Seconds until the next may be sent; 0 is now, infinity when an answer that is on its way has come."""


@frozen(kw_only=True)
class Stats:
    """Sums since the client was made, over its event loops, and what is so at this moment. A snapshot: it doesn't change.

    Those of another account (``client.with_options(api_key=...)``) are its own.
    """

    calls: int
    """Calls of the API that were sent, each once however often it was repeated; without status reads."""
    submits: int
    """Those of them that cost money where the service took them."""
    submits_unknown: int
    """Submits whose answer was lost, so that they may have been billed. A late answer or ``client.settle`` may have told some since."""
    requests: int
    """HTTP requests to the API that were begun, status reads too."""
    retries: int
    """Those of them that repeated one."""
    status_reads: int
    """Status reads, by waits and by ``job.status()``: on a Basic account 200 a day."""
    rate_limited: int
    """Answers 429."""
    downloads: int
    """Requests for files."""
    bytes_sent: int
    """Of requests' bodies."""
    bytes_received: int
    """Of answers' bodies, and of files."""
    limit_wait_seconds: float
    """How long requests waited for the account's limits: all their waits together, of all clients of its key on this one's connections."""
    orphans: int
    """Jobs in ``client.orphans``."""
    jobs_waited_for: int
    """Jobs that somebody waits for now."""
    push: bool | None
    """Whether the push channel is up; None without a ``client_id``."""
    lanes: Mapping[str, LaneStats] = field(hash=False)
    """By the lanes' names, those that were used."""


_NOTHING: Final = Counts()


def read_stats(engine: Engine | None) -> Stats:
    """Take a snapshot; nothing is sent. Without an engine the client wasn't used yet."""
    counts = _NOTHING if engine is None else engine.exchange.counts
    return Stats(
        calls=counts.calls,
        submits=counts.submits,
        submits_unknown=counts.submits_unknown,
        requests=counts.requests,
        retries=counts.retries,
        status_reads=counts.status_reads,
        rate_limited=counts.rate_limited,
        downloads=counts.downloads,
        bytes_sent=counts.bytes_sent,
        bytes_received=counts.bytes_received,
        limit_wait_seconds=0.0 if engine is None else engine.exchange.pacing.seconds_waited,
        orphans=0 if engine is None else len(engine.orphans),
        jobs_waited_for=0 if engine is None else engine.watcher.jobs,
        push=None if engine is None or engine.push is None else engine.watcher.hears_push,
        lanes={} if engine is None else _read_lanes(engine),
    )


def _read_lanes(engine: Engine) -> dict[str, LaneStats]:
    pacing, now = engine.exchange.pacing, engine.loop.time()
    return {
        name: _read_lane(pacing.budget(name), waiting=len(queue.waiters), opens_in=queue.lane.wait(now))
        for name, queue in pacing.queues.items()
    }


def _read_lane(budget: Budget, *, waiting: int, opens_in: float) -> LaneStats:
    return LaneStats(
        limit=_count(budget.limit),
        seconds=None if budget.limit == inf else round(budget.seconds - MARGIN, 3),
        remaining=_count(budget.free),
        day_limit=_count(budget.day_limit),
        day_remaining=_count(budget.day_left),
        waiting=waiting,
        opens_in=opens_in,
    )


def _count(number: float) -> int | None:
    return max(int(number), 0) if isfinite(number) else None
