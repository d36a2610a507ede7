"""Which job is read next and when: never more than the budget, no job starves, every job is read again."""

import math
import random
from itertools import pairwise
from statistics import fmean, median

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from dryapi_async.config import DAY_SECONDS, Limits, Rate
from dryapi_async.protocol.cadence import (
    FIRST,
    KNOWN_ENDS,
    LONGEST,
    LONGEST_FIRST,
    LONGEST_SPARED,
    NO_LIMIT,
    SHORTEST,
    SILENCE,
    Budget,
    Durations,
    Turns,
    next_wait,
    read_budget,
    silence,
    spared,
)
from dryapi_async.protocol.lanes import Lane, Window, make_lane

AGES = st.floats(0, 200_000)


def lognormal(rng: random.Random, middle: float = 20.0, sigma: float = 0.5) -> float:
    return middle * math.exp(rng.gauss(0, sigma))


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  durations, no secrets


def follow(durations: Durations, seconds: float, rng: random.Random, budget: Budget = NO_LIMIT) -> tuple[int, float]:
    """Read a job that takes so long until it is found ended: how many reads, and how late."""
    at, seen, reads = 0.0, 0.0, 0
    while at < seconds:
        seen = at
        at += next_wait(durations, at, first=not reads, budget=budget, chance=rng.random())
        reads += 1
    durations.learn(seen, at)
    return reads, at - seconds


@pytest.mark.parametrize(("age", "seconds"), [(0, 0.5), (1, 0.5), (4, 1.0), (40, 10.0), (60, 15.0), (900, 15.0)])
def test_a_job_of_which_nothing_is_known_is_read_in_proportion_to_its_age(age: float, seconds: float) -> None:
    for nothing in (None, Durations()):
        assert next_wait(nothing, age, first=True, budget=NO_LIMIT, chance=0.5) == pytest.approx(seconds)
        assert next_wait(nothing, age, first=False, budget=NO_LIMIT, chance=0.5) == pytest.approx(seconds)


def test_a_kind_that_is_known_is_looked_at_first_before_most_have_ended_and_then_closely() -> None:
    known = Durations(mean=20.0, ends=KNOWN_ENDS)
    assert next_wait(known, 0.0, first=True, budget=NO_LIMIT, chance=0.5) == pytest.approx(20 * FIRST)
    assert next_wait(known, 5.0, first=True, budget=NO_LIMIT, chance=0.5) == pytest.approx(20 * FIRST - 5), "some of it is over already"
    assert next_wait(known, 90.0, first=True, budget=NO_LIMIT, chance=0.5) == SHORTEST
    assert next_wait(known, 12.0, first=False, budget=NO_LIMIT, chance=0.5) == pytest.approx(1.2)
    barely = Durations(mean=20.0, ends=KNOWN_ENDS - 1)
    assert next_wait(barely, 0.0, first=True, budget=NO_LIMIT, chance=0.5) == SHORTEST


@pytest.mark.parametrize("middle", [4.0, 20.0, 60.0])
def test_what_is_learned_saves_reads_and_time(middle: float) -> None:
    rng, known = dice(7), Durations()
    for _ in range(50):
        follow(known, lognormal(rng, middle), rng)
    assert known.mean == pytest.approx(middle * math.exp(0.125), rel=0.35)
    lives = [lognormal(rng, middle) for _ in range(300)]
    with_it = [follow(known, seconds, rng) for seconds in lives]
    without = [follow(Durations(), seconds, rng) for seconds in lives]
    assert fmean(reads for reads, _ in with_it) < fmean(reads for reads, _ in without)
    assert fmean(late for _, late in with_it) < fmean(late for _, late in without)


def test_a_kind_that_became_faster_is_noticed() -> None:
    rng, known = dice(5), Durations(mean=100.0, ends=1000)
    late = [follow(known, lognormal(rng, 4.0, 0.2), rng)[1] for _ in range(200)]
    assert late[0] > 50
    assert fmean(late[100:]) < 2


def test_a_kind_that_became_slower_is_noticed() -> None:
    rng, known = dice(5), Durations(mean=4.0, ends=1000)
    reads = [follow(known, lognormal(rng, 100.0, 0.2), rng)[0] for _ in range(200)]
    assert fmean(reads[100:]) < fmean(reads[:5]) / 2


