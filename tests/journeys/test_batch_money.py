"""What ends a batch early, and what it may spend."""

import asyncio
import math
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve

from dryapi_async import (
    BudgetExceededError,
    Client,
    ClientClosedError,
    ImgRmbg,
    InsufficientBalanceError,
    JobFailedError,
    Limits,
    Outcome,
    Rate,
    Txt2Audio,
    Txt2Embedding,
    is_hopeless,
)
from dryapi_async.simulator import Fault, Simulator

from ..conftest import PNG, make_client, now, seen
from .batches import Source, collect, errors, fox, foxes, workers

pytestmark = pytest.mark.anyio

DRY = Fault.status(402, {"message": "Insufficient balance."})


def price_requests(sim: Simulator) -> int:
    return sum(one.operation.endswith("/price-calculation") for one in sim.requests)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (DRY, "InsufficientBalanceError"),
        (Fault.unauthorized(), "AuthenticationError"),
        (Fault.status(403, {"message": "Your account is suspended."}), "AccountSuspendedError"),
        (Fault.rate_limited("daily"), "RateLimitError"),
    ],
)
async def test_p24_what_would_fail_for_all_ends_it(sim: Simulator, client: Client, fault: Fault, error: str) -> None:
    async with client.batch(Source(1_000), at_once=4, poll=1) as batch:
        for _ in range(10):
            assert (await anext(batch)).error is None
        sim.script("txt2img", fault, times=math.inf)
        rest = [outcome async for outcome in batch]
    assert set(errors(rest)) == {error}
    assert len(errors(rest)) <= 4
    assert batch.stopped_by in rest
    assert len([outcome for outcome in rest if outcome.error is None]) + 10 == sim.jobs_billed, "what was paid for is handed over"
    assert workers() == 0
    # A day's limit that one was told of ends others before they are sent.
    assert sim.jobs_billed < len(seen(sim, "txt2img")) <= sim.jobs_billed + len(errors(rest))


async def test_p24_what_fails_for_one_ends_nothing(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.status(422, {"message": "No."}), Fault.html(502), Fault.reset(), Fault.job_error(), Fault.status(410))
    outcomes = await collect(client.batch(foxes(30)))
    assert len(outcomes) == 30
    assert sorted(errors(outcomes)) == [
        "GoneError",
        "JobFailedError",
        "SubmissionUnknownError",
        "SubmissionUnknownError",
        "ValidationError",
    ]


@pytest.mark.parametrize("stop_on", [JobFailedError, (ValueError, JobFailedError), lambda outcome: outcome.index == 3])
async def test_p24_stop_on_ends_it(sim: Simulator, client: Client, stop_on: Any) -> None:
    sim.script("txt2img", Fault.delay(0), Fault.delay(0), Fault.delay(0), Fault.job_error())
    async with client.batch(Source(1_000), at_once=2, stop_on=stop_on, ordered=True) as batch:
        outcomes = [outcome async for outcome in batch]
    assert batch.stopped_by is not None
    assert (batch.stopped_by.index, errors(outcomes)) == (3, ["JobFailedError"])
    assert 4 <= len(outcomes) == sim.jobs_billed <= 6


