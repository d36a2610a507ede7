"""P34: every attempt can be seen by a hook that can't break a call."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError

from dryapi_async import ConfigurationError, Retry, SubmissionUnknownError
from dryapi_async.events import (
    Attempt,
    BytesReceived,
    BytesSent,
    Event,
    Polled,
    RateLimited,
    StateChanged,
    StepEnded,
    StepStarted,
    SubmissionUnknown,
    tell_each,
)
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, begin, edit, files_in, give_up, make_client, seen, settle, until

pytestmark = pytest.mark.anyio


def short(event: Event) -> tuple[Any, ...]:
    match event:
        case Attempt():
            return ("attempt", event.number, event.status)
        case RateLimited():
            return ("limited", event.lane)
        case Polled():
            return ("polled", event.state)
        case StateChanged():
            return ("state", event.state)
        case StepStarted() | StepEnded():
            return ("started" if isinstance(event, StepStarted) else "ended", event.step)
        case BytesSent() | BytesReceived() | SubmissionUnknown():
            return (type(event).__name__,)


async def test_p34_429_reset_200_is_exactly_that_list(sim: Simulator) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=events.append) as client:
        sim.script("balance", Fault.rate_limited(retry_after=3), Fault.reset())
        await client.balance()
    assert [short(one) for one in events] == [
        ("started", "call"), ("attempt", 1, 429), ("limited", "free"), ("attempt", 2, None), ("attempt", 3, 200), ("ended", "call")
    ]  # fmt: skip
    began, first, limited, second, third, ended = events
    assert isinstance(first, Attempt)
    assert isinstance(third, Attempt)
    assert (first.request, first.error, first.host) == ("GET balance", None, sim.url.removeprefix("http://"))
    assert (second, third.bytes_sent) == (evolve(second, bytes_received=0), 0)
    assert third.bytes_received > 10
    assert isinstance(began, StepStarted)
    assert isinstance(ended, StepEnded)
    assert (began.number, began.operation, began.request_id) == (ended.number, "balance", None)
    assert ended.seconds >= 3
    assert isinstance(limited, RateLimited)
    assert limited.seconds >= 3
    assert isinstance(second, Attempt)
    assert second.error


async def test_p34_a_whole_journey_is_told(sim: Simulator, tmp_path: Path) -> None:
    events: list[Event] = []
    content = PNG + bytes(700_000)
    async with make_client(sim, on_event=events.append) as client:
        sim.script("request-status", Fault.reset())
        await edit(client, image=content).save(tmp_path)
    sent = [one for one in events if isinstance(one, BytesSent)]
    total = seen(sim, "img2img")[0].body_size
    assert [one.bytes_sent for one in sent] == sorted(one.bytes_sent for one in sent)
    assert (sent[-1].bytes_sent, sent[-1].bytes_total, sent[-1].request) == (total, total, "POST img2img")
    assert len(sent) >= 4
    polled = [one.state for one in events if isinstance(one, Polled)]
    assert polled[0] is None
    assert polled[-1] == "done"
    states = [one.state for one in events if isinstance(one, StateChanged)]
    assert states[-1] == "done"
    assert len(states) == len({*[(one.state, one.progress) for one in events if isinstance(one, StateChanged)]})
    received = [one for one in events if isinstance(one, BytesReceived)]
    (name,) = files_in(tmp_path)
    assert (received[-1].bytes_received, received[-1].bytes_total) == ((tmp_path / name).stat().st_size,) * 2
    assert {type(one) for one in events} == {StepStarted, StepEnded, Attempt, BytesSent, Polled, StateChanged, BytesReceived}
    assert all(not hasattr(one, "__dict__") for one in events)
    with pytest.raises(FrozenInstanceError):
        sent[0].bytes_sent = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  that it can't be is the test
    attempts = [one for one in events if isinstance(one, Attempt)]
    assert [one.bytes_sent for one in attempts if one.request == "POST img2img"] == [total]
    (file,) = (one for one in attempts if one.request == "GET result")
    assert (file.status, file.bytes_received, file.bytes_sent) == (200, (tmp_path / name).stat().st_size, 0)


def steps_in(events: list[Event]) -> list[tuple[Any, ...]]:
    """Give steps in order: > begins, < ends, what it raised."""
    found: list[tuple[Any, ...]] = []
    for one in events:
        if isinstance(one, StepStarted):
            found.append((">", one.step, one.operation))
        elif isinstance(one, StepEnded):
            found.append(("<", one.step, one.operation, one.error))
    return found


async def test_p34_steps_are_told_from_their_beginning_to_their_end(sim: Simulator, tmp_path: Path) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=events.append) as client:
        await client.call(FOX).save(tmp_path / "fox.png")
        assert steps_in(events) == [
            (">", "call", "txt2img"),
            (">", "submit", "txt2img"),
            ("<", "submit", "txt2img", None),
            (">", "wait", "txt2img"),
            ("<", "wait", "txt2img", None),
            (">", "download", ""),
            ("<", "download", "", None),
            ("<", "call", "txt2img", None),
        ]
        ended = {one.step: one for one in events if isinstance(one, StepEnded)}
        (job,) = sim.jobs
        assert {step: one.request_id for step, one in ended.items()} == {"submit": job, "wait": job, "download": job, "call": None}
        assert ended["wait"].seconds == pytest.approx(2, abs=1.5)
        events.clear()
        job = await client.call(FOX)
        async with aclosing(job.updates()) as updates:
            await anext(updates)
        image = await job.result()
        async with aclosing(image.stream()) as pieces:
            await anext(pieces)
    assert steps_in(events)[4:] == [
        (">", "wait", "txt2img"),
        ("<", "wait", "txt2img", "GeneratorExit"),
        (">", "wait", "txt2img"),
        ("<", "wait", "txt2img", None),
        (">", "download", ""),
        ("<", "download", "", "GeneratorExit"),
    ]
    numbers = [one.number for one in events if isinstance(one, StepStarted)]
    assert len(numbers) == len(set(numbers))


async def test_p34_each_attempt_at_a_file_is_told(sim: Simulator, tmp_path: Path) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=events.append) as client:
        sim.script("storage", Fault.status(503), Fault.truncate(), Fault.reset())
        path = await client.call(FOX).save(tmp_path / "fox.png")
        tries = [one for one in events if isinstance(one, Attempt) and one.request == "GET result"]
        assert [(one.number, one.status, one.error is None) for one in tries] == [
            (1, 503, True), (2, None, False), (3, None, False), (4, 206, True)
        ]  # fmt: skip
        assert tries[1].bytes_received > 0
        assert tries[1].bytes_received + tries[3].bytes_received == path.stat().st_size
        assert len({(one.host, one.request_id) for one in tries}) == 1


@pytest.mark.parametrize("phase", ["after_body", "payload"])
async def test_p34_an_attempt_at_a_file_that_is_cut_off_is_told(
    sim: Simulator, tmp_path: Path, phase: Literal["after_body", "payload"]
) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=events.append) as client:
        sim.script("storage", Fault.hang(phase))
        task = asyncio.create_task(client.call(FOX).save(tmp_path / "fox.png"))
        await until(lambda: any(isinstance(one, BytesReceived) for one in events) if phase == "payload" else sim.storage_requests)
        task.cancel()
        await asyncio.wait([task])
        (cut,) = (one for one in events if isinstance(one, Attempt) and one.request == "GET result")
        assert (cut.status, cut.error, cut.bytes_received > 0) == (None, "CancelledError", phase == "payload")
        assert steps_in(events)[-2:] == [("<", "download", "", "CancelledError"), ("<", "call", "txt2img", "CancelledError")]


async def test_p34_an_attempt_that_is_cut_off_is_told(sim: Simulator) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=events.append) as client:
        sim.script("balance", Fault.hang())
        task = asyncio.ensure_future(client.balance())
        await until(lambda: seen(sim, "balance"))
        task.cancel()
        await asyncio.wait([task])
        await settle()
    (cut,) = (one for one in events if isinstance(one, Attempt))
    assert (cut.request, cut.status, cut.error) == ("GET balance", None, "CancelledError")


async def test_p34_a_submit_whose_fate_is_unknown_is_told_once(sim: Simulator) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=events.append) as client:
        sim.script("txt2img", Fault.rate_limited(retry_after=1), Fault.reset())
        call = client.call(FOX)
        for _ in range(2):
            with pytest.raises(SubmissionUnknownError):
                await call
    assert [one for one in events if isinstance(one, SubmissionUnknown)] == [SubmissionUnknown(request="POST txt2img", attempts=2)]
    assert steps_in(events)[:4] == [
        (">", "call", "txt2img"),
        (">", "submit", "txt2img"),
        ("<", "submit", "txt2img", "SubmissionUnknownError"),
        ("<", "call", "txt2img", "SubmissionUnknownError"),
    ]


async def test_p34_a_lost_call_is_lost_after_the_client_is_closed_too(sim: Simulator) -> None:
    """What tells of the steps asks for the client's engine, which a closed client has no more."""
    async with make_client(sim, on_event=lambda _: None) as client:
        call = client.call(FOX)
        sim.script("txt2img", Fault.hang())
        task = await begin(sim, call)
        await give_up(task)
        await client.aclose()
        with pytest.raises(SubmissionUnknownError):
            await call


