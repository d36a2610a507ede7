"""OpenTelemetry's spans and metrics from a client's events: ``Client(on_event=Telemetry())``. It needs the extra ``otel``.

Attributes are OpenTelemetry's semantic conventions where these have a name, else begin with ``dryapi.``. None holds a key, a prompt, a path
or a query.
"""

import time
from contextvars import ContextVar
from typing import Final
from urllib.parse import urlsplit

from attrs import define

from dryapi_async.events import Attempt, Event, Polled, RateLimited, StateChanged, StepEnded, StepStarted, SubmissionUnknown
from dryapi_async.version import __version__

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, StatusCode
except ImportError as _missing:
    raise ImportError("dryapi_async.telemetry needs OpenTelemetry: pip install 'dryapi-async[otel]'.") from _missing

Attributes = dict[str, str | int | bool]

OPERATION: Final = "dryapi.operation"
REQUEST_ID: Final = "dryapi.request_id"
STATE: Final = "dryapi.job.state"
READS: Final = "dryapi.job.status_reads"
LANE: Final = "dryapi.lane"
CANCELLED: Final = "dryapi.cancelled"
ERROR_TYPE: Final = "error.type"
DIRECTION: Final = "network.io.direction"
_LEFT: Final = frozenset({"CancelledError", "GeneratorExit"})
"""Ends that are nobody's failure: who waited went away."""
_SHORT: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds: the semantic conventions' buckets for the duration of HTTP requests."""
_LONG: Final = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds that jobs and limits may take."""
_STATUS: Final = "request-status"
_download: ContextVar[int] = ContextVar("dryapi_async.telemetry.download", default=0)
"""The number of the download that this context began last, ended or not: a job may have several at once, each in a task of its own."""


@define(eq=False)
class _Open:
    """A span that hasn't ended."""

    span: Span
    started: StepStarted
    before: Context | None = None
    within: Context | None = None
    """The context that has it as the current span, and what was there before; only of a step that has others inside."""
    reads: int = 0
    failed: bool = False
    """Whether the service told that the job failed."""


