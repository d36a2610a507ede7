"""The one loop around every request to the API: send, let a pure function decide, wait or raise. It has no opinion of its own."""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from math import inf
from typing import Any, Final, TypeVar

from attrs import define, field

from dryapi_async.config import Settings
from dryapi_async.errors import (
    DryAPIError,
    GoneError,
    RequestTimeoutError,
    ResponseError,
    StatusError,
    SubmissionUnknownError,
    TransportError,
)
from dryapi_async.events import Attempt, BytesSent, Event, OnEvent, RateLimited
from dryapi_async.io.http import Answer, Broken, Http
from dryapi_async.io.threads import FileThreads
from dryapi_async.io.uploads import Body, TextBody, Upload
from dryapi_async.protocol.replies import decode_json, read_error, read_limit_kind, read_retry_after
from dryapi_async.protocol.retry import Accept, Again, Answered, Broke, Unknown, decide
from dryapi_async.protocol.status import excerpt
from dryapi_async.protocol.wire import WireCall

logger: logging.Logger = logging.getLogger("dryapi_async")
T = TypeVar("T")

LARGE_JSON: Final = 1_000_000
"""Bytes: a longer answer is decoded in a thread, so that the loop doesn't stall."""


@define
class Trail:
    """What happens to one call, for who waits beside it: whether it is on its way, and since when."""

    billed: bool = False
    on_wire: bool = False
    abandoned: bool = False
    """Whether nobody waits any more: then it isn't sent again."""
    attempt: int = 0
    started_at: float = 0.0
    body: Body | None = field(default=None, repr=False)
    lost: SubmissionUnknownError | None = None
    """Why its fate is unknown, where it was cut off on its way."""

    @property
    def may_be_billed(self) -> bool:
        """Whether a byte of a request that costs money has left whose answer isn't known yet."""
        return self.billed and self.on_wire and (self.body is None or self.body.sent)


