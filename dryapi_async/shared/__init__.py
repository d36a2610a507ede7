"""What the processes of one account share: its limits, and the news of its jobs. Two small protocols, and a store in Redis.

``Client(shared="redis://...")`` takes the store that is here; whoever has another one writes a `SharedState` of his own.
"""

from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from typing import Final, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from attrs import field, frozen

from dryapi_async.errors import ConfigurationError, show_value
from dryapi_async.values import Value

WhenAway = Literal["degrade", "raise"]
"""What becomes of calls while the store is away: ``degrade`` keeps each process to its part of the limits, ``raise`` raises
SharedStateError before anything is sent."""


@frozen(kw_only=True, eq=False, repr=False)
class SharedRate(Value):
    """One limit that all processes keep together: at most ``limit`` requests in any ``seconds``."""

    name: str
    """The lane's, or ``pot`` for what all lanes share."""
    limit: int
    seconds: float
    gap: float = 0.0
    """The fewest seconds between two requests, so that one lane doesn't take the pot's whole window at once."""
    daily: bool = False
    """Whether it starts anew at midnight UTC."""


class Limiter(Protocol):
    """Places in an account's lanes. Each method raises SharedStateError where the store is away, and is harmless when it runs twice."""

    async def reserve(self, lane: str, rates: Sequence[SharedRate], *, token: str, most_wait: float, first: bool = False) -> float:
        """Take a place under all ``rates``: 0.0 says that the request may be sent now. Else give the seconds after which to ask again.

        With that a turn is reserved, behind all who asked before (or, with ``first``, before who isn't ``first``); ask again under the
        same ``token``, after ten seconds at the latest. Over ``most_wait`` seconds nothing is reserved.
        """
        ...

    async def end(self, rates: Sequence[SharedRate], *, token: str, counted: bool) -> None:
        """Say that a request was answered: its place is held for one more window. With ``counted=False`` nothing was sent."""
        ...

    async def hold(self, lane: str, seconds: float) -> None:
        """Let nobody send in a lane for so many seconds: the service said 429."""
        ...


class EventBus(Protocol):
    """The news of an account's jobs."""

    async def publish(self, event: bytes, *, names: Sequence[str]) -> bool:
        """Give an event to all processes; False where one of its ``names`` was published in the last day: then nothing is.

        Raises:
            SharedStateError: The store is away: whether it was published isn't known.
        """
        ...

    def listen(self) -> AsyncIterator[bytes]:
        """Iterate over the events of all processes, from some minutes before the first call on; a later call goes on where it stopped.

        Raises:
            SharedStateError: The store is away.
        """
        ...


class Store(Protocol):
    """An open store. ``account`` stands for a key and a host: a hash, for it goes into the names of keys."""

    def limiter(self, account: str) -> Limiter:
        """Give the limits of an account."""
        ...

    def bus(self, account: str) -> EventBus:
        """Give the news of an account."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


@runtime_checkable
class SharedState(Protocol):
    """What ``Client(shared=...)`` takes: plain data, which opens a store when a client is used."""

    @property
    def processes(self) -> int:
        """How many processes are expected, which counts while the store is away."""
        ...

    @property
    def when_away(self) -> WhenAway:
        """What to do while the store is away."""
        ...

    def open(self) -> Store:
        """Make a store for the running event loop; it connects when it is used."""
        ...


def show_address(url: str) -> str:
    """Show a store's URL without its user, password and query."""
    try:
        parts = urlsplit(url)
        place = parts.hostname or ""
        place = f"{place}:{parts.port}" if parts.port is not None else place
    except ValueError:
        return "(no URL)"
    return f"{parts.scheme}://{place}{parts.path}"


def _is_address(url: object) -> bool:
    return isinstance(url, str) and url.partition("://")[0] in {"redis", "rediss", "unix"} and show_address(url) != "(no URL)"


@frozen(eq=False, repr=False)
class RedisState(Value):
    """A Redis (5 or later) that processes share.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py takes it. Its password is shown nowhere.
        processes: How many processes are expected: while Redis is away each keeps to ``limit / processes``.
        when_away: ``degrade`` goes on like that, with a warning in the log; ``raise`` raises SharedStateError before anything is sent.
        connections: The most connections of one client, beside one that listens.

    Raises:
        ConfigurationError: An option is out of range, or redis-py isn't installed.
    """

    url: str = field(repr=show_address)
    processes: int = field(default=8, kw_only=True)
    when_away: WhenAway = field(default="degrade", kw_only=True)
    connections: int = field(default=16, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse what can't be used; nothing is opened."""
        if not _is_address(self.url):
            raise ConfigurationError("shared must be a Redis URL such as redis://:password@host:6379/0; what was given isn't shown.")
        for name in ("processes", "connections"):
            count: object = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ConfigurationError(f"RedisState.{name} must be a whole number of at least 1, not {show_value(count)}.")
        if self.when_away not in {"degrade", "raise"}:
            raise ConfigurationError(f"RedisState.when_away must be 'degrade' or 'raise', not {show_value(self.when_away)}.")
        if find_spec("redis") is None:
            raise ConfigurationError("shared=redis://... needs redis-py: pip install 'dryapi-async[redis]'.")

    def open(self) -> Store:
        """Make a store for the running event loop; redis-py is imported only here."""
        from dryapi_async.shared.redis import RedisStore  # noqa: PLC0415

        return RedisStore(self.url, connections=self.connections)


def read_shared(given: object) -> SharedState | None:
    """Take what ``Client(shared=...)`` was given: a Redis URL, or a state.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(given, str):
        return RedisState(given)
    if given is None or isinstance(given, SharedState):
        return given
    raise ConfigurationError(f"shared must be a Redis URL or a RedisState(...), not {type(given).__name__}.")


LEAST_SHARE: Final = 1


def share_of(limit: int, seconds: float, processes: int) -> tuple[int, float]:
    """Give one process's part of a limit: fewer requests in the same time, or where there are less than processes, one in a longer time."""
    if limit >= processes:
        return limit // processes, seconds
    return LEAST_SHARE, seconds * processes / max(limit, 1)
