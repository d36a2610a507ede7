"""The shared state in a Redis: each step is one script, so that it happens whole or not at all, and a repeated one changes nothing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from math import ceil
from secrets import token_hex
from typing import Any, Final, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dryapi_async.errors import SharedStateError
from dryapi_async.shared import SharedRate, show_address
from dryapi_async.shared.scripts import END, HOLD, PUBLISH, RESERVE

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds for one step, with its repeats: after that Redis is away."""
SOCKET_SECONDS: Final = 2.0
POOL_SECONDS: Final = 20.0
"""Seconds that a step waits for a connection of the pool."""
RETRIES: Final = 3
ATTEMPTS: Final = 4
PAUSE_SECONDS: Final = 0.1
"""redis-py repeats a command, but not the opening of a connection that is cut meanwhile: a step is repeated as a whole, too."""
BLOCK_SECONDS: Final = 5.0
"""How long one look at the stream waits for news."""
GRANT_LEASE: Final = 60.0
"""Seconds after which a request of which nothing was heard is taken to be answered: its process died."""
QUEUE_LEASE: Final = 5.0
"""Seconds that a turn is kept for who is late to ask again."""
BEAT: Final = 10.0
"""Seconds after which everybody who waits asks again."""
LONGEST_WAIT: Final = 1_000_000_000.0
MARGIN: Final = 0.01
"""Part of each window, and seconds beside, that are added to it: clocks needn't run alike."""
MOST_EVENTS: Final = 10_000
EVENT_SECONDS: Final = 900.0
"""How far back a process looks when it begins to listen: as long as news is kept for who doesn't wait yet."""
NAME_SECONDS: Final = 86_400
"""A repeat of a delivery is known as one for a day: the service gives up before."""


class RedisStore:
    """A pool of connections for scripts, and one for who listens. Nothing is opened before it is used."""

    def __init__(self, url: str, *, connections: int = 16) -> None:
        self.shown: str = show_address(url)
        self._steps = _make_pool(url, connections=connections, socket_seconds=SOCKET_SECONDS)
        self._ears = _make_pool(url, connections=1000, socket_seconds=BLOCK_SECONDS + SOCKET_SECONDS)
        self.redis: Redis = Redis(connection_pool=self._steps)
        self.ears: Redis = Redis(connection_pool=self._ears)

    def limiter(self, account: str) -> "RedisLimiter":
        """Give the limits of an account."""
        return RedisLimiter(self, account)

    def bus(self, account: str) -> "RedisBus":
        """Give the news of an account."""
        return RedisBus(self, account)

    async def run(self, step: Callable[[], Awaitable[T]], *, seconds: float | None = PATIENCE) -> T:
        """Run one step, again where its connection was lost.

        Raises:
            SharedStateError: Redis is away, or refuses.
        """
        try:
            async with asyncio.timeout(seconds):
                for _ in range(ATTEMPTS - 1):
                    with suppress(RedisConnectionError, RedisTimeoutError, OSError):
                        return await step()
                    await asyncio.sleep(PAUSE_SECONDS)
                return await step()
        except (RedisError, OSError, TimeoutError) as error:
            # Not from that error: where it names an address, it may name more of it.
            raise SharedStateError(
                f"Redis at {self.shown} is away ({type(error).__name__}). Bring it back, then make the call again."
            ) from None

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in (self._steps, self._ears):
            await pool.disconnect()


def _make_pool(url: str, *, connections: int, socket_seconds: float) -> BlockingConnectionPool:
    # The default pool raises where all connections are busy.
    return BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]  redis-py leaves options untyped
        url,
        max_connections=connections,
        timeout=POOL_SECONDS,
        socket_timeout=socket_seconds,
        socket_connect_timeout=SOCKET_SECONDS,
        retry=Retry(ExponentialBackoff(cap=0.25, base=0.02), RETRIES),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
        protocol=2,
    )


def _prefix(account: str) -> str:
    # One hash tag: in a cluster all keys of an account lie on one node, as a script needs it.
    return f"dryapi:{{{account}}}"


