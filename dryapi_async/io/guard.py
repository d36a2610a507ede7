"""The address guard: a result link mustn't reach into this network, whatever its host's name leads to."""

import asyncio
from typing import Final, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import frozen

from dryapi_async.protocol.links import LinkRules, is_private
from dryapi_async.values import Value


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

    def judge_peer(self, host: str, transport: asyncio.BaseTransport) -> None:
        """Refuse a connection to a private address, whoever looked its name up; a Unix socket is its user's choice.

        Raises:
            PrivateAddressError: It is one.
        """
        if host not in self.known:
            peer: object = transport.get_extra_info("peername")
            if isinstance(peer, tuple):
                self.judge(host, str(cast("tuple[object, ...]", peer)[0]))

    def trusts(self, host: str) -> bool:
        """Say whether a host may be anywhere."""
        return host.lower() in self.known or self.rules.trusts(host)


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