BUDGETS = st.builds(
    Budget,
    limit=st.integers(0, 1000) | st.just(math.inf),
    seconds=st.floats(0.1, 3600),
    free=st.integers(-5, 1000),
    shared=st.booleans(),
    waiting=st.integers(0, 1000),
    day_limit=st.integers(0, 1000) | st.just(math.inf),
    day_left=st.integers(-50, 1000),
    day_seconds=st.floats(0, DAY_SECONDS),
)


@given(st.lists(st.tuples(AGES, AGES), max_size=30), AGES, st.booleans(), BUDGETS, st.floats(0, 0.999))
def test_every_job_is_read_again_in_a_time_that_is_bounded(
    seen: list[tuple[float, float]],
    age: float,
    first: bool,
    budget: Budget,
    chance: float,
) -> None:
    durations = Durations()
    for one, other in seen:
        durations.learn(min(one, other), max(one, other))
    wait = next_wait(durations, age, first=first, budget=budget, chance=chance)
    assert SHORTEST * 0.9 <= wait <= (LONGEST_FIRST if first else LONGEST) * 1.1 + LONGEST_SPARED
    assert SILENCE <= silence(3, budget) < math.inf
    assert 0 <= budget.gap < math.inf


def test_a_day_is_spared_as_it_is_used_up_and_never_stalls_a_wait() -> None:
    fresh = [spared(Budget(day_limit=200, day_left=left, day_seconds=DAY_SECONDS)) for left in range(200, -50, -1)]
    assert fresh[0] == 0
    assert all(sooner <= later for sooner, later in pairwise(fresh))
    assert fresh[-1] == LONGEST_SPARED
    assert spared(Budget(day_limit=200, day_left=100, day_seconds=60)) < SHORTEST, "what is left at the end of the day may be used"
    evening, noon = (spared(Budget(day_limit=200, day_left=100, day_seconds=hours * 3600)) for hours in (2, 9))
    assert evening == noon, "a day's jobs may all come in its last hours"


@pytest.mark.parametrize("middle", [3.0, 20.0, 60.0])
@pytest.mark.parametrize("gap", [20.0, 800.0], ids=["in half an hour", "over the day"])
def test_two_hundred_reads_last_for_a_hundred_jobs(middle: float, gap: float) -> None:
    rng, durations, reads, late = dice(1), Durations(), 0, list[float]()
    for number in range(100):
        budget = Budget(day_limit=200, day_left=200 - reads, day_seconds=DAY_SECONDS - number * gap)
        more, delay = follow(durations, lognormal(rng, middle), rng, budget)
        reads += more
        late.append(delay)
    assert reads <= 200
    assert median(late) < 60


def test_a_silent_job_is_read_seldom_while_push_is_up() -> None:
    assert silence(1, NO_LIMIT) == SILENCE
    assert silence(10, Budget(limit=300)) == SILENCE
    assert silence(10_000, Budget(limit=300)) == 4000, "half of five reads a second"


@define(eq=False)
class Item:
    """A job to be read."""

    name: int
    due: float = math.inf


@settings(max_examples=40, deadline=None)
@given(
    limit=st.integers(1, 60),
    seconds=st.sampled_from([1.0, 6.0, 60.0]),
    jobs=st.integers(1, 80),
    seed=st.integers(0, 10**6),
    answer=st.sampled_from([0.0, 0.05, 0.4]),
)
def test_never_more_than_the_budget_and_nobody_starves(limit: int, seconds: float, jobs: int, seed: int, answer: float) -> None:
    rng, turns, now = dice(seed), Turns[Item](), 0.0
    lane = Lane("status", (Window(limit=limit, seconds=seconds),), learns=False)
    items = [Item(number) for number in range(jobs)]
    reads: list[tuple[float, int]] = []
    out: list[float] = []
    for item in items:
        turns.plan(item, rng.random())
    while now < 3 * seconds:
        budget = read_budget(lane, now, shared=False, waiting=0)
        while now < 3 * seconds and (item := turns.peek(now, budget)) is not None:
            turns.take(item, now, budget)
            while lane.reserve(now) > 0:
                now = _step(lane, out, now)
            reads.append((now, item.name))
            out.append(now + answer)
            turns.plan(item, now + max(answer, 0.5 + rng.random()))
            budget = read_budget(lane, now, shared=False, waiting=0)
        now = max(now, min([turns.at(now, budget), *out])) + 1e-6
        while out and out[0] <= now:
            lane.settle(out.pop(0))
    moments = [moment for moment, _ in reads]
    for first, last in zip(moments, moments[limit:], strict=False):
        assert last - first >= seconds, "more than the budget in one window"
    longest = 2.0 + (jobs + limit / 8 + 2) * (seconds + answer + 0.02) / limit * 1.6
    for name in range(jobs):
        seen = [0.0, *(moment for moment, one in reads if one == name), now]
        assert max(later - sooner for sooner, later in pairwise(seen)) <= longest + seconds / 8, "a job starved"