def _micro(seconds: float) -> int:
    return ceil(min(seconds, LONGEST_WAIT) * 1_000_000)


def _period(rate: SharedRate) -> int:
    return _micro(rate.seconds * (1 + MARGIN) + MARGIN)


class RedisLimiter:
    """An account's limits: who asked first goes first, and a place is held until its answer came and a window more."""

    def __init__(self, store: RedisStore, account: str) -> None:
        self._store = store
        self._prefix = _prefix(account)
        self._notes = f"{self._prefix}:notes"
        self._reserve = store.redis.register_script(RESERVE)
        self._end = store.redis.register_script(END)
        self._hold = store.redis.register_script(HOLD)

    def _keys(self, rates: Sequence[SharedRate]) -> list[str]:
        names = [f"{rate.name}:{rate.seconds:g}" for rate in rates]
        return [f"{self._prefix}:{kind}:{name}" for name in names for kind in ("grants", "queue", "seen")]

    async def reserve(self, lane: str, rates: Sequence[SharedRate], *, token: str, most_wait: float, first: bool = False) -> float:
        """Take a place, or a turn: see `Limiter`."""
        # A day that is over is told at once, whoever waits for a minute's place.
        ordered = sorted(rates, key=lambda rate: (not rate.daily, rate.gap > 0))
        args: list[Any] = [token, max(_micro(most_wait), 0), int(first), lane, _micro(GRANT_LEASE), _micro(QUEUE_LEASE), _micro(BEAT)]
        for rate in ordered:
            args += [rate.name, max(rate.limit, 1), _period(rate), _micro(rate.gap), int(rate.daily)]
        wait = await self._store.run(partial(self._reserve, keys=[self._notes, *self._keys(ordered)], args=args))
        return int(wait) / 1_000_000

    async def end(self, rates: Sequence[SharedRate], *, token: str, counted: bool) -> None:
        """Say that a request was answered, or wasn't sent: see `Limiter`."""
        args: list[Any] = [token, int(counted)]
        for rate in rates:
            args += [_period(rate), int(rate.daily)]
        await self._store.run(partial(self._end, keys=self._keys(rates), args=args))

    async def hold(self, lane: str, seconds: float) -> None:
        """Let nobody send in a lane for so many seconds: see `Limiter`."""
        await self._store.run(partial(self._hold, keys=[self._notes], args=[lane, max(_micro(seconds), 0)]))


class RedisBus:
    """An account's news: a stream that everybody reads from a place of his own, so that a lost connection loses nothing."""

    def __init__(self, store: RedisStore, account: str) -> None:
        self._store = store
        self._prefix = _prefix(account)
        self._stream = f"{self._prefix}:news"
        self._publish = store.redis.register_script(PUBLISH)
        self._cursor: str | None = None

    async def publish(self, event: bytes, *, names: Sequence[str]) -> bool:
        """Give an event to all processes, unless it was given already: see `EventBus`."""
        keys = [f"{self._prefix}:told:{sha256(name.encode()).hexdigest()[:32]}" for name in names]
        args: list[Any] = [token_hex(12), event, NAME_SECONDS, MOST_EVENTS, int(2 * EVENT_SECONDS)]
        return bool(await self._store.run(partial(self._publish, keys=[self._stream, *keys], args=args)))

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Iterate over the events of all processes: see `EventBus`."""
        if self._cursor is None:
            seconds, _ = await self._store.run(self._store.redis.time)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            self._cursor = f"{int((seconds - EVENT_SECONDS) * 1000)}-0"
        while True:
            for number, event in await self._look(self._cursor):
                self._cursor = number
                yield event

    async def _look(self, cursor: str) -> list[tuple[str, bytes]]:
        def read() -> Awaitable[list[Any]]:
            reading = self._store.ears.xread({self._stream: cursor}, count=200, block=int(BLOCK_SECONDS * 1000))
            return cast("Awaitable[list[Any]]", reading)

        streams = await self._store.run(read, seconds=None) or []
        return [(number.decode(), fields.get(b"event", b"")) for _, entries in streams for number, fields in entries]
