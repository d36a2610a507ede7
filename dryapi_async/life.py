"""A client's life: the engine of its event loop, one after another, and those of the accounts that share its connections."""

import asyncio
from ssl import SSLContext
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp

from dryapi_async.config import Settings
from dryapi_async.engine import Engine
from dryapi_async.errors import ClientClosedError, ClientLoopError

if TYPE_CHECKING:
    from dryapi_async.io.journal import Journal
    from dryapi_async.teller import Teller

MOST_TENANTS: Final = 1000
"""Accounts that are kept after their last call; beyond that idle ones are forgotten."""
IDLE_SECONDS: Final = 60.0
"""An account that sent something within a minute isn't idle: its limits are still counted."""


class Life(Protocol):
    """What a client lives by."""

    closed: bool

    @property
    def current(self) -> Engine | None:
        """The engine, if one was opened."""
        ...

    def engine(self) -> Engine:
        """Find what serves the running loop, or open it."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


class OwnLife:
    """The life of a client that has connections of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        session: aiohttp.ClientSession | None,
        connector: aiohttp.BaseConnector | None,
        ssl: SSLContext | None,
        teller: "Teller | None",
        journal: "Journal | None",
    ) -> None:
        self._settings = settings
        self._session = session
        self._connector = connector
        self._ssl = ssl
        self._teller = teller
        self._journal = journal
        self._tenants: list[Engine] = []
        self._before: list[Engine] = []
        self._closing: asyncio.Task[None] | None = None
        self.current: Engine | None = None
        self.closed: bool = False

    def engine(self) -> Engine:
        """Find what serves the running loop, or open it.

        Raises:
            ClientClosedError: The client was closed.
            ClientLoopError: It serves another loop that still runs.
        """
        if self.closed:
            raise ClientClosedError("The client is closed: make a new one. Jobs go on at the service; their tickets stay good.")
        loop = asyncio.get_running_loop()
        if self.current is not None:
            if self.current.loop is loop:
                return self.current
            if not self.current.loop.is_closed():
                raise ClientLoopError("The client belongs to another event loop that isn't closed: make one client per loop and thread.")
        # Those that weren't used on the last loop, too: their orphans, limits and sums go on at their next use.
        self._before, self._tenants = [*self._tenants, *self._before][:MOST_TENANTS], []
        self.current = Engine(
            self._settings,
            session=self._session,
            connector=self._connector,
            ssl=self._ssl,
            teller=self._teller,
            journal=self._journal,
            before=self.current,
        )
        return self.current

    def find_tenant(self, settings: Settings, teller: "Teller | None") -> Engine | None:
        """Find the engine that serves these settings, if there is one; what was used last is kept longest."""
        for engine in self._tenants:
            if engine.settings == settings and engine.teller == teller:
                self._tenants.remove(engine)
                self._tenants.append(engine)
                return engine
        return None

    def tenant(self, settings: Settings, *, teller: "Teller | None", journal: "Journal | None") -> Engine:
        """Find the engine of another account, or open it. Those of one key share its lanes, whatever else they are told."""
        home = self.engine()
        if (found := self.find_tenant(settings, teller)) is not None:
            return found
        same_key = (engine for engine in (home, *self._tenants) if engine.settings.api_key == settings.api_key)
        pacing = next((engine.exchange.pacing for engine in same_key), None)
        before = self.find_before(settings, teller)
        if before is not None:
            self._before.remove(before)
        self._forget_idle()
        self._tenants.append(
            Engine(
                settings,
                session=None,
                connector=None,
                ssl=self._ssl,
                teller=teller,
                journal=journal,
                before=before,
                home=home,
                pacing=pacing,
            )
        )
        return self._tenants[-1]

    def find_before(self, settings: Settings, teller: "Teller | None") -> Engine | None:
        """Find the engine that served these settings on a loop that has ended, where none has taken over from it."""
        return next((engine for engine in self._before if engine.settings == settings and engine.teller == teller), None)

    def _forget_idle(self) -> None:
        if len(self._tenants) >= MOST_TENANTS:
            idle = next((engine for engine in self._tenants if engine.is_idle(IDLE_SECONDS)), None)
            if idle is not None:
                self._tenants.remove(idle)

    async def close(self) -> None:
        """End all waits, of its tenants too, listen to submits on the wire for a while, and close the connections.

        Raises:
            ClientLoopError: It belongs to another loop that still runs.
        """
        engine = self.current
        if engine is not None and engine.loop is not asyncio.get_running_loop() and not engine.loop.is_closed():
            raise ClientLoopError("The client belongs to another event loop that isn't closed: close it there.")
        self.closed = True
        if engine is None or engine.loop is not asyncio.get_running_loop():
            if self._journal is not None:
                # It may have been read without an engine.
                await self._journal.close()
            return
        if self._closing is None:
            self._closing = engine.loop.create_task(self._close(engine))
        await asyncio.shield(self._closing)

    async def _close(self, engine: Engine) -> None:
        engines = (*self._tenants, engine)
        # All at once, so that none goes on sending while another's submits are listened to; its own connections are closed last.
        await asyncio.gather(*(one.end_work() for one in engines))
        self._tenants.clear()
        for one in engines:
            await one.close()


class TenantLife:
    """The life of a client on another's connections: that one's ends it, too."""

    def __init__(self, home: OwnLife, settings: Settings, *, teller: "Teller | None", journal: "Journal | None") -> None:
        self.home: OwnLife = home
        self._settings = settings
        self._teller = teller
        self._journal = journal
        self.closed: bool = False

    @property
    def current(self) -> Engine | None:
        """The engine, if one was opened."""
        return self.home.find_tenant(self._settings, self._teller) or self.home.find_before(self._settings, self._teller)

    def engine(self) -> Engine:
        """Find what serves this account on the running loop, or open it.

        Raises:
            ClientClosedError: This client, or the one whose connections it uses, was closed.
            ClientLoopError: That one serves another loop that still runs.
        """
        if self.closed:
            raise ClientClosedError("The client is closed: make a new one. Jobs go on at the service; their tickets stay good.")
        return self.home.tenant(self._settings, teller=self._teller, journal=self._journal)

    async def close(self) -> None:
        """Refuse new calls; connections, and the account's lanes, are the other's to close."""
        self.closed = True
