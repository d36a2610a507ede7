"""Misbehaviour on request: what to do wrong, to which requests, how often."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args

from attrs import define, evolve, field, frozen

from dryapi_async.simulator.contract import OPERATIONS
from dryapi_async.simulator.errors import HTML, JSON, Answer, html_page, too_many
from dryapi_async.simulator.received import Received

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping


Phase = Literal["before_body", "mid_body", "after_body", "headers", "payload"]
Kind = Literal["status", "reset", "close", "hang", "truncate", "garbage", "trickle", "delay", "job_error"]
Match = "str | Callable[[Received], bool]"
BodyLike = str | bytes | dict[str, Any] | list[Any] | None

PHASES: tuple[Phase, ...] = ("before_body", "mid_body", "after_body", "headers", "payload")
MATCHES: tuple[str, ...] = ("*", "storage", "push", "broadcasting/auth", *OPERATIONS)
"""What a script may name: every operation, both ports, and the push channel's two ends."""
_LIMITS = ("minute", "daily")
_SERVER_ERROR = 500


def check_name(what: str, given: object, known: Iterable[str]) -> None:
    """Refuse a name that isn't known; the ValueError has the nearest one and all there are."""
    names = sorted(known)
    if given in names:
        return
    near = get_close_matches(str(given), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {given!r}: {hint}known are {', '.join(map(repr, names))}")


@frozen
class Fault:
    """One misbehaviour, made by the constructors below.

    Phases: ``before_body`` (headers read), ``mid_body`` (half of the body read), ``after_body`` (all read: the job is made
    and billed, nothing answered), ``headers`` (in the middle of the answer's headers, billed), ``payload`` (in the middle
    of the answer's payload, billed).
    """

    kind: Kind
    phase: Phase = "after_body"
    answer: Answer | None = None
    early: bool = False
    abrupt: bool = False
    billed: bool = False
    seconds: float = 0.0
    bytes_per_second: float = 0.0
    at: float = 0.5
    code: str = ""
    message: str = ""
    reused: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse a kind or phase that isn't known: it would strike never, or elsewhere."""
        check_name("kind of fault", self.kind, get_args(Kind))
        check_name("phase", self.phase, PHASES)

    @classmethod
    def status(  # noqa: PLR0913 - what an answer is made of
        cls,
        status: int,
        body: BodyLike = None,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        early: bool = False,
        abrupt: bool = False,
        billed: bool | None = None,
    ) -> Fault:
        """Answer with a status.

        The body is JSON for a dict or list, HTML for a str that begins with ``<``, else plain; None is ``{"message": ...}``.
        ``early`` answers before the body is read, then reads on for a while and closes; with ``abrupt`` it closes at once,
        so that the answer itself may get lost. ``billed`` says whether a job was made and charged all the
        same: by default for 5xx that aren't early, as behind a proxy that lost the answer.
        """
        content, kind = _encode_body(status, body)
        charged = (status >= _SERVER_ERROR and not early) if billed is None else billed
        return cls(
            "status", answer=Answer(status, content, content_type or kind, dict(headers or {})), early=early, abrupt=abrupt, billed=charged
        )

    @classmethod
    def html(cls, status: int = 502, *, early: bool = False, billed: bool | None = None) -> Fault:
        """Answer with a proxy's HTML error page."""
        return cls.status(status, html_page(status), content_type=HTML, early=early, billed=billed)

    @classmethod
    def unauthorized(cls, *, early: bool = False) -> Fault:
        """Answer 401."""
        return cls.status(401, {"message": "Unauthenticated."}, early=early)

    @classmethod
    def too_large(cls, *, early: bool = False) -> Fault:
        """Answer 413 as the front end does, in HTML."""
        return cls.html(413, early=early)

    @classmethod
    def not_found(cls) -> Fault:
        """Answer 404, as a status read just after the submit may."""
        return cls.status(404, {"message": "No query results for model [JobRequest]"})

    @classmethod
    def rate_limited(
        cls,
        kind: Literal["minute", "daily"] = "minute",
        *,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | bool = True,
        early: bool = False,
    ) -> Fault:
        """Answer 429. ``retry_after`` is put into the header as it is (default 60 or 43200); ``headers=False`` leaves all out."""
        check_name("kind of rate limit", kind, _LIMITS)
        wait = retry_after if retry_after is not None else (60 if kind == "minute" else 43_200)
        limit = {"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": "0"}
        if kind == "daily":
            limit = {**limit, "X-RateLimit-Remaining": "3", "X-RateLimit-Daily-Limit": "100", "X-RateLimit-Daily-Remaining": "0"}
        given = {**limit, "X-RateLimit-Type": kind, "Retry-After": str(wait)} if headers is True else dict(headers or {})
        answer = too_many(kind, 60, ())
        return cls("status", answer=Answer(429, answer.body, answer.content_type, given), early=early)

    @classmethod
    def redirect(cls, location: str, status: int = 307) -> Fault:
        """Answer with a redirect to a URL; no job is made."""
        return cls.status(status, "", headers={"Location": location}, content_type=HTML)

    @classmethod
    def reset(cls, phase: Phase = "after_body", *, at: float = 0.5) -> Fault:
        """Abort the connection with RST. ``at`` is the part of the payload sent before (phase ``payload``)."""
        return cls("reset", phase, at=at)

    @classmethod
    def close(cls, phase: Phase = "after_body", *, at: float = 0.5, reused: bool = False) -> Fault:
        """Close the connection with FIN. ``reused`` waits for a request on a kept-alive connection."""
        return cls("close", phase, at=at, reused=reused)

    @classmethod
    def hang(cls, phase: Phase = "after_body", *, seconds: float = math.inf, at: float = 0.5) -> Fault:
        """Say nothing more for so many seconds, then close."""
        return cls("hang", phase, seconds=seconds, at=at)

    @classmethod
    def truncate(cls, phase: Phase = "payload", *, at: float = 0.5) -> Fault:
        """Answer with a Content-Length larger than what is sent, then close. Before the body is read, the answer is a made-up one."""
        return cls("truncate", phase, at=at)

    @classmethod
    def garbage(cls, phase: Phase = "after_body") -> Fault:
        """Answer what isn't HTTP (``headers``: broken header lines; ``payload``: 200 with undecodable JSON)."""
        return cls("garbage", phase)

    @classmethod
    def trickle(cls, bytes_per_second: float) -> Fault:
        """Send the answer's payload slowly."""
        return cls("trickle", "payload", bytes_per_second=bytes_per_second)

    @classmethod
    def delay(cls, seconds: float) -> Fault:
        """Do everything at once (a job is made), answer so much later."""
        return cls("delay", seconds=seconds)

    @classmethod
    def job_error(cls, code: str = "WORKER_TIMEOUT", message: str = "Worker failed to respond.") -> Fault:
        """Take the submit and let its job end in error."""
        return cls("job_error", code=code, message=message)

    def on_reused(self) -> Fault:
        """Wait for a request that comes over a kept-alive connection."""
        return evolve(self, reused=True)

    @property
    def before_answer(self) -> bool:
        """Whether it strikes before the request is handled."""
        return self.phase in {"before_body", "mid_body"}

    def __str__(self) -> str:
        if self.kind == "status" and self.answer is not None:
            return f"status {self.answer.status}{' early' if self.early else ''}"
        return f"{self.kind} {self.phase}" if self.kind in {"reset", "close", "hang", "truncate", "garbage"} else self.kind


def _encode_body(status: int, body: BodyLike) -> tuple[bytes, str]:
    if body is None:
        body = {"message": "Server Error" if status >= _SERVER_ERROR else f"Status {status}"}
    if isinstance(body, dict | list):
        return json.dumps(body).encode(), JSON
    content = body.encode() if isinstance(body, str) else body
    return content, HTML if content.lstrip()[:1] == b"<" else "text/plain; charset=UTF-8"


def _check_odds(times: object, probability: object) -> None:
    """Refuse what can't be counted, and what is no chance: it would strike otherwise than its reader thinks."""
    if not _is_number(times) or times < 0 or not (times == math.inf or times == int(times)):
        raise ValueError(f"times must be a whole number from 0, or math.inf, not {times!r}")
    if probability is not None and not (_is_number(probability) and 0 <= probability <= 1):
        raise ValueError(f"probability must be a number from 0 to 1, not {probability!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


@define(eq=False)
class Scripted:
    """Faults that wait for their requests; ``remove()`` takes back what is left."""

    match: str | Callable[[Received], bool]
    faults: list[Fault]
    times: float = 1
    """How many requests meet each fault: 0 is none, ``math.inf`` is all."""
    probability: float | None = None
    used: int = 0
    """How many requests have met one."""
    _left: list[tuple[Fault, float]] = field(factory=list[tuple[Fault, float]])

    def __attrs_post_init__(self) -> None:
        if not callable(self.match):
            check_name("operation", self.match, MATCHES)
        _check_odds(self.times, self.probability)
        self._left = [(fault, self.times) for fault in self.faults if self.times]

    @property
    def spent(self) -> bool:
        """Whether none is left."""
        return not self._left

    @property
    def unmet(self) -> int:
        """How many are left for requests that never came; where any number may come, all of them until the first."""
        if self.probability is not None or math.isinf(self.times):
            return 0 if self.used else len(self._left)
        return int(sum(times for _, times in self._left))

    def remove(self) -> None:
        """Take back what is left."""
        self._left.clear()

    def take(self, received: Received, rng: random.Random) -> Fault | None:
        """Give the fault that this request meets, used up by it."""
        if not self._left or not self._matches(received):
            return None
        if self.probability is not None:
            fault = rng.choice(self.faults) if rng.random() < self.probability else None
            self.used += fault is not None
            return fault
        fault, times = self._left[0]
        if fault.reused and not received.reused:
            return None
        self._left[:1] = [(fault, times - 1)] if times > 1 else []
        self.used += 1
        return fault

    def _matches(self, received: Received) -> bool:
        if callable(self.match):
            return self.match(received)
        return self.match == received.operation or (self.match == "*" and received.operation not in {"storage", "push"})