class Exchange:
    """Makes calls: attempts, waits in between, one deadline over all."""

    def __init__(self, http: Http, threads: FileThreads, settings: Settings, on_event: OnEvent | None) -> None:
        self._http = http
        self._threads = threads
        self._settings = settings
        self._on_event = on_event
        self._slots = asyncio.Semaphore(settings.max_in_flight)

    @property
    def slots(self) -> asyncio.Semaphore:
        """What is transferred at once, submits and downloads: ``max_in_flight``."""
        return self._slots

    def tell(self, event: Event) -> None:
        """Tell the user's hook; what it raises is logged and breaks nothing."""
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            logger.exception("on_event raised on %s", type(event).__name__)

    async def call(
        self,
        call: WireCall,
        read: Callable[[Any], T],
        *,
        deadline: float = inf,
        trail: Trail | None = None,
        exact: bool = False,
        attempts: int | None = None,
    ) -> T:
        """Make a call and read its answer with ``read``.

        ``deadline`` is loop time and covers everything, ``exact`` keeps fractions Decimal, ``attempts`` overrides the settings'.

        Raises:
            DryAPIError: Its own class for each way to fail; for billed calls SubmissionUnknownError where the fate isn't known.
        """
        trail = trail or Trail()
        upload = Upload(call.parts, self._threads) if call.parts is not None else None
        try:
            if not call.billed:
                answer = await self._attempts(call, upload, deadline, trail, attempts)
            else:
                async with self._slots:
                    answer = await self._attempts(call, upload, deadline, trail, attempts)
        finally:
            if upload is not None:
                upload.close()
        try:
            return read(await self.decode(answer.content, exact=exact, status=answer.status))
        except ResponseError as error:
            if not call.billed:
                raise
            raise self._unknown(call, trail, "answered", str(error), answer.status) from error

    async def decode(self, content: bytes, *, exact: bool = False, status: int | None = None) -> Any:
        """Decode JSON, in a thread where it is long."""
        if len(content) > LARGE_JSON:
            return await self._threads.start(decode_json, content, exact=exact, status=status)
        return decode_json(content, exact=exact, status=status)

    async def _attempts(self, call: WireCall, upload: Upload | None, deadline: float, trail: Trail, attempts: int | None) -> Answer:
        """Send until an answer can be read, or raise what became of it."""
        loop = asyncio.get_running_loop()
        retry = self._settings.retry
        if attempts is not None:
            retry = type(retry)(attempts=attempts, max_retry_after=retry.max_retry_after, polls=retry.polls)
        while True:
            trail.attempt += 1
            outcome = await self._attempt(call, upload, deadline - loop.time(), trail)
            seconds_left = deadline - loop.time()
            happened = self._classify(outcome)
            verdict = decide(
                happened,
                billed=call.billed,
                attempt=trail.attempt,
                retry=retry,
                chance=random.random(),  # noqa: S311  jitter, no secret
                seconds_left=seconds_left,
            )
            if isinstance(verdict, Accept) and isinstance(outcome, Answer):
                return outcome
            if not isinstance(verdict, Again):
                raise self._failure(call, outcome, trail, unknown=isinstance(verdict, Unknown))
            if isinstance(happened, Answered) and happened.status == 429:  # noqa: PLR2004  Too Many Requests
                self.tell(RateLimited(lane=call.lane, seconds=verdict.seconds))
            logger.debug("%s: attempt %d failed, again in %.2f s", call.name, trail.attempt, verdict.seconds)
            await asyncio.sleep(0 if trail.abandoned else verdict.seconds)
            if trail.abandoned:
                raise asyncio.CancelledError

    async def _attempt(self, call: WireCall, upload: Upload | None, seconds_left: float, trail: Trail) -> Answer | Broken:
        """Send once, and note that it is on its way while it is."""
        if seconds_left <= 0:
            raise RequestTimeoutError(
                f"{call.name}: the time given was over before it could be sent. Nothing was sent; give a longer timeout."
            )
        started = asyncio.get_running_loop().time()
        body = await self._open_body(call, upload)
        trail.billed, trail.body, trail.on_wire, trail.started_at = call.billed, body, True, time.time()
        try:
            outcome = await self._http.send(call, body, seconds_left=None if seconds_left == inf else seconds_left)
        except asyncio.CancelledError:
            if trail.may_be_billed:
                trail.lost = self._unknown(call, trail, "waiting", "it was cut off before its answer came", None)
            raise
        # An answer that says yes is still a payment to be told: only a refusal or a break ends that.
        trail.on_wire = isinstance(outcome, Answer) and outcome.status < 300  # noqa: PLR2004  success
        if body is not None and body.error is not None and isinstance(outcome, Broken):
            raise body.error
        seconds = asyncio.get_running_loop().time() - started
        status, error = (outcome.status, None) if isinstance(outcome, Answer) else (None, outcome.cause)
        self.tell(Attempt(request=call.name, number=trail.attempt, seconds=seconds, status=status, error=error))
        return outcome

    async def _open_body(self, call: WireCall, upload: Upload | None) -> Body | None:
        idle = self._settings.timeouts.idle
        if upload is not None:
            return await upload.open(f"dryapi-{secrets.token_hex(16)}", idle=idle, progress=self._progress(call))
        return None if call.content is None else TextBody(call.content, idle=idle)

    def _progress(self, call: WireCall) -> Callable[[int, int], None] | None:
        if self._on_event is None:
            return None
        return lambda sent, total: self.tell(BytesSent(request=call.name, bytes_sent=sent, bytes_total=total))

    @staticmethod
    def _classify(outcome: Answer | Broken) -> Answered | Broke:
        if isinstance(outcome, Broken):
            return Broke(sent=outcome.sent)
        if outcome.status != 429:  # noqa: PLR2004  Too Many Requests
            return Answered(status=outcome.status)
        body, now = _decode_or_none(outcome.content), time.time()
        return Answered(
            status=outcome.status,
            retry_after=read_retry_after(outcome.headers, body, now=now),
            daily=read_limit_kind(outcome.headers, body, now=now) == "daily",
        )

    def _failure(self, call: WireCall, outcome: Answer | Broken, trail: Trail, *, unknown: bool) -> DryAPIError:
        """Make the error that a call ends with."""
        if isinstance(outcome, Broken):
            return self._unknown(call, trail, outcome.phase, outcome.cause, None) if unknown else outcome.error
        if unknown:
            error = self._refusal(call, outcome)
            return self._unknown(call, trail, "answered", str(error), outcome.status)
        return self._refusal(call, outcome)

    @staticmethod
    def _refusal(call: WireCall, answer: Answer) -> StatusError | TransportError:
        if 300 <= answer.status < 400:  # noqa: PLR2004  redirects
            return ResponseError(
                f"{call.name}: the service answered a redirect ({answer.status}), which is never followed with a key. Check base_url.",
                status=answer.status,
                excerpt=excerpt(answer.headers.get("location", "").partition("?")[0]),
            )
        error = read_error(answer.status, answer.headers, answer.content, request=call.name, now=time.time())
        if isinstance(error, GoneError) and error.successor:
            error.args = (f"{error} Its successor is {error.successor}.",)
        return error

    @staticmethod
    def _unknown(call: WireCall, trail: Trail, phase: str, cause: str, status: int | None) -> SubmissionUnknownError:
        return SubmissionUnknownError(
            f"{call.name} was sent and its answer was lost ({phase}: {cause.rstrip('.')}). It may have been accepted and billed, "
            "so it isn't repeated. Look at the dashboard or the balance; make a new call only if you accept to pay twice.",
            operation=call.slug,
            phase=phase,
            started_at=trail.started_at,
            failed_at=time.time(),
            attempt=trail.attempt,
            cause=cause,
            status=status,
        )


def _decode_or_none(content: bytes) -> Any:
    try:
        return decode_json(content)
    except ResponseError:
        return None
