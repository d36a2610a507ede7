"""The one account that the simulator serves, and everything that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from attrs import define, field

from dryapi_async.simulator.jobs import Board
from dryapi_async.simulator.limits import Limiter
from dryapi_async.simulator.media import Press
from dryapi_async.simulator.models import SimModel
from dryapi_async.simulator.push import Push
from dryapi_async.simulator.receive import Receiver
from dryapi_async.simulator.storage import Storage


@define(eq=False)
class Account:
    """Key, balance, models, limits, jobs, files."""

    key: str
    client_id: str
    balance: Decimal
    models: list[SimModel]
    max_upload: int
    limiter: Limiter
    limit_headers: bool
    board: Board
    press: Press
    receiver: Receiver
    storage: Storage
    push: Push
    digests: bool
    """Whether bodies and requests are hashed, for records and for counting what was billed twice."""
    clock: Callable[[], float]
    """The loop's time."""
    now: Callable[[], float]
    """The wall-clock time shown to clients."""
    url: str = ""
    others: dict[str, Limiter] = field(factory=dict[str, Limiter])
    """Other keys that are taken, each with limits of its own."""
    suspended: bool = False
    variants: frozenset[str] = frozenset()
