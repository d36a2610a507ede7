"""The one loop around every request to the API: send, let a pure function decide, wait or raise. It has no opinion of its own."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from dryapi_async.config import Retry, Settings
from dryapi_async.errors import (
    DryAPIError,
    PoolTimeoutError,
    RequestTimeoutError,
    ResponseError,
    StatusError,
    SubmissionUnknownError,
    TransportError,
)
from dryapi_async.io.body import Body, TextBody
from dryapi_async.io.counts import Counts
from dryapi_async.io.http import Answer, Broken, Http
from dryapi_async.io.pacing import Pacing, Passage
from dryapi_async.io.places import Places
from dryapi_async.io.threads import FileThreads
from dryapi_async.io.trail import Trail, lose
from dryapi_async.io.uploads import Upload
from dryapi_async.protocol.endpoint import STATUS_LANE
from dryapi_async.protocol.replies import decode_json, read_error, read_limit_kind, read_retry_after
from dryapi_async.protocol.retry import Again, Answered, Broke, GiveUp, RetryQuota, Unknown, decide
from dryapi_async.protocol.status import excerpt
from dryapi_async.protocol.wire import WireCall

if TYPE_CHECKING:
    from dryapi_async.events import Step
    from dryapi_async.teller import Teller, ToldStep

logger: logging.Logger = logging.getLogger("dryapi_async")
T = TypeVar("T")

UNHEARD: Final[AbstractContextManager[None]] = nullcontext()
"""A step while nobody listens."""
LARGE_JSON: Final = 1_000_000
"""Bytes: a longer answer is decoded in a thread, so that the loop doesn't stall."""


