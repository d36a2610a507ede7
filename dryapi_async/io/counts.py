"""What one client counted: plain numbers, added to in place."""

from attrs import define

from dryapi_async.protocol.endpoint import STATUS_LANE
from dryapi_async.protocol.wire import WireCall


@define(eq=False, repr=False)
class Counts:
    """Sums since the client was made, over its event loops. What each is stands at `dryapi_async.stats.Stats`."""

    calls: int = 0
    submits: int = 0
    submits_unknown: int = 0
    requests: int = 0
    retries: int = 0
    status_reads: int = 0
    rate_limited: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    downloads: int = 0

    def add(self, call: WireCall, attempt: int, status: int | None, bytes_sent: int, bytes_received: int) -> None:
        """Count a request that was sent, or may have been, and what became of it."""
        self.requests += 1
        if call.lane == STATUS_LANE:
            self.status_reads += 1
        elif attempt == 1:
            self.calls += 1
            self.submits += call.billed
        if attempt > 1:
            self.retries += 1
        self.bytes_sent += bytes_sent
        self._add_answer(status, bytes_received)

    def add_download(self, status: int | None, bytes_received: int) -> None:
        """Count a request for a file that was sent, or may have been, and what became of it."""
        self.downloads += 1
        self._add_answer(status, bytes_received)

    def _add_answer(self, status: int | None, bytes_received: int) -> None:
        """Count what came; ``status`` is None where no whole answer did."""
        if status == 429:  # noqa: PLR2004  Too Many Requests
            self.rate_limited += 1
        self.bytes_received += bytes_received
