"""Which proxy a request goes through: the user's, else the environment's as it was when the client opened."""

import os
from collections.abc import Iterable
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # the stubs know it under Darwin only

from yarl import URL

from dryapi_async.errors import ConfigurationError


class Proxies:
    """Proxies by scheme. The environment is read once: with 70 variables in it each reading takes a quarter of a millisecond."""

    def __init__(self, chosen: str | None) -> None:
        self._chosen: Final = chosen
        found: dict[str, str] = {} if chosen is not None else getproxies_environment()
        self._excepted: Final = {"no": found.pop("no", "")}
        self._environment: Final = {kind: _read_proxy(found[kind]) for kind in ("http", "https", "all") if kind in found}
        # Its name as it is now: what it holds may be a password, and is never shown.
        self._unusable: Final = {kind: _name_variable(kind) for kind, proxy in self._environment.items() if proxy is None}

    @property
    def urls(self) -> Iterable[str]:
        """All that a request may go through."""
        chosen = self._environment.values() if self._chosen is None else (self._chosen,)
        return [proxy for proxy in chosen if proxy is not None]

    def find(self, url: URL) -> str | None:
        """Find the proxy for one address; None is none.

        Raises:
            ConfigurationError: The environment names one for it that can't be used; what no address needs harms nothing.
        """
        if self._chosen is not None or not self._environment:
            return self._chosen
        # An entry of no_proxy may name a port, too.
        if proxy_bypass_environment(f"{url.host}:{url.port}", self._excepted):
            return None
        kind = url.scheme if url.scheme in self._environment else "all"
        if kind in self._unusable:
            raise ConfigurationError(
                f"The environment's {self._unusable[kind]} is no address of an http(s) proxy, and {url.host} would be asked through it: "
                "nothing was sent there. Unset it, name that host in NO_PROXY, or give Client(proxy=...); for SOCKS unset it and give a "
                "connector of your own that speaks it."
            )
        return self._environment.get(kind)


def _read_proxy(given: str) -> str | None:
    """Take a proxy's address as the environment has it, where ``http://`` may be left out; None is one that can't be used."""
    given = given.strip()
    whole = given if "://" in given else f"http://{given.removeprefix('//')}"
    try:
        parsed = URL(whole)
        usable = parsed.scheme in {"http", "https"} and bool(parsed.host and parsed.port) and len(whole.split()) == 1
    except ValueError:
        usable = False
    return whole if usable else None


def _name_variable(kind: str) -> str:
    """Name the variable that a proxy came from: the one in lower case goes before the other."""
    name = f"{kind}_proxy"
    return name if os.environ.get(name) else name.upper()
