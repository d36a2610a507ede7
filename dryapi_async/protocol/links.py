"""Addresses: which may be asked for a result, and how they are shown."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal
from urllib.parse import quote, urljoin, urlsplit

from attrs import field, frozen

from dryapi_async.errors import DownloadError, InputError
from dryapi_async.values import Value


@frozen(kw_only=True, eq=False, repr=False)
class Link(Value):
    """One file of a result: its signed address, and what is needed to ask for a fresh one."""

    request_id: str
    format: str | None
    """A key of the alternatives, or None for the file that the service made."""
    url: str | None = field(repr=False)
    """None where no link is known yet: a status read tells."""
    is_text: bool = False
    """Whether the file is a text: that may be empty (silence), and of any content type."""


@frozen(kw_only=True, cache_hash=True)
class LinkRules:
    """Where results may come from: https and public addresses; anywhere where the user named the host, or the API is local."""

    local: bool
    hosts: tuple[str, ...] = ()

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
        raise InputError(f"webhook_url must be a whole https address, not {show_link(url)!r}.")
    return url


def check_link(url: str, rules: LinkRules) -> str:
    """Refuse a result link that the rules forbid, and give it back, with what isn't ASCII in its path and query percent-encoded.

    Raises:
        DownloadError: Not a whole http(s) URL, no host name that can be, http where it isn't allowed, a user in it, or a private address.
    """
    url = url.strip(" ")
    try:
        encoded = _encode(url)
        origin = _ORIGIN.match(url)
        flaw, host = _judge_origin(origin[0] if origin else "", rules)
    except ValueError:
        flaw, host, encoded = "malformed", "", url
    if flaw is None:
        return encoded
    if flaw == "private":
        raise private_address(host, host)
    if flaw == "unencrypted":
        raise DownloadError(
            f"The result link {show_link(url)} is unencrypted: refused, unless Client(storage_hosts=({host!r},)) names its host."
        )
    raise DownloadError(f"The service gave a result link that is no plain http(s) address: {show_link(url)!r}.")


_Flaw = Literal["malformed", "unencrypted", "private"]
_ORIGIN: Final = re.compile("[^/?#]*//[^/?#]*")
"""Scheme and authority, as in RFC 3986's own expression (appendix B): all that is remembered of a link, for the rest gives access."""


@lru_cache(maxsize=256)
def _judge_origin(origin: str, rules: LinkRules) -> tuple[_Flaw | None, str]:
    """Say what is wrong with a link's origin, if anything is, and name its host. Thousands of links come from a few origins.

    Raises:
        ValueError: It is malformed, or its port is none.
    """
    parts = urlsplit(origin)
    host, _ = parts.hostname or "", parts.port
    if parts.scheme not in {"http", "https"} or not host or not _can_be_host(host, parts.netloc):
        return "malformed", host
    if rules.trusts(host):
        return None, host
    if parts.scheme == "http":
        return "unencrypted", host
    return "private" if is_private(host) else None, host


_LABELS: Final = r"(?ai:(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)"
_MOST_HOST_CHARACTERS: Final = 254
"""RFC 1035's 253, and a dot at the end."""


def _can_be_host(host: str, netloc: str) -> bool:
    """Say whether a name can be looked up at all, without a user before it; it must be ASCII (xn--), as in any URL on the wire."""
    if "@" in netloc or not netloc.isascii():
        return False
    if "[" in netloc:
        try:
            return bool(ip_address(host))
        except ValueError:
            return False
    return len(host) <= _MOST_HOST_CHARACTERS and re.fullmatch(_LABELS, host) is not None


_PLAIN: Final = re.compile("[\x21-\x7e]*")