def _step(lane: Lane, out: list[float], now: float) -> float:
    """Wait for a place."""
    if out and out[0] <= now + lane.wait(now):
        now = max(now, out[0])
        lane.settle(out.pop(0))
        return now
    return now + lane.wait(now) + 1e-9


def test_reads_are_spread_evenly_under_pressure() -> None:
    turns, now, lane = Turns[Item](), 0.0, Lane("status", (Window(limit=300, seconds=60.0),), learns=False)
    moments: list[float] = []
    for number in range(1000):
        turns.plan(Item(number), 0.0)
    while now < 180:
        budget = read_budget(lane, now, shared=False, waiting=0)
        item = turns.peek(now, budget)
        if item is not None:
            assert lane.reserve(now + 1e-9) == 0, "it runs into the wall"
            lane.settle(now)
            turns.take(item, now, budget)
            turns.plan(item, now)
            moments.append(now)
        else:
            now = max(turns.at(now, budget), now + 1e-6)
    per_second = [sum(second <= moment < second + 1 for moment in moments) for second in range(180)]
    assert per_second[0] <= 42, "a burst after a pause is small"
    assert all(4 <= count <= 6 for count in per_second[1:])
    assert len(moments) >= 890, "nor is the budget left unused"


def test_what_is_due_longest_goes_first_and_an_earlier_plan_stands() -> None:
    turns, items = Turns[Item](), [Item(number) for number in range(3)]
    for item, due in zip(items, (3.0, 1.0, 2.0), strict=True):
        turns.plan(item, due)
    assert not turns.plan(items[1], 5.0)
    assert turns.plan(items[0], 0.5)
    turns.put_off(items[0], 4.0)
    order: list[int] = []
    while (item := turns.peek(10.0, NO_LIMIT)) is not None:
        turns.take(item, 10.0, NO_LIMIT)
        order.append(item.name)
    assert order == [1, 2, 0]
    assert turns.at(10.0, NO_LIMIT) == math.inf


def test_plans_that_were_changed_are_swept_away() -> None:
    turns, item = Turns[Item](), Item(1)
    for due in range(10_000, 0, -1):
        turns.plan(item, float(due))
        turns.sweep(1, [item])
    assert len(turns) <= 67
    assert turns.at(0.0, NO_LIMIT) == 1.0


def test_the_budget_of_a_lane_is_that_of_its_tightest_window_and_of_its_day() -> None:
    lane = make_lane("status", Limits.basic(), None, midnight=7200.0)
    for _ in range(3):
        lane.reserve(10.0)
    lane.settle(12.0)
    budget = read_budget(lane, 20.0, shared=False, waiting=4)
    assert (budget.limit, budget.seconds, budget.free, budget.waiting) == (50, pytest.approx(60.01), 47, 0)
    assert (budget.day_limit, budget.day_left, budget.day_seconds) == (200, 197, 7180)
    assert 51 < budget.frees_in < 53
    assert read_budget(lane, 80.0, shared=False, waiting=0).free == 48
    pot = Window(limit=5, seconds=1.0)
    both = read_budget(make_lane("status", Limits(lanes={"status": Rate(40)}, pot=Rate(5, 1.0)), pot, 1.0), 0.0, shared=True, waiting=4)
    assert (both.limit, both.waiting) == (40, 4)
    assert read_budget(make_lane("status", Limits.none(), None, 1.0), 0.0, shared=False, waiting=0) == NO_LIMIT


def test_a_window_of_nothing_has_a_budget_all_the_same() -> None:
    lane = Lane("status", (Window(limit=0, seconds=60.0), Window(limit=4, seconds=60.0)), learns=False)
    budget = read_budget(lane, 0.0, shared=False, waiting=0)
    assert (budget.limit, budget.free, budget.gap, budget.burst) == (0, 0, pytest.approx(60.01), 1)
