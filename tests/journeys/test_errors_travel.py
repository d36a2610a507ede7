"""P25: every error keeps all it knows through pickle, deepcopy and a process pool."""

import copy
import multiprocessing
import pickle
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import dryapi_async as dry

WORDS: dict[str, Any] = {
    "text": "POST txt2img was refused.",
    "status": 422,
    "message": "The given data was invalid.",
    "errors": {"model": ("The selected model does not exist.",), "width": ("Too wide.", "Odd.")},
    "headers": {"retry-after": "60", "x-ratelimit-type": "minute"},
    "request": "POST txt2img",
}
JOB: dict[str, Any] = {"request_id": "c08a339c", "ticket": "txt2img:c08a339c"}


def refusal(cls: type[dry.StatusError], status: int, **more: Any) -> dry.StatusError:
    error = cls(WORDS["text"], **{name: value for name, value in WORDS.items() if name != "text"} | {"status": status})
    for name, value in more.items():
        assert hasattr(cls, name), f"{cls.__name__} has no {name}"
        setattr(error, name, value)
    return error


ROWS: tuple[dry.DryAPIError, ...] = (
    dry.DryAPIError("Something."),
    dry.ConfigurationError("No API key."),
    dry.JournalError("Locked."),
    dry.ClientClosedError("Closed.", tickets=("txt2img:1", "img2img:2")),
    dry.ClientLoopError("Another loop."),
    dry.SharedStateError("Redis is away."),
    dry.BudgetExceededError("Over the budget."),
    dry.InputError("image must be bytes."),
    dry.AlreadySubmittedError("There.", label="a fox", state="submitted", ticket="txt2img:1", journal_key="k"),
    dry.SourceError("fox.png is empty.", source="fox.png"),
    dry.SourceChangedError("fox.png changed.", source="fox.png"),
    dry.SourceNotReplayableError("Once only.", source="<async_generator>"),
    dry.TransportError("No usable answer."),
    dry.ConnectError("Nothing was sent."),
    dry.PoolTimeoutError("All busy."),
    dry.RequestTimeoutError("No answer in time."),
    dry.ResponseError("HTML.", status=200, excerpt="<html>"),
    refusal(dry.StatusError, 418),
    refusal(dry.AuthenticationError, 401),
    refusal(dry.PermissionDeniedError, 403),
    refusal(dry.AccountSuspendedError, 403),
    refusal(dry.NotFoundError, 404),
    refusal(dry.GoneError, 410, successor="https://api.deapi.ai/api/v2/prompts/enhancements"),
    refusal(dry.PayloadTooLargeError, 413),
    refusal(dry.ValidationError, 422),
    refusal(dry.InsufficientBalanceError, 402),
    refusal(dry.RateLimitError, 429, kind="daily", retry_after=43_200.0, resets_at=1.7e9, lane="txt2img", ticket="txt2img:1"),
    refusal(dry.ServerError, 503),
    dry.SubmissionUnknownError(
        "Lost.",
        operation="txt2img",
        digest="ab" * 32,
        phase="waiting",
        started_at=1.0,
        failed_at=2.5,
        attempt=2,
        cause="ServerDisconnectedError",
        status=502,
        journal_key="k",
    ),
    dry.JobError("A job.", **JOB),
    dry.JobFailedError("Failed.", **JOB, code="WORKER_TIMEOUT", reason="Worker failed to respond."),
    dry.JobTimeoutError("Not done.", **JOB, state="processing", progress=45.5, reads=7, seconds=30.0),
    dry.PollingFailedError("Ten in a row.", **JOB, failures=10, cause="502"),
    dry.DownloadError("Not whole."),
    dry.LinkExpiredError("Expired."),
    dry.SignatureError.because("it is too old"),
)
EXPORTED = {value for name in dry.__all__ if isinstance(value := getattr(dry, name), type) and issubclass(value, BaseException)}


def check(there: BaseException, back: BaseException) -> None:
    assert back is not there
    assert type(back) is type(there)
    assert (str(back), back.args, vars(back), repr(back)) == (str(there), there.args, vars(there), repr(there))
    for name in ("kind", "successor", "retry_after", "resets_at", "lane", "ticket"):
        assert getattr(back, name, None) == getattr(there, name, None)


def test_p25_every_exported_error_has_a_row() -> None:
    assert {type(row) for row in ROWS} == EXPORTED