class Exchange:
    """Makes calls: attempts, waits in between, one deadline over all."""

    def __init__(
        self,
        http: Http,
        threads: FileThreads,
        settings: Settings,
        teller: "Teller | None",
        *,
        before: "Exchange | None" = None,
        pacing: Pacing | None = None,
    ) -> None:
        """Make calls on one loop; limits go on where the life ``before`` left them, or are those that ``pacing`` keeps already."""
        loop = asyncio.get_running_loop()
        self._http = http
        self._threads = threads
        self._settings = settings
        self.teller: Teller | None = teller
        # The wall clock at the loop's pace: what a clock that jumps says stays consistent with its timers.
        self._epoch = time.time() - loop.time()
        self._now = loop.time
        self.quota: RetryQuota = RetryQuota()
        self.counts: Counts = Counts() if before is None else before.counts
        self._host = urlsplit(settings.base_url).netloc.rpartition("@")[2]
        self.pacing: Pacing = pacing or Pacing(
            settings.limits,
            settings.max_in_flight,
            tell=self.tell_wait,
            wall=self.wall,
            before=None if before is None else before.pacing,
        )

    def wall(self) -> float:
        """Give unix time."""
        return self._epoch + self._now()

    @property
    def slots(self) -> Places:
        """What is transferred at once, submits and downloads: ``max_in_flight``."""
        return self.pacing.slots

    def tell_wait(self, lane: str, seconds: float) -> None:
        """Tell that a request waits for its lane."""
        if self.teller is not None:
            self.teller.rate_limited(lane, seconds)

    def step(self, step: "Step", operation: str, request_id: str | None = None) -> "AbstractContextManager[ToldStep | None]":
        """Tell the beginning and the end of a part of the work; where nobody listens that costs next to nothing."""
        return UNHEARD if self.teller is None else self.teller.step(step, operation, request_id)

    def note_unknown(self, trail: Trail) -> None:
        """Count a submit whose answer was lost, and tell it."""
        self.counts.submits_unknown += 1
        if self.teller is not None and trail.call is not None:
            self.teller.submission_unknown(trail.call.name, trail.attempt)

    async def call(
        self,
        call: WireCall,
        read: Callable[[Any], T],
        *,
        deadline: float = inf,
        trail: Trail | None = None,
        exact: bool = False,
        retry: Retry | None = None,
    ) -> T:
        """Make a call and read its answer with ``read``.

        ``deadline`` is loop time and covers everything, ``exact`` keeps fractions Decimal, ``retry`` overrides the settings'.

        Raises:
            DryAPIError: Its own class for each way to fail; for billed calls SubmissionUnknownError where the fate isn't known.
        """
        # A reading needs no key: nobody asks for it again.
        trail = trail or Trail(key="")
        upload = Upload(call.parts, self._threads) if call.parts is not None else None
        try:
            if upload is not None and self.pacing.must_wait(call.lane, slot=call.billed):
                # A missing file is told now, not after an hour's queue.
                await upload.look(idle=self._settings.timeouts.idle)
            retry = retry or self._settings.retry
            while True:
                outcome = await self._attempt(call, upload, deadline, trail)
                if isinstance(outcome, Answer) and outcome.status < 300:  # noqa: PLR2004  success
                    try:
                        value = read(await self.decode(outcome.content, exact=exact, fast=call.lane == STATUS_LANE, status=outcome.status))
                    except ResponseError as error:
                        outcome = Broken(sent=True, phase="answered", cause=str(error), error=error, status=outcome.status)
                    else:
                        self.quota.put()
                        return value
                trail.on_wire = False
                call = await self._recover(call, outcome, trail, retry, min(deadline, trail.patience) - self._now())
                if upload is not None:
                    upload.rename(call.parts or ())
        except BaseException as error:
            self._give_up(trail, error)
            raise
        finally:
            if upload is not None:
                upload.close()

    @staticmethod
    def _give_up(trail: Trail, error: BaseException) -> None:
        """Note what is lost with a call that ends without an answer.

        Raises:
            SubmissionUnknownError: An earlier attempt was lost and may be billed, whatever this one ended with.
        """
        if trail.may_be_billed:
            trail.lost = lose(trail, "waiting", "it was cut off before its answer came")
            trail.note("unknown", trail.lost.cause)
        trail.end()
        if trail.before is None or isinstance(error, SubmissionUnknownError):
            return
        trail.lost = trail.lost or trail.before
        if isinstance(error, Exception):
            raise trail.lost from error

    async def decode(self, content: bytes, *, exact: bool = False, fast: bool = False, status: int | None = None) -> Any:
        """Decode JSON, in a thread where it is long."""
        if len(content) > LARGE_JSON:
            return await self._threads.start(decode_json, content, exact=exact, fast=fast, status=status)
        return decode_json(content, exact=exact, fast=fast, status=status)

    async def _recover(self, call: WireCall, outcome: Answer | Broken, trail: Trail, retry: Retry, seconds_left: float) -> WireCall:
        """Wait for the next attempt and give what is sent then, or raise what became of the call."""
        happened = self._classify(call, outcome)
        chance = random.random()  # noqa: S311  jitter, no secret
        verdict = decide(
            happened,
            billed=call.billed,
            attempt=trail.attempt,
            retry=retry,
            chance=chance,
            seconds_left=seconds_left,
            resubmit=trail.resubmit,
        )
        limited = isinstance(happened, Answered) and happened.status == 429  # noqa: PLR2004  Too Many Requests
        if isinstance(verdict, Again) and not (call.billed or limited or self.quota.take()):
            verdict = GiveUp()
        if not isinstance(verdict, Again):
            raise self._failure(call, outcome, trail, unknown=isinstance(verdict, Unknown))
        if limited:
            self.tell_wait(call.lane, verdict.seconds)
        began = self._now()
        try:
            return await self._pause(call, happened, trail, verdict.seconds, outcome)
        finally:
            if limited:
                self.pacing.seconds_waited += self._now() - began

    async def _pause(self, call: WireCall, happened: Answered | Broke, trail: Trail, seconds: float, outcome: Answer | Broken) -> WireCall:
        """Wait before the next attempt; what nobody waits for any more isn't sent again."""
        logger.debug("%s: attempt %d failed, again in %.2f s", call.name, trail.attempt, seconds)
        if _may_be_executed(happened, self._settings.retry) and call.billed:
            # The user's word allows another one; this one stays a payment whose fate isn't known.
            trail.note("unknown", "its answer was lost, and it was sent again at the user's word")
            self.note_unknown(trail)
            cause = outcome.cause if isinstance(outcome, Broken) else f"the service answered {outcome.status}"
            call = trail.begin_anew(call, cause)
        else:
            trail.note("waiting")
        trail.waits_for = f"its next attempt, in {seconds:.1f} s"
        await asyncio.sleep(0 if trail.abandoned else seconds)
        if trail.abandoned:
            raise asyncio.CancelledError
        return call

    async def _attempt(self, call: WireCall, upload: Upload | None, deadline: float, trail: Trail) -> Answer | Broken:
        """Wait for the turn, send once, and note that it is on its way while it is; an answer that says yes teaches the lane."""
        trail.attempt += 1
        trail.waits_for = f"its turn in lane {call.lane}"
        async with Passage(self.pacing, call, deadline=deadline, tell=self.tell_wait) as passage:
            if deadline < inf and self._now() >= deadline:
                raise RequestTimeoutError(f"{call.name}: the time given was over before it could be sent. Nothing was sent.")
            body = self._text_body(call) if upload is None else await self._open_form(call, upload, trail)
            trail.waits_for = "a free connection"
            if trail.journal is not None and call.billed:
                await trail.intend(trail.journal, call, body)
            trail.begin(call, body)
            passage.may_count = True
            started = self._now()
            try:
                outcome = await self._http.send(call, body, seconds_left=None if deadline == inf else deadline - started)
            except PoolTimeoutError:
                passage.may_count = trail.on_wire = False
                raise
            except BaseException:
                passage.may_count = body is None or body.sent
                self._note_attempt(call, trail, body, None, started)
                raise
            self._note_attempt(call, trail, body, outcome, started)
            if isinstance(outcome, Broken):
                passage.may_count, trail.on_wire = outcome.sent, False
                if body is not None and body.error is not None:
                    trail.note("refused", str(body.error))
                    raise body.error
                return outcome
            # An answer that says yes is still a payment to be told: only a refusal or a break ends that.
            trail.on_wire = outcome.status < 300  # noqa: PLR2004  success
            if outcome.status < 500 and outcome.status != 429:  # noqa: PLR2004  what says nothing, and what refuses
                self.pacing.learn(call.lane, outcome.headers)
            return outcome

    def _note_attempt(self, call: WireCall, trail: Trail, body: Body | None, outcome: Answer | Broken | None, started: float) -> None:
        """Count a request that ended, and tell it; without an outcome it was cut off here."""
        status, received = (outcome.status, len(outcome.content)) if isinstance(outcome, Answer) else (None, 0)
        sent = 0 if body is None else body.bytes_sent
        self.counts.add(call, trail.attempt, status, sent, received)
        if self.teller is None:
            return
        error = outcome.cause if isinstance(outcome, Broken) else "CancelledError" if outcome is None else None
        self.teller.attempt(
            call.name,
            trail.attempt,
            self._now() - started,
            status=status,
            error=error,
            host=self._host,
            bytes_sent=sent,
            bytes_received=received,
        )

    def _text_body(self, call: WireCall) -> Body | None:
        return None if call.content is None else TextBody(call.content, idle=self._settings.timeouts.idle)

    async def _open_form(self, call: WireCall, upload: Upload, trail: Trail) -> Body:
        # One boundary for all attempts: a repeated upload is the same to the byte.
        return await upload.open(f"dryapi-{trail.boundary}", idle=self._settings.timeouts.idle, progress=self._progress(call))

    def _progress(self, call: WireCall) -> Callable[[int, int], None] | None:
        return None if self.teller is None else partial(self.teller.bytes_sent, call.name)

    def _classify(self, call: WireCall, outcome: Answer | Broken) -> Answered | Broke:
        """Say what happened in the table's words; a 429 holds its lane back."""
        if isinstance(outcome, Broken):
            return Broke(sent=outcome.sent)
        if outcome.status != 429:  # noqa: PLR2004  Too Many Requests
            return Answered(status=outcome.status)
        body, now = _decode_or_none(outcome.content), self.wall()
        retry_after, kind = read_retry_after(outcome.headers, body, now=now), read_limit_kind(outcome.headers, body, now=now)
        self.pacing.refuse(call.lane, retry_after, kind)
        return Answered(status=outcome.status, retry_after=retry_after, daily=kind == "daily")

    def _failure(self, call: WireCall, outcome: Answer | Broken, trail: Trail, *, unknown: bool) -> DryAPIError:
        """Make the error that a call ends with, and tell the journal."""
        error = outcome.error if isinstance(outcome, Broken) else self._refusal(call, outcome)
        cause = outcome.cause if isinstance(outcome, Broken) else str(error)
        trail.note("unknown" if unknown else "refused", cause)
        if not unknown:
            return error
        return lose(trail, outcome.phase if isinstance(outcome, Broken) else "answered", cause, outcome.status)

    def _refusal(self, call: WireCall, answer: Answer) -> StatusError | TransportError:
        if 300 <= answer.status < 400:  # noqa: PLR2004  redirects
            return ResponseError(
                f"{call.name}: the service answered a redirect ({answer.status}), which is never followed with a key. Check base_url.",
                status=answer.status,
                excerpt=excerpt(answer.headers.get("location", "").partition("?")[0]),
            )
        return read_error(answer.status, answer.headers, answer.content, request=call.name, now=self.wall())


def _may_be_executed(happened: Answered | Broke, retry: Retry) -> bool:
    """Say whether the service may have done what was asked, although no answer says so."""
    if isinstance(happened, Broke):
        return happened.sent
    return happened.status != 429 and happened.status not in retry.unexecuted  # noqa: PLR2004  Too Many Requests


def _decode_or_none(content: bytes) -> Any:
    try:
        return decode_json(content)
    except ResponseError:
        return None
