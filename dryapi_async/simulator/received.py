"""What the simulator has seen: one record per request, for tests to look at."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import define, frozen
from multidict import CIMultiDictProxy


@frozen
class ReceivedFile:
    """One uploaded file part."""

    field: str
    name: str
    content_type: str
    size: int
    sha256: str
    head: bytes = attrs.field(default=b"", repr=False)
    """The first bytes (at most 64 KiB), by which the service judges the file."""
    path: str | None = None
    """Where the copy lies while the simulator runs; None where files aren't kept."""


@define(eq=False)
class Received:
    """One request, recorded when its headers were read; the rest is filled in as it comes.

    ``status`` stays None while no whole answer was sent (a reset, a hang). ``started`` and ``ended`` are the loop's time.
    """

    operation: str
    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    peer_port: int
    connection_requests: int
    """How many requests came over the same connection, this one included; above 1 the connection was reused."""
    started: float
    ended: float | None = None
    status: int | None = None
    fields: dict[str, Any] = attrs.field(factory=dict[str, Any])
    files: list[ReceivedFile] = attrs.field(factory=list[ReceivedFile])
    body_size: int = 0
    body_sha256: str = ""
    request_id: str | None = None
    """The job that this request made, or asked for."""
    fault: str | None = None
    """The kind of the scripted fault that it met."""

    @property
    def reused(self) -> bool:
        """Whether the connection had carried a request before."""
        return self.connection_requests > 1
