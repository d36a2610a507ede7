"""Addresses: which may be asked for a result, and how they are shown."""

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urljoin, urlsplit

from attrs import field, frozen

from dryapi_async.errors import DownloadError, InputError


@frozen(kw_only=True)
class Link:
    """One file of a result: its signed address, and what is needed to ask for a fresh one."""

    request_id: str
    format: str | None
    """A key of the alternatives, or None for the file that the service made."""
    url: str | None = field(repr=False)
    """None where no link is known yet: a status read tells."""


@frozen(kw_only=True)
class LinkRules:
    """Where results may come from: https and public addresses; anywhere where the user named the host, or the API is local."""

    local: bool
    hosts: Collection[str] = ()

    def trusts(self, host: str) -> bool:
        """Say whether a host is taken over http and at a private address."""
        return self.local or host.lower() in self.hosts


MOST_WEBHOOK_CHARACTERS: Final = 2048


def check_webhook_url(url: str, *, local: bool) -> str:
    """Refuse an address that the service would refuse for webhooks, and give it back.

    Raises:
        InputError: Not https (http is taken where the API is local), or too long.
    """
    if len(url) > MOST_WEBHOOK_CHARACTERS:
        raise InputError(f"webhook_url has {len(url)} characters: the service takes {MOST_WEBHOOK_CHARACTERS}.")
    if not url.lower().startswith("https://") and not (local and url.lower().startswith("http://")):
        raise InputError(f"webhook_url must be a whole https address, not {mask(url)!r}.")
    return url


def check_link(url: str, rules: LinkRules) -> str:
    """Refuse a result link that the rules forbid, and give it back.

    Raises:
        DownloadError: Not a whole http(s) URL, http where it isn't allowed, a user in it, or a private address.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, None
    if parts is None or not host or parts.scheme not in {"http", "https"} or parts.username is not None:
        raise DownloadError(f"The service gave a result link that is no plain http(s) address: {mask(url)!r}.")
    if parts.scheme == "http" and not rules.trusts(host):
        raise DownloadError(
            f"The result link {mask(url)} is unencrypted: refused, unless Client(storage_hosts=({host!r},)) names its host."
        )
    if not rules.trusts(host) and is_private(host):
        raise private_address(host, host)
    return url


def private_address(host: str, address: str) -> DownloadError:
    """Make the error for a result host that lies in a private network."""
    return DownloadError(
        f"The result link's host {host} is at the private address {address}: refused, unless Client(storage_hosts=({host!r},)) names it."
    )


_TRANSLATIONS: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""RFC 6052, and RFC 4291's old way: the last 32 bits are an IPv4 address."""
_LOCAL_TRANSLATION: Final = IPv6Network("64:ff9b:1::/48")
"""RFC 8215; older Pythons take it for global."""


def is_private(address: str) -> bool:
    """Say whether an address isn't a public one; a name that is no address isn't private."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        found = _carried(found) or found
    return not found.is_global or found.is_multicast or found in _LOCAL_TRANSLATION


def _carried(address: IPv6Address) -> IPv4Address | None:
    """Take the IPv4 address out of an IPv6 one that leads to it: mapped, 6to4, or translated (NAT64)."""
    if any(address in network for network in _TRANSLATIONS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def follow(url: str, location: str) -> str:
    """Find where a redirect leads."""
    return urljoin(url, location)


def mask(text: str) -> str:
    """Hide the query of every URL in a text: signed links give access."""
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"<>)]*", r"\1?…", text, flags=re.IGNORECASE)