async def test_with_stop_on_of_ones_own_the_rest_does_not_end_it(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", DRY, times=math.inf)
    for stop_on in ((), (JobFailedError,)):
        assert errors(await collect(client.batch(foxes(50), stop_on=stop_on))) == ["InsufficientBalanceError"] * 50
    assert len(errors(await collect(client.batch(foxes(50), stop_on=lambda outcome: is_hopeless(outcome) or outcome.index == 40)))) <= 16


async def test_a_stop_on_that_raises_is_told(sim: Simulator, client: Client) -> None:
    def broken(outcome: Outcome[Any]) -> bool:
        return {}["x"]  # type: ignore[no-any-return]

    async with client.batch(Source(1_000), at_once=3, stop_on=broken) as batch:
        assert (await anext(batch)).error is None
        with pytest.raises(KeyError):
            _ = [outcome async for outcome in batch]
    assert sim.jobs_billed <= 4


async def test_stop_drains(sim: Simulator, client: Client) -> None:
    async with client.batch(Source(1_000), at_once=5) as batch:
        await anext(batch)
        batch.stop()
        batch.stop()
        rest = [outcome async for outcome in batch]
    assert errors(rest) == []
    assert len(rest) + 1 == sim.jobs_billed <= 10
    assert (batch.stopped_by, batch.unfinished) == (None, ())


async def test_stop_ends_the_wait_for_a_source_that_is_silent(sim: Simulator, client: Client) -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()

    class Endless:
        def __aiter__(self) -> "Endless":
            return self

        async def __anext__(self) -> Any:
            return await queue.get()

    async with client.batch(Endless()) as batch:
        queue.put_nowait(fox(1))
        assert (await anext(batch)).error is None
        queue.put_nowait(fox(2))
        asyncio.get_running_loop().call_later(1, batch.stop)
        assert [outcome.error async for outcome in batch] == [None]
        assert workers() == 0
    assert now() < 10


async def test_a_source_may_stop_its_own_batch(sim: Simulator, client: Client) -> None:
    async def source() -> Any:
        for seed in range(100):
            if seed == 5:
                batch.stop()
            yield fox(seed)

    async with client.batch(source()) as batch:
        outcomes = [outcome async for outcome in batch]
    assert (len(outcomes), errors(outcomes), sim.jobs_billed) == (5, [], 5)


async def test_stopped_while_a_price_is_asked_that_one_is_not_sent(sim: Simulator, client: Client) -> None:
    sim.script("txt2img/price-calculation", Fault.delay(10))
    async with client.batch(foxes(5), budget=1) as batch:
        asyncio.get_running_loop().call_later(5, batch.stop)
        assert [outcome async for outcome in batch] == []
    assert (batch.progress.seconds_left, sim.jobs_billed) == (0.0, 0)


async def test_stopped_before_it_began_it_sends_nothing(sim: Simulator, client: Client) -> None:
    async with client.batch(foxes(5)) as batch:
        batch.stop()
        assert [outcome async for outcome in batch] == []
    assert not sim.requests


async def test_p24_a_budget_ends_it_before_it_is_passed(sim: Simulator, client: Client) -> None:
    price = await client.call(fox(0)).price()
    before = sim.balance
    async with client.batch(foxes(1_000), at_once=6, budget=price * 20 + price / 2) as batch:
        outcomes = [outcome async for outcome in batch]
    assert [outcome.error for outcome in outcomes[:20]] == [None] * 20
    refused = outcomes[20]
    assert isinstance(refused.error, BudgetExceededError)
    assert (len(outcomes), refused.job, refused.price, batch.stopped_by) == (21, None, price, refused)
    assert batch.spent == before - sim.balance == price * 20
    assert (sim.jobs_billed, price_requests(sim)) == (20, 2)
    assert (batch.progress.finished, batch.progress.failed, batch.progress.submitted) == (20, 1, 20)


async def test_a_budget_that_is_just_enough_is_enough(sim: Simulator, client: Client) -> None:
    price = await client.call(fox(0)).price()
    for ordered in (False, True):
        assert errors(await collect(client.batch(foxes(7), budget=7 * price, ordered=ordered))) == []
    assert errors(await collect(client.batch(foxes(7), budget=0))) == ["BudgetExceededError"]
    assert errors(await collect(client.batch(foxes(7), budget=Decimal("inf")))) == []


async def test_prices_are_asked_once_for_each_shape(sim: Simulator, client: Client) -> None:
    shapes: list[Any] = [
        *[evolve(fox(seed), prompt=f"fox {seed}", webhook_url="https://example.org/hook") for seed in range(20)],
        *[evolve(fox(seed), steps=8) for seed in range(20)],
        *[evolve(fox(seed), width=512) for seed in range(20)],
        *[
            Txt2Audio(text="a" * (5 + seed % 2), model="Kokoro", lang="en-us", speed=1, format="mp3", sample_rate=24000, voice="af_sky")
            for seed in range(20)
        ],
    ]
    async with client.batch(shapes, budget=100) as batch:
        outcomes = [outcome async for outcome in batch]
    assert errors(outcomes) == []
    assert price_requests(sim) == 5
    assert batch.spent == sum(outcome.price or 0 for outcome in outcomes) == Decimal(100_000) - sim.balance


async def test_what_only_the_service_measures_is_asked_each_time(sim: Simulator, client: Client) -> None:
    measured: list[Any] = [ImgRmbg(image=PNG, model="Ben2")] * 3 + [Txt2Embedding(input="a fox", model="Bge_M3_FP16")] * 2
    async with client.batch(measured, budget=100) as batch:
        assert errors([outcome async for outcome in batch]) == []
    assert price_requests(sim) == 5
    assert batch.spent == Decimal(100_000) - sim.balance


async def test_what_is_refused_costs_nothing_what_is_unknown_counts(sim: Simulator, client: Client) -> None:
    price = await client.call(fox(0)).price()
    refused, unknown, failed = Fault.status(422, {"message": "No."}), Fault.reset(), Fault.job_error()
    sim.script("txt2img", refused, unknown, failed)
    async with client.batch(foxes(5), at_once=1, budget=4 * price) as batch:
        outcomes = [outcome async for outcome in batch]
    assert errors(outcomes) == ["ValidationError", "SubmissionUnknownError", "JobFailedError"]
    assert batch.spent == 4 * price == Decimal(100_000) - sim.balance


async def test_without_a_price_nothing_is_sent(sim: Simulator, client: Client) -> None:
    sim.script("txt2img/price-calculation", Fault.status(422, {"message": "No."}), Fault.status(404))
    outcomes = await collect(client.batch(foxes(6), at_once=1, budget=1))
    assert errors(outcomes) == ["ValidationError", "NotFoundError"]
    assert [outcome.price is None for outcome in outcomes] == [True, True, False, False, False, False]
    assert (sim.jobs_billed, price_requests(sim)) == (4, 3)


async def test_without_a_budget_no_price_is_asked(sim: Simulator, client: Client) -> None:
    async with client.batch(foxes(3)) as batch:
        outcomes = [outcome async for outcome in batch]
    assert (batch.spent, [outcome.price for outcome in outcomes], price_requests(sim)) == (None, [None] * 3, 0)


async def test_closing_the_client_in_the_middle_ends_it(sim: Simulator, client: Client) -> None:
    async with client.batch(Source(1_000), at_once=8) as batch:
        for _ in range(5):
            await anext(batch)
        await client.aclose()
        rest = [outcome async for outcome in batch]
    assert set(errors(rest)) == {"ClientClosedError"}
    assert len(rest) <= 16
    told = {outcome.job.id for outcome in rest if outcome.job} | {job.id for job in client.orphans}
    assert len(told) + 5 == sim.jobs_billed
    with pytest.raises(ClientClosedError):
        await client.batch([fox(1)]).__aenter__()


async def test_a_day_that_is_over_is_told_once_for_those_on_their_way(sim: Simulator) -> None:
    async with make_client(sim, limits=Limits(lanes={"txt2img": Rate(5, 86_400.0)})) as client, client.batch(foxes(1_000)) as batch:
        outcomes = [outcome async for outcome in batch]
    assert (sim.jobs_billed, set(errors(outcomes))) == (5, {"RateLimitError"})
    assert len(outcomes) <= 5 + 16


def test_the_error_of_no_balance_is_hopeless() -> None:
    error = InsufficientBalanceError("top up", status=402)
    outcome: Outcome[Any] = Outcome(
        index=0, key="0", operation=None, job=None, result=None, error=error, path=None, price=None, seconds=0.0
    )
    assert is_hopeless(outcome)
    assert not is_hopeless(evolve(outcome, error=None))
    assert is_hopeless(evolve(outcome, error=OSError(28, "No space left on device")))
    assert not is_hopeless(evolve(outcome, error=FileNotFoundError(2, "No such file")))
