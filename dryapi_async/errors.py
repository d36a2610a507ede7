"""Every error this package raises, as one tree.

::

    DryAPIError
    ├── ConfigurationError (ValueError)      no key, bad URL, option out of range
    │   └── JournalError                     locked, read-only, full, of a newer version
    ├── ClientClosedError                    with the tickets of what was waited for
    ├── ClientLoopError                      used from another running loop
    ├── SharedStateError                     Redis away, where the user chose to stop
    ├── BudgetExceededError                  a batch's budget
    ├── InputError (ValueError)              refused before anything was sent
    │   ├── AlreadySubmittedError            the journal has a call of that label
    │   └── SourceError                      missing, unreadable or empty file
    │       ├── SourceChangedError           it changed while it was sent
    │       └── SourceNotReplayableError     a one-shot source can't be sent twice
    ├── TransportError                       no usable answer
    │   ├── ConnectError                     nothing was sent
    │   ├── PoolTimeoutError (TimeoutError)
    │   ├── RequestTimeoutError (TimeoutError)
    │   └── ResponseError                    an answer that can't be read
    ├── StatusError                          .status .message .errors .headers
    │   ├── AuthenticationError              401
    │   ├── PermissionDeniedError            403
    │   │   └── AccountSuspendedError
    │   ├── NotFoundError                    404
    │   ├── GoneError                        410, .successor
    │   ├── PayloadTooLargeError             413
    │   ├── ValidationError                  422
    │   │   └── InsufficientBalanceError     (and 402)
    │   ├── RateLimitError                   429, .kind .retry_after .resets_at
    │   └── ServerError                      5xx
    ├── SubmissionUnknownError               sent, fate unknown: may have been billed
    ├── JobError                             .request_id .ticket
    │   ├── JobFailedError                   .code .reason
    │   ├── JobTimeoutError (TimeoutError)   the patience ended, the job didn't
    │   └── PollingFailedError               too many failed reads in a row
    ├── DownloadError
    │   └── LinkExpiredError
    └── SignatureError                       answer 401

Errors hold plain data only, so each one pickles, deep-copies and crosses a process pool. ``str(error)`` is one line that says what to do
next.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self


def _rebuild(cls: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> BaseException:
    """Make an error again without its constructor, which has required keywords."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


def one_line(text: str) -> str:
    """Join the lines of a text with blanks: a log's line must stay one. Blanks within a line stay as they are, for they may be a path's."""
    return " ".join(filter(None, (line.strip() for line in text.splitlines())))


MOST_SHOWN: Final = 60
"""Characters of a value in a message."""


def show_value(value: object) -> str:
    """Show a value of any type in a message: its type, and the beginning of its repr, where it has one that can be made."""
    kind = type(value).__name__
    try:
        text = one_line(repr(value))
    except Exception:  # noqa: BLE001  a repr of the user's own may raise anything, and one of a huge int does
        return kind
    return f"{kind} {text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + '…'}"


class DryAPIError(Exception):
    """The root of all errors: ``except DryAPIError`` catches everything this package raises on purpose. Its text says what to do next."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(str(message)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConfigurationError(DryAPIError, ValueError):
    """A client was set up wrongly: no key, a bad URL, an option out of range. Mend the option that the message names."""


class JournalError(ConfigurationError):
    """The journal can't be trusted: locked, read-only, full, or of a newer version. Nothing was submitted: mend the file, then go on."""


