"""Options of a client that aren't plain data, and those that are checked against the operations."""

from hashlib import sha256
from inspect import iscoroutinefunction
from os import PathLike
from ssl import SSLContext
from typing import TYPE_CHECKING

import aiohttp

from dryapi_async import operations as ops
from dryapi_async.config import Limits, Settings
from dryapi_async.errors import ConfigurationError, show_value
from dryapi_async.protocol.endpoint import FREE_LANE, PRICES_LANE
from dryapi_async.protocol.pusher import channel_name, push_url

if TYPE_CHECKING:
    from dryapi_async.io.journal import Journal


def check_lanes(limits: Limits) -> None:
    """Refuse limits for lanes that don't exist: a slip would leave the account unguarded.

    Raises:
        ConfigurationError: Names the lanes that there are.
    """
    known = {PRICES_LANE, FREE_LANE} | {operation.endpoint.lane for operation in ops.ALL}
    if wrong := sorted(set(limits.lanes) - known):
        raise ConfigurationError(f"Limits: there is no lane {wrong[0]!r}. The lanes are {', '.join(sorted(known))}.")


def check_parts(*, ssl: object, session: object, connector: object, on_event: object) -> None:
    """Refuse what can't be what it is given for: said when the client is made, not in the middle of a request.

    Raises:
        ConfigurationError: Names the option.
    """
    parts = (("ssl", ssl, SSLContext), ("session", session, aiohttp.ClientSession), ("connector", connector, aiohttp.BaseConnector))
    for name, part, kind in parts:
        if part is not None and not isinstance(part, kind):
            raise ConfigurationError(f"{name} must be of {kind.__module__.partition('.')[0]}.{kind.__name__}, not {show_value(part)}.")
    if session is not None and connector is not None:
        raise ConfigurationError("Give a session or a connector, not both: of a session only the connector is used.")
    if on_event is not None and (not callable(on_event) or iscoroutinefunction(on_event)):
        raise ConfigurationError("on_event must be a plain function: it is called in the middle of a request, and isn't waited for.")


def check_push(settings: Settings) -> None:
    """Refuse a channel or an address of the websocket that can't be one: said when the client is made, not by its silence.

    Raises:
        ConfigurationError: Names the option.
    """
    if settings.client_id is not None:
        channel_name(settings.client_id)
    if settings.push_url is not None:
        push_url(settings.base_url, settings.push_url, allow_http=settings.allow_http)


def make_journal(path: str | PathLike[str], settings: Settings) -> "Journal":
    """Make a journal of one account; sqlite3 is imported only here."""
    from dryapi_async.io.journal import Journal  # noqa: PLC0415

    if not isinstance(path, str | PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
        raise ConfigurationError(f"journal must be a path, not {type(path).__name__}.")
    return Journal(path, base_url=settings.base_url, account=sha256(settings.api_key.encode()).hexdigest()[:16])