async def test_several_hooks_hear_the_same_whatever_one_raises(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    first: list[Event] = []
    last: list[Event] = []
    async with make_client(sim, on_event=tell_each(first.append, _raise, last.append)) as client:
        await client.balance()
    assert first == last
    assert len(first) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "on_event raised on StepStarted", "on_event raised on Attempt", "on_event raised on StepEnded"
    ]  # fmt: skip
    with pytest.raises(ExceptionGroup) as caught:
        tell_each(_raise, _raise)(first[0])
    assert [type(one) for one in caught.value.exceptions] == [LookupError] * 2


async def test_a_hook_that_raises_a_cancellation_keeps_no_other_from_hearing(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def cancel(_: Event) -> None:
        raise asyncio.CancelledError

    async with make_client(sim, on_event=tell_each(cancel, heard.append)) as client:
        await client.balance()
    assert len(heard) == 3
    assert [record.getMessage() for record in caplog.records] == [f"on_event raised on {type(one).__name__}" for one in heard]
    with pytest.raises(RuntimeError, match="a hook raised CancelledError") as caught:
        tell_each(cancel)(heard[0])
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    with pytest.raises(ExceptionGroup) as several:
        tell_each(_raise, cancel)(heard[0])
    assert [type(one) for one in several.value.exceptions] == [LookupError, RuntimeError]


def test_hooks_that_nobody_would_wait_for_are_refused() -> None:
    async def wait(_: Event) -> None:
        """Be never awaited."""

    for wrong in (wait, "print", None):
        with pytest.raises(ConfigurationError, match="plain functions"):
            tell_each(print, wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  refused


async def test_a_read_runs_in_nobodys_context(sim: Simulator) -> None:
    """Else whatever a caller keeps in its context, a trace or a user's name, would be taken for that of other callers' reads."""
    seen_by: set[str] = set()
    owner: ContextVar[str] = ContextVar("owner", default="nobody")

    def look(event: Event) -> None:
        if isinstance(event, Polled):
            seen_by.add(owner.get())

    async def draw(name: str) -> None:
        owner.set(name)
        await client.call(FOX).result()

    async with make_client(sim, on_event=look) as client:
        await asyncio.gather(draw("one"), draw("other"))
    assert seen_by == {"nobody"}


def _raise(event: Event) -> None:
    raise LookupError(f"a bug in the hook at {type(event).__name__}")


@pytest.mark.parametrize("hook", [_raise, lambda: None], ids=["raises", "takes nothing"])
async def test_p34_an_exception_in_the_hook_breaks_nothing(
    sim: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, hook: Callable[[Event], object]
) -> None:
    async with make_client(sim, on_event=hook, retry=Retry(polls=2)) as client:
        sim.script("img2img", Fault.rate_limited(retry_after=1))
        sim.script("request-status", Fault.reset(), Fault.rate_limited(retry_after=1))
        sim.script("storage", Fault.truncate())
        path = await edit(client, image=PNG).save(tmp_path / "fox.png")
        await client.call(FOX)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert sim.jobs_billed == 2
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {record.getMessage().rpartition(" ")[2] for record in errors} == {
        "StepStarted", "StepEnded", "Attempt", "RateLimited", "Polled", "StateChanged", "BytesSent", "BytesReceived"
    }  # fmt: skip
    assert all(record.name == "dryapi_async" and record.exc_info for record in errors)


async def test_p34_the_hook_may_be_missing(sim: Simulator) -> None:
    async with make_client(sim, on_event=None) as client:
        assert await client.call(FOX)
