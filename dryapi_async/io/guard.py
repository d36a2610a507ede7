"""The address guard: a result link mustn't reach into this network, whatever its host's name leads to."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Final, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import frozen

from dryapi_async.protocol.links import LinkRules, is_private
from dryapi_async.values import Value

GO_AHEAD_SECONDS: Final = 1.0
"""An upload that asked first and got no answer is sent after so long: many servers and proxies don't know the question."""


async def _ask_first(sending: Awaitable[aiohttp.ClientResponse], asked: asyncio.Future[bool]) -> aiohttp.ClientResponse:
    """Send, but don't wait for ever for leave to (RFC 9110, 10.1.1). aiohttp would; its read time-out begins after the body."""
    response = await sending
    asyncio.get_running_loop().call_later(GO_AHEAD_SECONDS, _go_ahead, asked)
    return response


def _go_ahead(asked: asyncio.Future[bool]) -> None:
    if not asked.done():
        asked.set_result(True)


class PrivateAddressError(aiohttp.ClientError):
    """A result host's name leads into a private network. A ClientError, since aiohttp passes those on as they are."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} is at the private address {address}")
        self.host: Final = host
        self.address: Final = address


@frozen(eq=False, repr=False)
class AddressGuard(Value):
    """Judges where a host's name leads to. ``known`` are hosts that the user chose: the API's and proxies'."""

    rules: LinkRules
    known: frozenset[str]

    def judge(self, host: str, address: str) -> None:
        """Refuse a private address of a host that nobody vouched for.

        Raises:
            PrivateAddressError: It is one.
        """
        if not self.trusts(host) and is_private(address):
            raise PrivateAddressError(host, address)

    def trusts(self, host: str) -> bool:
        """Say whether a host may be anywhere."""
        return host.lower() in self.known or self.rules.trusts(host)

    def request_class(self) -> type[aiohttp.ClientRequest]:
        """Make aiohttp's request class that looks at the address connected to, before a byte of the request leaves.

        That holds whoever looked the name up, so also for a user's own connector. Through a proxy the address is the proxy's,
        which the user chose; a connection without an address (a Unix socket) is the user's choice, too.
        """
        guard = self

        class GuardedRequest(aiohttp.ClientRequest):
            def send(self, conn: aiohttp.connector.Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:  # pyright: ignore[reportIncompatibleMethodOverride]  what async def gives
                host = self.url.host or ""
                if host not in guard.known and self.proxy is None and conn.transport is not None:
                    peer: object = conn.transport.get_extra_info("peername")
                    if isinstance(peer, tuple):
                        guard.judge(host, str(cast("tuple[object, ...]", peer)[0]))
                sending = super().send(conn)
                asked: asyncio.Future[bool] | None = getattr(self, "_continue", None)
                return sending if asked is None else _ask_first(sending, asked)

        return GuardedRequest


class GuardedResolver(AbstractResolver):
    """Looks names up for an address guard: what it refuses isn't even dialled."""

    def __init__(self, inner: AbstractResolver, guard: AddressGuard) -> None:
        self._inner = inner
        self._guard = guard

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Look a name up."""
        found = await self._inner.resolve(host, port, family)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  passed on as given
        for one in found:
            self._guard.judge(host, one["host"])
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def resolver_of(connector: aiohttp.BaseConnector) -> AbstractResolver | None:
    """Give the resolver that a connector asks; None where it asks none, as a Unix socket's."""
    found: object = getattr(connector, "_resolver", None)
    return found if isinstance(found, AbstractResolver) else None
