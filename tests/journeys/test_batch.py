"""P24: a batch is bounded and streaming, its failures are apart, and each outcome comes once."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dryapi_async import (
    Client,
    ConfigurationError,
    EnhancedPrompt,
    Image,
    InputError,
    Job,
    JobFailedError,
    JobTimeoutError,
    Limits,
    Outcome,
    PromptImage,
    Txt2Img,
    ValidationError,
)
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client, make_sim, now, seen, settle
from .batches import Every, Source, collect, errors, fox, foxes, workers

pytestmark = pytest.mark.anyio


async def test_p24_thousands_from_a_generator_one_in_a_hundred_failing(sim: Simulator) -> None:
    number, at_once = 2_000, 64
    sim.script(Every(200), Fault.status(422, {"message": "No."}), times=math.inf)
    sim.script(Every(200, 100), Fault.job_error(), times=math.inf)
    source, results, failures, most_workers, most_tasks, furthest = Source(number), 0, 0, 0, 0, 0
    async with make_client(sim, limits=Limits.none(), max_in_flight=at_once) as client:
        before = len(asyncio.all_tasks())
        async with client.batch(source, at_once=at_once, poll=1) as batch:
            indexes: set[int] = set()
            async for outcome in batch:
                indexes.add(outcome.index)
                furthest = max(furthest, source.taken - len(indexes))
                if len(indexes) % 50 == 0:
                    most_workers, most_tasks = max(most_workers, workers()), max(most_tasks, len(asyncio.all_tasks()))
                results += outcome.error is None and isinstance(outcome.result, Image)
                failures += isinstance(outcome.error, ValidationError | JobFailedError)
        await settle()
        assert workers() == 0
    assert (results, failures, len(indexes)) == (number - 20, 20, number)
    assert (most_workers, furthest) == (at_once, at_once - 1)
    # A worker and a submit each, and the reads; the other side's connections live in this loop, too.
    assert most_tasks - before < 3 * at_once + 32 + sim.connections.peak
    assert (batch.progress.finished, batch.progress.failed, batch.progress.submitted) == (number - 20, 20, number - 10)
    assert (batch.unfinished, source.closed, sim.jobs_billed) == ((), True, number - 10)


async def test_p24_a_break_leaves_nothing_behind(sim: Simulator, client: Client) -> None:
    await client.balance()
    await settle()
    source, before = Source(1_000), len(asyncio.all_tasks())
    async with client.batch(source, at_once=20) as batch:
        async for outcome in batch:
            assert outcome.error is None
            break
    left = now()
    assert (workers(), source.closed, client._engine().watcher.tickets) == (0, True, ())
    await settle()
    assert client._engine()._work == {}
    assert len(asyncio.all_tasks()) - before <= sim.connections.peak
    billed = sim.jobs_billed
    await asyncio.sleep(100)
    assert (now() - left, sim.jobs_billed) == (100, billed)
    assert {job.id for job in batch.unfinished} | {job.id for job in client.orphans} | {outcome.job.id if outcome.job else ""} == set(
        sim.jobs
    )
    assert isinstance(await batch.unfinished[0].result(), Image)


async def test_outcomes_come_as_they_end_or_in_order(sim: Simulator, client: Client) -> None:
    seconds = [9.0, 3.0, 6.0, 1.0]

    async def source() -> AsyncIterator[Txt2Img]:
        for number, one in enumerate(seconds):
            sim.board.duration = one
            yield fox(number)
            await asyncio.sleep(0.1)

    assert [outcome.index for outcome in await collect(client.batch(source(), poll=0.25))] == [3, 1, 2, 0]
    assert [outcome.index for outcome in await collect(client.batch(source(), poll=0.25, ordered=True))] == [0, 1, 2, 3]


async def test_in_order_an_early_slow_one_holds_back_no_more_than_at_once(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img", times=1)
    source = Source(100)
    async with client.batch(source, at_once=5, ordered=True, poll=1) as batch:
        first = asyncio.ensure_future(anext(batch))
        await asyncio.sleep(60)
        assert (source.taken, batch.progress.finished, batch.progress.waiting, first.done()) == (5, 4, 1, False)
        sim.release("txt2img")
        assert (await first).index == 0
        assert [outcome.index async for outcome in batch] == list(range(1, 100))


@pytest.mark.parametrize("ordered", [False, True])
async def test_p24_a_slow_consumer_holds_the_source_back(sim: Simulator, client: Client, ordered: bool) -> None:
    source, handed = Source(60), 0
    async with client.batch(source, at_once=7, ordered=ordered) as batch:
        async for _ in batch:
            handed += 1
            await asyncio.sleep(50)
            assert source.taken == min(handed + 7, 60)
            assert len(batch.unfinished) == min(7, 60 - handed)
    assert (handed, sim.jobs_billed) == (60, 60)


async def test_a_source_that_is_slow_holds_nothing_back(sim: Simulator, client: Client) -> None:
    async with client.batch(Source(3, pause=20), poll=0.5) as batch:
        ends = [now() async for _ in batch]
    assert ends == pytest.approx([22, 42, 62], abs=1)


async def test_workers_are_begun_as_they_are_needed(sim: Simulator, client: Client) -> None:
    async with client.batch([fox(1), fox(2)], at_once=10_000) as batch:
        await anext(batch)
        assert workers() <= 3
        _ = [outcome async for outcome in batch]


def pairs() -> Iterator[tuple[str, Txt2Img]]:
    yield "day", fox(1)
    yield "night", fox(2)


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ([fox(1), fox(2)], ["0", "1"]),
        ((fox(1),), ["0"]),
        ({"day": fox(1), "night": fox(2)}.items(), ["day", "night"]),
        (pairs(), ["day", "night"]),
        ([fox(1), ("night", fox(2))], ["0", "night"]),
        ([], []),
        (iter(()), []),
        (Source(0), []),
    ],
)
async def test_any_iterable_is_a_source(sim: Simulator, client: Client, source: Any, keys: list[str]) -> None:
    outcomes = await collect(client.batch(source, ordered=True))
    assert [(outcome.index, outcome.key, outcome.error) for outcome in outcomes] == [(index, key, None) for index, key in enumerate(keys)]
    assert len(seen(sim, "txt2img")) == len(keys)


async def test_a_list_is_used_again_a_generator_is_closed(sim: Simulator, client: Client) -> None:
    plain, generator = [fox(1), fox(2)], foxes(100)
    for source in (plain, plain, generator):
        async with client.batch(source, at_once=2) as batch:
            await anext(batch)
    assert len(plain) == 2
    assert next(generator, None) is None


async def test_a_key_is_the_label_in_the_journal(sim: Simulator, tmp_path: Any) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        assert errors(await collect(client.batch([("the fox", fox(1)), fox(2), ("n\udcffight", fox(3)), ("", fox(4))]))) == []
        assert sorted(row.label for row in await client.journal.list()) == ["", "1", "n?ight", "the fox"]


async def test_jobs_that_are_paid_for_are_only_waited_for(sim: Simulator, client: Client) -> None:
    made = await client.call(FOX)
    found = client.job((await client.call(fox(2))).ticket)
    submits = len(seen(sim, "txt2img"))
    items: list[Any] = [made, ("found", found), fox(3)]
    outcomes: list[Outcome[Any]] = await collect(client.batch(items, ordered=True, budget=1))
    assert [(outcome.key, outcome.job, outcome.operation) for outcome in outcomes[:2]] == [("0", made, None), ("found", found, None)]
    assert all(isinstance(outcome.result, Image) for outcome in outcomes)
    assert [outcome.price is None for outcome in outcomes] == [True, True, False]
    assert len(seen(sim, "txt2img")) == submits + 1


async def test_prompt_tools_have_no_job(sim: Simulator, client: Client, tmp_path: Any) -> None:
    tools = [PromptImage(prompt=f"fox {number}") for number in range(5)]
    async with client.batch(tools, save=tmp_path / "{index}{suffix}", budget=5) as batch:
        outcomes = [outcome async for outcome in batch]
    assert all(isinstance(outcome.result, EnhancedPrompt) and outcome.job is None and outcome.path is None for outcome in outcomes)
    assert (batch.progress.submitted, batch.progress.finished, len(seen(sim, "prompt/image"))) == (5, 5, 5)
    assert batch.spent == sum(outcome.price or 0 for outcome in outcomes) > 0


@pytest.mark.parametrize("item", [None, 7, "a fox", ("key", 7), (7, FOX), ("key",), ("a", FOX, 1), [FOX], Txt2Img, {"prompt": "a"}])
async def test_what_is_no_request_is_one_outcome(sim: Simulator, client: Client, item: Any) -> None:
    outcomes = await collect(client.batch([fox(1), item, fox(2)], ordered=True))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InputError, type(None)]
    assert (outcomes[1].operation, outcomes[1].job, sim.jobs_billed) == (None, None, 2)


async def test_bad_items_alone_neither_flood_nor_hang(client: Client) -> None:
    source: Any = iter(range(5_000))
    async with client.batch(source, at_once=3) as batch:
        await anext(batch)
        await settle()
        assert next(source) <= 5
        assert len([outcome async for outcome in batch]) == 5_000 - 2
    assert (batch.progress.failed, batch.progress.rate) == (4_999, 0.0)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"at_once": 0}, ConfigurationError),
        ({"at_once": 2.5}, ConfigurationError),
        ({"at_once": True}, ConfigurationError),
        ({"timeout": -1}, ConfigurationError),
        ({"timeout": "9"}, ConfigurationError),
        ({"budget": 5.0}, ConfigurationError),
        ({"budget": -1}, ConfigurationError),
        ({"stop_on": 7}, ConfigurationError),
        ({"stop_on": (ValueError, 7)}, ConfigurationError),
        ({"save": 7}, ConfigurationError),
        ({"save": "out/fox.png"}, InputError),
        ({"save": "out/{seed}{suffix}"}, InputError),
        ({"save": "out/{name}"}, InputError),
        ({"save": ""}, InputError),
        ({"operations": FOX}, InputError),
        ({"operations": "foxes"}, InputError),
        ({"operations": {"a": FOX}}, InputError),
        ({"operations": None}, InputError),
    ],
)
async def test_odd_options_are_refused_at_once(sim: Simulator, client: Client, given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        client.batch(**{"operations": [FOX], **given})
    assert not sim.requests


async def test_it_is_entered_once_and_before_it_is_iterated(sim: Simulator, client: Client) -> None:
    batch = client.batch([FOX])
    assert (batch.progress.total, batch.unfinished, batch.spent) == (1, (), None)
    with pytest.raises(ConfigurationError, match="async with"):
        await anext(batch)
    async with batch:
        assert not sim.requests, "nothing is sent before it is iterated"
        with pytest.raises(ConfigurationError, match="once"):
            await batch.__aenter__()
        assert (await anext(batch)).error is None
        with pytest.raises(StopAsyncIteration):
            await anext(batch)
    with pytest.raises(StopAsyncIteration):
        await anext(batch)
    with pytest.raises(ConfigurationError, match="webhook secret"):
        await client.batch([FOX], poll=False).__aenter__()


async def test_the_time_is_for_each_operation(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    outcomes = await collect(client.batch(foxes(6), at_once=2, timeout=30))
    assert now() == pytest.approx(90, abs=1)
    assert errors(outcomes) == ["JobTimeoutError"] * 6
    assert all(isinstance(outcome.job, Job) and isinstance(outcome.error, JobTimeoutError) for outcome in outcomes)
    sim.release("txt2img")
    jobs = [outcome.job for outcome in outcomes if outcome.job]
    assert errors(await collect(client.batch(jobs, timeout=None))) == []


async def test_two_batches_on_one_client(sim: Simulator, client: Client) -> None:
    one, other = await asyncio.gather(collect(client.batch(foxes(30), at_once=4)), collect(client.batch(foxes(20), ordered=True)))
    assert (len(one), [outcome.index for outcome in other]) == (30, list(range(20)))
    assert len({outcome.job.id for outcome in (*one, *other) if outcome.job}) == sim.jobs_billed == 50


async def test_two_tasks_share_one_batch(sim: Simulator, client: Client) -> None:
    async with client.batch(foxes(40), at_once=5) as batch:

        async def take() -> list[int]:
            return [(await asyncio.sleep(1), outcome.index)[1] async for outcome in batch]

        shares = await asyncio.gather(take(), take())
    assert sorted(shares[0] + shares[1]) == list(range(40))
    assert all(shares)


async def test_progress_in_numbers(sim: Simulator, client: Client) -> None:
    sim.board.duration = 10
    sim.script("txt2img", Fault.status(422, {"message": "No."}), Fault.reset())
    async with client.batch([fox(seed) for seed in range(40)], at_once=4, poll=1) as batch:
        assert (batch.progress.total, batch.progress.rate, batch.progress.seconds_left) == (40, 0.0, None)
        for _ in range(2):
            await anext(batch)
        assert (batch.progress.failed, batch.progress.unknown, batch.progress.finished) == (2, 1, 0)
        for _ in range(18):
            await anext(batch)
        progress = batch.progress
        assert progress.failed == 2
        assert progress.submitted - progress.waiting == progress.finished + 1
        assert 18 <= progress.finished <= 22
        assert progress.rate == pytest.approx(20 / now(), rel=0.1)
        assert progress.seconds_left == pytest.approx(now(), rel=0.2)
        _ = [outcome async for outcome in batch]
    assert (batch.progress.finished, batch.progress.waiting, batch.progress.seconds_left) == (38, 0, 0.0)


async def test_progress_of_a_generator_has_no_end(client: Client) -> None:
    async with client.batch(foxes(300)) as batch:
        await anext(batch)
        assert (batch.progress.total, batch.progress.seconds_left) == (None, None)
        batch.stop()
        assert batch.progress.seconds_left is not None


async def test_p13_what_a_batch_holds_does_not_grow_with_its_length() -> None:
    async with make_sim(duration=0.0, record=False) as sim, make_client(sim, limits=Limits.none(), max_in_flight=32) as client:
        sizes: list[int] = []
        async with client.batch(foxes(2_000), at_once=32, poll=0, budget=100) as batch:
            handed = 0
            async for _ in batch:
                handed += 1
                if handed % 500 == 0:
                    sizes.append(sum(len(value) for value in vars(batch).values() if isinstance(value, dict | set | list)))
    assert handed == 2_000
    assert max(sizes) <= 4 * 32
