"""What faults a script takes, and what it refuses."""

import math
from typing import Any

import pytest

from dryapi_async.simulator import Fault, Simulator

from .conftest import Talk

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("odd", [-1, 0.5, 1.5, math.nan, -math.inf, "2", None, True])
async def test_times_that_cant_be_counted_are_refused(sim: Simulator, odd: Any) -> None:
    with pytest.raises(ValueError, match=r"times must be a whole number from 0, or math\.inf"):
        sim.script("balance", Fault.status(500), times=odd)
    assert not sim.scripted


@pytest.mark.parametrize("odd", [-0.1, 1.1, 30, math.nan, math.inf, "0.5", True])
async def test_what_is_no_chance_is_refused(sim: Simulator, odd: Any) -> None:
    with pytest.raises(ValueError, match="probability must be a number from 0 to 1"):
        sim.script("balance", Fault.status(500), probability=odd)
    assert not sim.scripted


def test_a_fault_says_what_it_is() -> None:
    faults: list[Any] = [Fault.reset("headers"), Fault.status(503, early=True), Fault.delay(1), Fault.job_error(), Fault.trickle(5)]
    assert [str(fault) for fault in faults] == ["reset headers", "status 503 early", "delay", "job_error", "trickle"]


@pytest.mark.parametrize("match", ["txt2imgg", "img_rmbg", "request-status/", "", None])
async def test_a_misspelt_operation_is_refused(sim: Simulator, match: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown operation .*known are '\*', 'aud2txt'.*'storage'"):
        sim.script(match, Fault.reset())
    assert sim.scripted == []


@pytest.mark.parametrize(("given", "meant"), [("txt2imgg", "txt2img"), ("img_rmbg", "img-rmbg"), ("request_status", "request-status")])
async def test_the_nearest_operation_is_suggested(sim: Simulator, given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{meant}'\\?"):
        sim.script(given, Fault.reset())
    with pytest.raises(ValueError, match="unknown operation"):
        sim.hold(given)


@pytest.mark.parametrize(
    "match", ["*", "storage", "push", "broadcasting/auth", "request-status", "balance", "models", "img-rmbg/price-calculation", callable]
)
async def test_what_there_is_may_be_scripted(sim: Simulator, match: Any) -> None:
    scripted = sim.script(match, Fault.reset())
    assert sim.scripted == [scripted]


@pytest.mark.parametrize("make", [Fault.reset, Fault.close, Fault.hang, Fault.truncate, Fault.garbage])
def test_a_misspelt_phase_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="unknown phase 'before-body': did you mean 'before_body'\\? known are 'after_body', "):
        make("before-body")


def test_a_misspelt_rate_limit_is_refused() -> None:
    week: Any = "week"
    with pytest.raises(ValueError, match="unknown kind of rate limit 'week': known are 'daily', 'minute'"):
        Fault.rate_limited(week)


async def test_what_no_request_met_is_counted(sim: Simulator, talk: Talk) -> None:
    first, second = sim.script("txt2img", Fault.status(503), Fault.status(422), times=2), sim.script("models", Fault.status(503))
    every, chance = (sim.script("balance", Fault.status(503), **how) for how in ({"times": math.inf}, {"probability": 1.0}))
    assert [one.unmet for one in (first, second, every, chance)] == [4, 1, 1, 1]
    await talk.post("txt2img", {})
    await talk.get("balance")
    assert [one.unmet for one in (first, second, every, chance)] == [3, 1, 0, 1]
    every.remove()
    await talk.get("balance")
    assert every.unmet == 0
    assert [one.unmet for one in (first, second, every, chance)] == [3, 1, 0, 0]
    second.remove()
    assert second.unmet == 0
