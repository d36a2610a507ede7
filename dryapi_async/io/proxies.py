"""Which proxy a request goes through: the user's, else the environment's as it was when the client opened."""

from collections.abc import Iterable
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # the stubs know it under Darwin only

from yarl import URL


class Proxies:
    """Proxies by scheme. The environment is read once: with 70 variables in it each reading takes a quarter of a millisecond."""

    def __init__(self, chosen: str | None) -> None:
        self._chosen: Final = chosen
        self._environment: Final[dict[str, str]] = {} if chosen is not None else getproxies_environment()

    @property
    def urls(self) -> Iterable[str]:
        """All that a request may go through."""
        return self._environment.values() if self._chosen is None else (self._chosen,)

    def find(self, url: URL) -> str | None:
        """Find the proxy for one address; None is none."""
        if self._chosen is not None or not self._environment:
            return self._chosen
        # An entry of no_proxy may name a port, too.
        if proxy_bypass_environment(f"{url.host}:{url.port}", self._environment):
            return None
        return self._environment.get(url.scheme) or self._environment.get("all")