class Telemetry:
    """A hook for ``Client(on_event=...)`` that makes spans and metrics of what it is told.

    Spans are ``call``, ``submit``, ``wait`` and ``download``, with the operation in their names: a call is a child of the span that is
    current where it is made, the other three of their call, or of the current span where there is no call (``await job.result()``). Each
    HTTP attempt of a call or a download is a client span in it. Status reads have none: they are counted, on the wait's span too. With
    a hook of your own beside it, `dryapi_async.events.tell_each`. One serves any number of clients; what an exporter raises breaks none.

    Args:
        tracer_provider: Else the global one.
        meter_provider: Else the global one.
        attempts: Whether each HTTP attempt has a span. False where aiohttp is instrumented, too, which makes the same spans.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        attempts: bool = True,
    ) -> None:
        self._tracer = trace.get_tracer("dryapi_async", __version__, tracer_provider)
        self._attempts = attempts
        self._open: dict[int, _Open] = {}
        self._waits: dict[str, list[_Open]] = {}
        self._downloads: dict[str, list[_Open]] = {}
        meter = metrics.get_meter("dryapi_async", __version__, meter_provider)
        self._reads = meter.create_counter("dryapi.client.status_reads", unit="{read}", description="Status reads that were sent")
        self._refused = meter.create_counter("dryapi.client.rate_limited", unit="{response}", description="Answers 429")
        self._unknown = meter.create_counter(
            "dryapi.client.submits.unknown", unit="{submit}", description="Submits whose answer was lost: they may have been billed"
        )
        self._bytes = meter.create_counter("dryapi.client.io", unit="By", description="Bytes of bodies")
        self._limits = meter.create_histogram(
            "dryapi.client.limit.wait",
            unit="s",
            description="Waits for the account's limits, as foreseen when they begin",
            explicit_bucket_boundaries_advisory=_LONG,
        )
        self._jobs = meter.create_histogram(
            "dryapi.client.job.wait", unit="s", description="Waits for jobs", explicit_bucket_boundaries_advisory=_LONG
        )
        self._requests = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_SHORT,
        )

    def __call__(self, event: Event) -> None:
        """Take an event."""
        match event:
            case StepStarted():
                self._begin(event)
            case StepEnded():
                self._end(event)
            case Attempt():
                self._take_attempt(event)
            case RateLimited():
                self._limits.record(event.seconds, {LANE: event.lane})
            case SubmissionUnknown():
                self._unknown.add(1, {OPERATION: event.request.partition(" ")[2]})
            case Polled():
                for one in self._waits.get(event.request_id, ()):
                    one.reads += 1
            case StateChanged():
                for one in self._waits.get(event.request_id, ()):
                    one.span.set_attribute(STATE, event.state)
                    one.failed = event.state == "error"
            case _:
                pass

    def _begin(self, event: StepStarted) -> None:
        attributes: Attributes = {OPERATION: event.operation} if event.operation else {}
        if event.request_id is not None:
            attributes[REQUEST_ID] = event.request_id
        opened = _Open(self._tracer.start_span(f"{event.step} {event.operation}".rstrip(), attributes=attributes), event)
        self._open[event.number] = opened
        if event.step in {"call", "submit"}:
            # Only these end in the context in which they began: a stream's generator shares its reader's, and would leave its span there.
            opened.before, opened.within = contexts.get_current(), trace.set_span_in_context(opened.span)
            contexts.attach(opened.within)
        elif event.request_id is not None:
            self._of_job(event).setdefault(event.request_id, []).append(opened)
            if event.step == "download":
                _download.set(event.number)

    def _of_job(self, event: StepStarted) -> dict[str, list[_Open]]:
        return self._waits if event.step == "wait" else self._downloads

    def _end(self, event: StepEnded) -> None:
        opened = self._open.pop(event.number, None)
        if opened is None:
            return
        span = opened.span
        if opened.before is not None and contexts.get_current() is opened.within:
            # Not by its token: a coroutine may be closed by another task, in a copy of its context, where the token is refused.
            contexts.attach(opened.before)
        if event.step in {"wait", "download"} and event.request_id is not None:
            self._forget(opened, event.request_id)
        if event.request_id is not None:
            span.set_attribute(REQUEST_ID, event.request_id)
        error = event.error or ("JobFailedError" if opened.failed else None)
        if event.step == "wait":
            span.set_attribute(READS, opened.reads)
            self._jobs.record(event.seconds, {OPERATION: event.operation, **_error_type(error)})
        _set_end(span, error)
        span.end()

    def _forget(self, opened: _Open, request_id: str) -> None:
        of_job = self._of_job(opened.started)
        left = [one for one in of_job.get(request_id, ()) if one is not opened]
        if left:
            of_job[request_id] = left
        else:
            of_job.pop(request_id, None)

    def _take_attempt(self, event: Attempt) -> None:
        method, _, operation = event.request.partition(" ")
        if operation == _STATUS:
            self._reads.add(1)
        if event.status == 429:  # noqa: PLR2004  Too Many Requests
            self._refused.add(1, {OPERATION: operation})
        self._bytes.add(event.bytes_sent, {DIRECTION: "transmit"})
        self._bytes.add(event.bytes_received, {DIRECTION: "receive"})
        error = str(event.status) if event.status is not None and event.status >= 400 else _class_in(event.error)  # noqa: PLR2004  refusals
        attributes: Attributes = {"http.request.method": method, **_server(event.host), **_error_type(error)}
        if event.status is not None:
            attributes["http.response.status_code"] = event.status
        self._requests.record(event.seconds, attributes)
        if self._attempts and operation != _STATUS:
            self._span_attempt(event, attributes | _job_of(event, operation), error)

    def _span_attempt(self, event: Attempt, attributes: Attributes, error: str | None) -> None:
        """Make the span of a request that has just ended."""
        if event.number > 1:
            attributes["http.request.resend_count"] = event.number - 1
        within = None
        if event.request_id is not None and (found := self._downloads.get(event.request_id)):
            own = next((one for one in found if one.started.number == _download.get()), found[-1])
            within = trace.set_span_in_context(own.span)
        now = time.time_ns()
        began = now - round(event.seconds * 1e9)
        span = self._tracer.start_span(event.request, context=within, kind=SpanKind.CLIENT, attributes=attributes, start_time=began)
        _set_end(span, error)
        span.end(now)


def _set_end(span: Span, error: str | None) -> None:
    if error is None:
        return
    span.set_attribute(ERROR_TYPE, error)
    if error in _LEFT:
        span.set_attribute(CANCELLED, True)  # noqa: FBT003  the API's signature
    else:
        span.set_status(StatusCode.ERROR)


def _job_of(event: Attempt, operation: str) -> Attributes:
    return {OPERATION: operation} if event.request_id is None else {REQUEST_ID: event.request_id}


def _error_type(error: str | None) -> Attributes:
    return {} if error is None else {ERROR_TYPE: error}


def _class_in(words: str | None) -> str | None:
    """Take the class out of an error's words, which may go on with anything: a metric's attribute must have few values."""
    name = (words or "").partition(":")[0]
    return None if words is None else name if name.isidentifier() else "_OTHER"


def _server(host: str) -> Attributes:
    where = urlsplit(f"//{host}")
    address: Attributes = {} if not where.hostname else {"server.address": where.hostname}
    return address if where.port is None else {**address, "server.port": where.port}