def _encode(url: str) -> str:
    """Percent-encode what can't stand in a request; what is encoded already stays as it was signed.

    Raises:
        ValueError: There are control characters in it, or half of a surrogate pair.
    """
    if _PLAIN.fullmatch(url):
        return url
    if re.search(r"[\x00-\x1f\x7f]", url):
        raise ValueError("control characters")
    # Bytes of a header that are no UTF-8 come as lone surrogates: they go out as the bytes that they were.
    return re.sub(r"[^\x21-\x7e]+", lambda found: quote(found[0].encode(errors="surrogateescape")), url)


def private_address(host: str, address: str) -> DownloadError:
    """Make the error for a result host that lies in a private network."""
    return DownloadError(
        f"The result link's host {host} is at the private address {address}: refused, unless Client(storage_hosts=({host!r},)) names it."
    )


_TRANSLATIONS: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""RFC 6052, and RFC 4291's old way: the last 32 bits are an IPv4 address."""
_NOT_GLOBAL: Final = tuple(map(IPv6Network, ("64:ff9b:1::/48", "fec0::/10", "::ffff:0:0:0/96", "3fff::/20", "5f00::/16")))
"""RFC 8215, 3879 (site-local), 2765 (translated IPv4), 9637 (documentation) and 9602 (segment routing); Pythons take some for global."""


def is_private(address: str) -> bool:
    """Say whether an address isn't a public one; a name that is no address isn't private."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        found = _carried(found) or found
    return not found.is_global or found.is_multicast or any(found in network for network in _NOT_GLOBAL)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """Take the IPv4 address out of an IPv6 one that leads to it: mapped, 6to4, or translated (NAT64)."""
    if any(address in network for network in _TRANSLATIONS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def follow(url: str, location: str) -> str:
    """Find where a redirect leads.

    Raises:
        DownloadError: Nowhere: it is malformed.
    """
    try:
        return urljoin(url, location)
    except ValueError:
        raise DownloadError(f"The result link redirects to what is no address: {show_link(location)!r}. Save it again later.") from None


_SLASH: Final = r"(?:\\?/|%2f)"
# Patterns for errors and logs: what is rarely used is compiled by its first use, not by every import.
_START: Final = rf"(?i:(?<=[a-z0-9+.-])(?::|%3a){_SLASH}{_SLASH})"
"""Where a URL's host begins: plain, in JSON that escapes its slashes, or percent-encoded. The scheme before it is left out, so that
searching long texts takes linear time."""
_USER: Final = rf"({_START})[^\s/?#]*@"
_QUERY: Final = r"(?i:\?|%3f|\\u003f)\S+"
_MORE: Final = r"(?i:&|%26|\\u0026)[^\s=&]*=\S*"
_CLOSERS: Final = "'\")>]}"


def mask(text: str) -> str:
    """Hide the query and the user of every URL in a text: signed links give access.

    Whatever follows a question mark behind the first URL is hidden up to the next blank, for a path may hold quotes and blanks:
    rather a word of a sentence too much than a signature.
    """
    found = re.search(_START, text)
    if found is None:
        return text
    text = re.sub(_USER, r"\1…@", text)
    return text[: found.end()] + re.sub(_MORE, "&…", re.sub(_QUERY, _hide, text[found.end() :]))


def _hide(found: re.Match[str]) -> str:
    """Hide a query, and keep the quote or bracket that closes behind it."""
    return "?…" + found[0][len(found[0].rstrip(_CLOSERS)) :]


_MOST_SHOWN: Final = 200


def show_link(url: str) -> str:
    """Show what was given as a link and may be none: without query, fragment and user, and only the scheme of what has no host."""
    scheme, colon, rest = url.partition(":")
    if colon and not rest.startswith("//") and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme, re.IGNORECASE):
        return f"{scheme[:_MOST_SHOWN]}:…"
    plain = re.split(r"\?|#|%3f", url, maxsplit=1, flags=re.IGNORECASE)[0]
    hidden = "?…" if len(plain) < len(url) else ""
    before, at, after = plain.rpartition("@")
    start = re.search(_START, before)
    shown = f"{before[: start.end()] if start else ''}…@{after}" if at else after
    return shown[:_MOST_SHOWN] + hidden
