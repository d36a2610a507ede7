"""What becomes of one call, for who waits beside it, for the journal, and for the error where its fate isn't known."""

import asyncio
import secrets
import time
from math import inf
from typing import TYPE_CHECKING, Final

from attrs import define, field

from dryapi_async.errors import SubmissionUnknownError
from dryapi_async.io.body import Body
from dryapi_async.io.uploads import FormBody
from dryapi_async.io.waits import Deadlines
from dryapi_async.protocol.digest import digest_request
from dryapi_async.protocol.wire import WireCall, rename_key

if TYPE_CHECKING:
    from dryapi_async.io.journal import Journal  # sqlite3 is imported only where a journal is used

KEY_BYTES: Final = 16


def make_key() -> str:
    """Make the key of a call: 128 random bits, as hex."""
    return secrets.token_hex(KEY_BYTES)


@define(eq=False, repr=False)
class Trail:
    """How far one call has come: whether it is on its way, and since when."""

    key: str = field(factory=make_key)
    """Its key in the journal."""
    label: str = ""
    """What the user calls it in the journal."""
    unless: tuple[str, ...] = ()
    """States in which another call of the same label in the journal forbids this one."""
    covered: frozenset[str] | None = None
    """Keys of calls that the user agreed to pay for once more; None before they were looked up."""
    earlier: tuple[str, ...] = ()
    """Keys of its attempts whose fate isn't known, after which it was sent again at the user's word."""
    before: SubmissionUnknownError | None = None
    """What is known of the last of these: whatever comes after it, only a job can make up for it."""
    patience: float = inf
    """Loop time until which somebody waits for it."""
    resubmit: bool = False
    """The user's word that it may be sent again although it may be paid for twice."""
    journal: "Journal | None" = field(default=None, repr=False)
    billed: bool = False
    on_wire: bool = False
    abandoned: bool = False
    """Whether nobody waits any more: then it isn't sent again."""
    told_unknown: bool = False
    """Whether somebody was told that its fate is unknown: then a late answer is kept for ``client.settle``."""
    call: WireCall | None = field(default=None, repr=False)
    attempt: int = 0
    started_at: float = 0.0
    waits_for: str = "its turn"
    """In words, for who runs out of patience before anything was sent."""
    body: Body | None = field(default=None, repr=False)
    lost: SubmissionUnknownError | None = None
    """Why its fate is unknown, where it was cut off on its way."""
    _waits: tuple[asyncio.Future[bool], ...] = field(default=(), repr=False)
    """Of those who wait for its end."""
    _written: str = ""
    _boundary: str = field(default="", repr=False)

    @property
    def boundary(self) -> str:
        """What stands between the parts of its form: random, and the same in all attempts."""
        self._boundary = self._boundary or make_key()
        return self._boundary

    @property
    def may_be_billed(self) -> bool:
        """Whether a byte of a request that costs money has left whose answer isn't known yet."""
        return self.billed and self.on_wire and (self.body is None or self.body.sent)

    async def intend(self, journal: "Journal", call: WireCall, body: Body | None) -> None:
        """Have the intent to send a payment on disk, before it is sent.

        Raises:
            JournalError: It can't be written: nothing was sent.
            AlreadySubmittedError: Another call has its label: nothing was sent.
        """
        digest = digest_body(call, body)
        # Noted before it is: cancelled in the middle, the row is written all the same, and `end` says that nothing was sent.
        self._written = "intent"
        await journal.intend(
            self.key,
            operation=call.slug,
            digest=digest,
            attempt=self.attempt,
            label=self.label,
            unless=self.unless,
            covered=self.covered or frozenset(),
            earlier=self.earlier,
        )

    def begin(self, call: WireCall, body: Body | None) -> None:
        """Note that a request leaves now."""
        self.billed, self.call, self.body, self.started_at = call.billed, call, body, time.time()
        # The last word before the wire: no step may lie between it and the sending.
        self.on_wire = True

    async def wait(self, deadline: float, deadlines: Deadlines) -> None:
        """Wait until its work has ended, or a moment of the loop's time has come; who is cancelled meanwhile leaves the work alone.

        It is ``asyncio.shield`` inside ``asyncio.timeout_at`` at two thirds of their price, and every submit pays it.
        """
        wait: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waits = (*self._waits, wait)
        deadlines.add(wait, deadline)
        try:
            await wait
        finally:
            deadlines.remove()
            self._waits = tuple(one for one in self._waits if one is not wait)

    def wake(self) -> None:
        """Let all look who wait for the end of its work."""
        waits, self._waits = self._waits, ()
        for wait in waits:
            if not wait.done():
                wait.set_result(False)

    def note(self, state: str, cause: str = "") -> None:
        """Tell the journal what became of an attempt that nothing was billed for."""
        if self.journal is not None and self._written:
            self.journal.note(self.key, state, cause=cause)
            self._written = state

    def begin_anew(self, call: WireCall, cause: str) -> WireCall:
        """Take another key, which is the call's from now on: what was sent under the old one stays a payment whose fate isn't known."""
        self.before, old = describe_loss(self, "answered", cause), self.key
        self.earlier, self.key = (*self.earlier, old), make_key()
        return rename_key(call, old, self.key)

    def end(self) -> None:
        """Tell the journal that a call which waited to be sent again won't be."""
        if self._written in {"intent", "waiting"}:
            self.note("refused", "it was given up before it was sent again")

    async def record(self, state: str, *, request_id: str | None = None, cause: str = "") -> None:
        """Tell the journal what became of the call; it is on disk when this returns."""
        if self.journal is not None and self._written:
            await self.journal.record(self.key, state, request_id=request_id, cause=cause)


def digest_body(call: WireCall, body: Body | None) -> str:
    """Give the digest of a request whose files are open."""
    return digest_request(call, body.files if isinstance(body, FormBody) else ())


def lose(trail: Trail, phase: str, cause: str, status: int | None = None) -> SubmissionUnknownError:
    """Make the error that says all that is known about a payment whose answer was lost."""
    trail.told_unknown = True
    return describe_loss(trail, phase, cause, status)


def describe_loss(trail: Trail, phase: str, cause: str, status: int | None = None) -> SubmissionUnknownError:
    """Say all that is known of the last attempt of a call, whose answer was lost."""
    call = trail.call
    assert call is not None  # noqa: S101  for the type checker: only what has begun can be lost
    return SubmissionUnknownError(
        f"{call.name} was sent and its answer was lost ({phase}: {cause.rstrip('.')}). It may have been accepted and billed, "
        "so it isn't repeated. Ask client.settle(error), look at the dashboard or the balance; make a new call only if you accept to pay "
        "twice.",
        operation=call.slug,
        digest=digest_body(call, trail.body),
        phase=phase,
        started_at=trail.started_at,
        failed_at=time.time(),
        attempt=trail.attempt,
        cause=cause,
        status=status,
        journal_key=trail.key,
    )
