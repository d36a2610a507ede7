"""The jobs of the last seconds: known for as long as a 404 isn't believed, then forgotten, at a few bytes each."""

import tracemalloc
from array import array
from uuid import uuid4

import pytest

from dryapi_async.tracking.just_made import NOT_FOUND_GRACE, TOGETHER, JustMade


def test_p32_a_job_is_known_for_ten_seconds() -> None:
    made = JustMade()
    made.add("first", 100.0)
    made.add("second", 100.0 + 0.9 * TOGETHER)
    made.add("third", 103.0)
    assert made.when("first") == 100.0
    assert made.when("second") == pytest.approx(100.0 + 0.9 * TOGETHER, abs=TOGETHER)
    assert made.when("third") == 103.0
    assert made.when("never") is None
    made.add("fourth", 100.0 + NOT_FOUND_GRACE)
    assert made.when("first") == 100.0
    made.add("fifth", 103.0 + NOT_FOUND_GRACE + 0.01)
    assert [made.when(name) for name in ("first", "second", "third")] == [None] * 3
    assert made.when("fourth") == 100.0 + NOT_FOUND_GRACE


def test_thousands_that_are_asked_for_are_walked_through_once() -> None:
    made = JustMade()
    for number in range(5_000):
        made.add(f"job {number}", number / 1_000)
    assert made.when("another") is None
    kinds = [type(jobs) for _, jobs in made._made]
    assert len(kinds) == pytest.approx(50, abs=2)
    assert kinds == [frozenset] * (len(kinds) - 1) + [array], "the newest still grows"
    assert made.when("job 17") == pytest.approx(0.017, abs=TOGETHER)
    made.add("late", 4.9991)
    assert made.when("late") == pytest.approx(4.9991, abs=TOGETHER)


def test_p14_a_pipeline_of_thousands_a_second_takes_no_megabytes() -> None:
    made, rate = JustMade(), 5_000
    ids = [str(uuid4()) for _ in range(1_000)]
    tracemalloc.start()
    try:
        for number in range(100_000):
            made.add(ids[number % 1_000], number / rate)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 600_000