def test_p25_every_row_says_all_that_its_class_can_say() -> None:
    for row in ROWS:
        for name, value in vars(row).items():
            assert value, f"the row of {type(row).__name__} leaves {name} empty: give it a value"
        settable = {name for cls in type(row).__mro__[:-1] for name in vars(cls).get("__annotations__", {})}
        assert settable <= vars(row).keys(), f"the row of {type(row).__name__} leaves out {settable - vars(row).keys()}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_p25_it_pickles_and_copies(row: dry.DryAPIError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        check(row, pickle.loads(pickle.dumps(row, protocol)))  # noqa: S301  our own
    check(row, copy.deepcopy(row))
    check(row, copy.copy(row))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_p25_a_note_goes_with_it(row: dry.DryAPIError) -> None:
    noted = copy.copy(row)
    noted.add_note("on line 7 of the list")
    assert copy.deepcopy(noted).__notes__ == ["on line 7 of the list"]
    assert not hasattr(row, "__notes__")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_p25_what_it_came_from_is_no_luggage(row: dry.DryAPIError) -> None:
    """Causes of the network hold sockets and locks, which can't travel."""
    with socket.socket() as cause_of_trouble:
        caught = copy.copy(row)
        caught.__cause__ = OSError(cause_of_trouble)
        caught.add_note("on line 7 of the list")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            check(caught, pickle.loads(pickle.dumps(caught, protocol)))  # noqa: S301  our own
        check(caught, copy.deepcopy(caught))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_p26_its_class_says_when_and_what_to_do_next(row: dry.DryAPIError) -> None:
    (summary, *_) = (type(row).__doc__ or "").split("\n\n")
    sentences = re.split(r"(?<=[a-zN`)][.]) ", " ".join(summary.split()))
    assert len(sentences) >= 2, f"{type(row).__name__} doesn't say when it comes and what to do next: {summary}"
    assert all(len(sentence) > 15 for sentence in sentences)
    assert summary != (type(row).__base__.__doc__ or ""), "it is its base's"


ODD: tuple[Any, ...] = (
    "two\nlines\r\nthree\x0bfour\x85five\u2028six\x1cseven",
    "\n\n",
    "",
    "x" * 100_000,
    b"bytes\n",
    None,
    5,
    {"a": "b\n"},
    ValueError("of\nanother"),
)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
@pytest.mark.parametrize("cls", sorted({type(row) for row in ROWS}, key=lambda cls: cls.__name__), ids=lambda cls: cls.__name__)
def test_p26_whatever_it_is_made_of_it_is_one_line(cls: Any, odd: Any) -> None:
    needed: dict[type, dict[str, Any]] = {
        dry.StatusError: {"status": odd, "message": odd, "request": odd},
        dry.SubmissionUnknownError: {"operation": odd, "cause": odd},
        dry.PollingFailedError: {"failures": odd, "cause": odd},
        dry.JobError: {"request_id": odd, "ticket": odd},
        dry.AlreadySubmittedError: {"label": odd, "state": odd},
    }
    keywords = {name: value for base, words in needed.items() if issubclass(cls, base) for name, value in words.items()}
    error = cls(odd, **keywords)
    assert len(str(error).splitlines()) <= 1
    assert len(repr(error).splitlines()) == 1
    if not isinstance(odd, ValueError):
        check(error, pickle.loads(pickle.dumps(error)))  # noqa: S301  our own


def test_p26_a_paths_blanks_stay_as_they_are() -> None:
    assert str(dry.SourceError("two  blanks.png is empty.")) == "two  blanks.png is empty."


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    # Not fork: a process that has threads is better not forked.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.processes
@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_p25_it_crosses_a_process_pool(row: dry.DryAPIError, pool: ProcessPoolExecutor) -> None:
    check(row, pool.submit(copy.copy, row).result(30))
    raised = pool.submit(exec, "raise error", {"error": row})
    with pytest.raises(type(row)) as caught:
        raised.result(30)
    check(row, caught.value)
    noted = copy.copy(row)
    noted.add_note("on line 7 of the list")
    assert pool.submit(copy.copy, noted).result(30).__notes__ == ["on line 7 of the list"]


def test_p25_the_standard_classes_catch_what_the_tree_says() -> None:
    for cls in (dry.ConfigurationError, dry.InputError, dry.SourceChangedError):
        assert issubclass(cls, ValueError)
    for cls in (dry.PoolTimeoutError, dry.RequestTimeoutError, dry.JobTimeoutError):
        assert issubclass(cls, TimeoutError)