class ClientClosedError(DryAPIError):
    """The client was closed. Jobs go on at the service: a new client takes them up again with ``client.job(ticket)``.

    ``tickets`` names what was waited for.
    """

    def __init__(self, message: str, *, tickets: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tickets = tickets


class ClientLoopError(DryAPIError):
    """A client was used from a second event loop while its own still runs. Make one client per thread."""


class SharedStateError(DryAPIError):
    """The shared store (Redis) is away, and the client was told to stop then. Nothing was sent: bring it back, then make the call again."""


class BudgetExceededError(DryAPIError):
    """The next request would have passed the batch's budget. It wasn't sent: give a larger budget to go on."""


class InputError(DryAPIError, ValueError):
    """A request was refused before anything was sent. Mend the field that the message names."""


class AlreadySubmittedError(InputError):
    """The journal has a call of this label already, and ``once=True`` was said. Nothing was sent: go on with ``client.job(error.ticket)``.

    ``state`` is its state in the journal (intent, waiting, submitted, done, saved, unknown, failed), ``ticket`` its job's, once there is
    one, ``journal_key`` its key there; it may be another process's.
    """

    def __init__(self, message: str, *, label: str, state: str, ticket: str | None = None, journal_key: str | None = None) -> None:
        super().__init__(message)
        self.label = label
        self.state = state
        self.ticket = ticket
        self.journal_key = journal_key


class SourceError(InputError):
    """A file to upload is missing, unreadable, empty or of another kind. Nothing was sent; ``source`` names it."""

    def __init__(self, message: str, *, source: str = "") -> None:
        super().__init__(message)
        self.source = source


class SourceChangedError(SourceError):
    """A file changed while it was sent. Whether the service took the rest is in the error's cause; send it again once it is at rest."""


class SourceNotReplayableError(SourceError):
    """A one-shot source (a generator, a pipe) was consumed and can't be sent a second time. Make a new call with a fresh one."""


class TransportError(DryAPIError):
    """No usable answer came, after all attempts that were safe to make. Nothing was billed: check the network, then try again."""


class ConnectError(TransportError):
    """No connection could be made: nothing was sent, nothing was billed. Check the address and the network, then try again."""


class PoolTimeoutError(TransportError, TimeoutError):
    """All connections stayed busy for ``Timeouts.pool`` seconds: nothing was sent. Raise ``pool_size`` or send less at once."""


class RequestTimeoutError(TransportError, TimeoutError):
    """No answer came in time. A reading may be made again; a call that makes a job is finished once more to go on waiting for it."""


class ResponseError(TransportError):
    """An answer came that can't be read as what the contract says: a gateway's page, a cut JSON. Check ``base_url``, then try again.

    ``status`` is the HTTP status, ``excerpt`` has the answer's beginning.
    """

    def __init__(self, message: str, *, status: int | None = None, excerpt: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.excerpt = excerpt


class StatusError(DryAPIError):
    """The service refused a request, with a status that has no class of its own. Nothing was billed: its words say what to mend.

    ``status`` is the HTTP status, ``message`` the service's words, ``errors`` its words per field, ``headers`` the answer's headers with
    lower-case names, ``request`` what was asked, such as ``POST txt2img``.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int,
        message: str = "",
        errors: Mapping[str, tuple[str, ...]] | None = None,
        headers: Mapping[str, str] | None = None,
        request: str = "",
    ) -> None:
        super().__init__(text)
        self.status = status
        self.message = message
        self.errors: dict[str, tuple[str, ...]] = dict(errors or {})
        self.headers: dict[str, str] = dict(headers or {})
        self.request = request


class AuthenticationError(StatusError):
    """401: the key is missing, wrong or revoked. Check DRYAPI_API_KEY against the dashboard."""


class PermissionDeniedError(StatusError):
    """403: the account or the network in front of the service refuses this. Trying again doesn't help."""


class AccountSuspendedError(PermissionDeniedError):
    """403: the account is suspended. Only the service's support can lift that."""


class NotFoundError(StatusError):
    """404: no such job, model or route on this host. Check the id and ``base_url``; a job that was just made is waited for first."""


class GoneError(StatusError):
    """410: the service retired this operation. Stop calling it: ``successor`` is the address it names instead, if it names one."""

    successor: str | None = None


class PayloadTooLargeError(StatusError):
    """413: the upload is over the limit of the service's front end. Nothing was billed; send a smaller file."""


class ValidationError(StatusError):
    """422: the service judged the request invalid, and nothing was billed. Mend the fields that ``errors`` names, then send it again."""


class InsufficientBalanceError(ValidationError):
    """422 or 402: the balance doesn't cover the job. Nothing was billed; top up first."""


class RateLimitError(StatusError):
    """429: over a limit, and the wait is longer than may be waited for. Nothing was billed: try again at ``resets_at``.

    ``kind`` is ``minute`` or ``daily``, ``retry_after`` the seconds that the service asks for, ``resets_at`` the unix time at which it
    takes requests again, as far as it said so. ``lane`` is set where the day's limit of a lane is used up here already: then nothing was
    sent at all. ``ticket`` names the job whose status couldn't be read, where it was one.
    """

    kind: Literal["minute", "daily"] = "minute"
    retry_after: float | None = None
    resets_at: float | None = None
    lane: str | None = None
    ticket: str | None = None


class ServerError(StatusError):
    """5xx on a request that bills nothing: the service or its gateway is in trouble. Try again later: that costs nothing."""


class SubmissionUnknownError(DryAPIError):
    """A submit left this machine and its answer was lost: it may have been accepted and billed. It is never repeated by itself.

    The service has no way to look it up; ``await client.settle(error)`` looks for evidence here: a late answer, the journal. Make a new
    call only if you accept to pay twice. ``operation`` is the slug, ``digest`` the SHA-256 of the request, ``phase`` where it broke
    (``sending``, ``waiting``, ``reading``, ``answered``), ``started_at`` and ``failed_at`` unix times, ``attempt`` which one it was,
    ``cause`` why, in words, ``status`` the HTTP status if one came, ``journal_key`` the call's key in the journal.
    """

    def __init__(  # noqa: PLR0913  all that is known about a payment
        self,
        message: str,
        *,
        operation: str,
        digest: str = "",
        phase: str = "",
        started_at: float = 0.0,
        failed_at: float = 0.0,
        attempt: int = 1,
        cause: str = "",
        status: int | None = None,
        journal_key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.digest = digest
        self.phase = phase
        self.started_at = started_at
        self.failed_at = failed_at
        self.attempt = attempt
        self.cause = cause
        self.status = status
        self.journal_key = journal_key


class JobError(DryAPIError):
    """Something went wrong about one job that is paid for. ``client.job(error.ticket)`` takes it up again, here or in another process.

    ``request_id`` is the service's id of it.
    """

    def __init__(self, message: str, *, request_id: str, ticket: str) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.ticket = ticket


class JobFailedError(JobError):
    """The service says the job failed. Waiting again doesn't help: mend the request by its words, or make a new call.

    ``code`` and ``reason`` are the service's words; both may be None, a v1 status often gives none.
    """

    def __init__(self, message: str, *, request_id: str, ticket: str, code: str | None = None, reason: str | None = None) -> None:
        super().__init__(message, request_id=request_id, ticket=ticket)
        self.code = code
        self.reason = reason


class JobTimeoutError(JobError, TimeoutError):
    """The wait ended, the job didn't: it goes on and is paid for. Wait again with ``job.result(timeout=...)``, or keep the ticket.

    ``state`` and ``progress`` are the last known, ``reads`` how many status reads were made, ``seconds`` how long the wait was.
    """

    def __init__(  # noqa: PLR0913  what was waited for, and how
        self,
        message: str,
        *,
        request_id: str,
        ticket: str,
        state: str | None = None,
        progress: float | None = None,
        reads: int = 0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(message, request_id=request_id, ticket=ticket)
        self.state = state
        self.progress = progress
        self.reads = reads
        self.seconds = seconds


class PollingFailedError(JobError):
    """Too many status reads failed in a row. The job goes on and is paid for: wait again later, or keep the ticket.

    ``failures`` is how many reads failed, ``cause`` the last one's words.
    """

    def __init__(self, message: str, *, request_id: str, ticket: str, failures: int, cause: str) -> None:
        super().__init__(message, request_id=request_id, ticket=ticket)
        self.failures = failures
        self.cause = cause


class DownloadError(DryAPIError):
    """A result couldn't be fetched whole; nothing half-written is left. The result stays at the service: save it again."""


class LinkExpiredError(DownloadError):
    """The link had expired and a fresh one was refused, too. Read the status again later."""


class SignatureError(DryAPIError):
    """A webhook's signature is missing, wrong or too old. Answer 401 and don't act on it."""

    @classmethod
    def because(cls, reason: str) -> Self:
        """Make the error with its sentence around the reason."""
        return cls(f"Webhook refused: {reason}. Answer 401.")
