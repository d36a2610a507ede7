"""P34: every attempt can be seen by a hook that can't break a call."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import Retry
from dryapi_async.events import Attempt, BytesReceived, BytesSent, Event, Polled, RateLimited, StateChanged
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, edit, files_in, make_client, seen

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
        case BytesSent() | BytesReceived():
            return (type(event).__name__,)


async def test_p34_429_reset_200_is_exactly_that_list(sim: Simulator) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=events.append) as client:
        sim.script("balance", Fault.rate_limited(retry_after=3), Fault.reset())
        await client.balance()
    assert [short(one) for one in events] == [("attempt", 1, 429), ("limited", "free"), ("attempt", 2, None), ("attempt", 3, 200)]
    first, limited, second, _ = events
    assert isinstance(first, Attempt)
    assert (first.request, first.error) == ("GET balance", None)
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
    assert {type(one) for one in events} == {Attempt, BytesSent, Polled, StateChanged, BytesReceived}


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
        "Attempt", "RateLimited", "Polled", "StateChanged", "BytesSent", "BytesReceived"
    }  # fmt: skip
    assert all(record.name == "dryapi_async" and record.exc_info for record in errors)


async def test_p34_the_hook_may_be_missing(sim: Simulator) -> None:
    async with make_client(sim, on_event=None) as client:
        assert await client.call(FOX)
