"""Reservations against a service that counts in fixed and in sliding windows: never over, and no slower than need be."""

import math
from collections import deque
from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dryapi_async.config import DAY_SECONDS, Limits, Rate
from dryapi_async.errors import ConfigurationError
from dryapi_async.protocol.lanes import Lane, Window, make_lane

MIDNIGHT = 50_000.0


def lane_of(limits: Limits, name: str = "txt2img") -> Lane:
    pot = None if limits.pot is None else Window(limit=limits.pot.limit, seconds=limits.pot.seconds)
    return make_lane(name, limits, pot, MIDNIGHT)


def play(lane: Lane, requests: int, delays: list[float]) -> list[tuple[float, float]]:
    """Send requests as fast as the lane lets them; each is counted by the service somewhere between sending and its answer."""
    now, sent = 0.0, list[tuple[float, float]]()
    answers: list[float] = []
    while len(sent) < requests:
        wait = lane.reserve(now)
        if wait == 0.0:
            delay = delays[len(sent) % len(delays)]
            sent.append((now, now + delay))
            heappush(answers, now + delay)
            continue
        upto = now + wait
        if answers and answers[0] <= upto:
            now = max(now, heappop(answers))
            lane.settle(now)
        else:
            assert math.isfinite(upto), "everybody waits and no answer is out"
            now = upto
    return sent


def most_in_a_window(moments: list[float], seconds: float, *, fixed: bool) -> int:
    if fixed:
        counts: dict[int, int] = {}
        for moment in moments:
            counts[int(moment // seconds)] = counts.get(int(moment // seconds), 0) + 1
        return max(counts.values())
    recent, most = deque[float](), 0
    for moment in sorted(moments):
        recent.append(moment)
        while recent[0] <= moment - seconds:
            recent.popleft()
        most = max(most, len(recent))
    return most


@given(
    st.integers(1, 20),
    st.floats(0.5, 20),
    st.lists(st.floats(0, 5), min_size=1, max_size=7),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_p07_no_window_of_any_kind_ever_has_more(limit: int, seconds: float, delays: list[float], places: list[float]) -> None:
    sent = play(lane_of(Limits(default=Rate(limit, seconds))), 60, delays)
    counted = [begun + (ended - begun) * places[index % len(places)] for index, (begun, ended) in enumerate(sent)]
    for fixed in (True, False):
        assert most_in_a_window(counted, seconds, fixed=fixed) <= limit


def test_p07_it_is_no_slower_than_need_be() -> None:
    sent = play(lane_of(Limits(default=Rate(60, 10.0))), 500, [0.05])
    assert 80 <= sent[-1][0] <= 83
    assert sum(begun == 0 for begun, _ in sent) == 60


def test_a_place_that_nothing_was_sent_with_is_given_back() -> None:
    lane = lane_of(Limits(default=Rate(1, 60.0)))
    assert lane.reserve(0) == 0
    assert lane.reserve(1) == math.inf
    lane.give_back()
    assert lane.reserve(2) == 0
    lane.settle(3)
    assert lane.reserve(4) == pytest.approx(59.01)


def test_a_window_that_is_closed_opens_on_time_however_high_its_limit_is() -> None:
    window = Window(limit=10**12, seconds=60.0, closed_until=70.0)
    assert window.wait(10.0) == 60
    assert window.wait(70.0) == 0


def test_a_day_ends_at_midnight_and_not_a_day_later() -> None:
    lane = lane_of(Limits.basic(), "img2img")
    now = 0.0
    for _ in range(15):
        assert lane.day_over(now) is None
        wait = lane.reserve(now)
        now += wait
        assert wait == 0 or lane.reserve(now) == 0
        lane.settle(now)
    assert lane.day_over(now) == MIDNIGHT
    assert lane.reserve(now + 120) == pytest.approx(MIDNIGHT - now - 120)
    assert lane.day_over(MIDNIGHT) is None
    assert lane.reserve(MIDNIGHT) == 0
    assert lane.reserve(MIDNIGHT + DAY_SECONDS - 1) == math.inf


def test_a_429_holds_everyone_back() -> None:
    lane = lane_of(Limits.none())
    assert lane.reserve(0) == 0
    lane.refuse(1, 30, "minute")
    assert lane.reserve(2) == 29
    lane.refuse(2, 5, "minute")
    assert lane.reserve(3) == 28
    lane.refuse(40, 4000, "daily")
    assert lane.day_over(41) == 4040
    assert lane.day_over(4040) is None


def test_guesses_learn_and_what_the_user_said_stays() -> None:
    guessed, given = lane_of(Limits.auto()), lane_of(Limits(default=Rate(300, 60.0)))
    for lane in (guessed, given):
        lane.learn({"x-ratelimit-limit": "2", "x-ratelimit-remaining": "1"}, 0)
    assert [guessed.reserve(0) for _ in range(3)] == [0, 0, math.inf]
    assert [given.reserve(0) for _ in range(3)] == [0, 0, 0]


def test_an_answer_without_headers_lifts_a_guess() -> None:
    lane = lane_of(Limits.auto(), "status")
    lane.learn({}, 0)
    assert [lane.reserve(0) for _ in range(1000)] == [0] * 1000


@pytest.mark.parametrize("limit", ["0", "9" * 13, "9" * 5000, "-1", "many"])
@pytest.mark.parametrize("left", [{}, {"x-ratelimit-remaining": "0", "x-ratelimit-daily-remaining": "0"}], ids=["alone", "none left"])
def test_a_limit_that_is_none_teaches_nothing_and_lifts_no_guess(limit: str, left: dict[str, str]) -> None:
    lane = lane_of(Limits(lanes={"txt2img": (Rate(3, 60.0), Rate(5, DAY_SECONDS))}, learns=True))
    lane.learn({"x-ratelimit-limit": limit, "x-ratelimit-daily-limit": limit, **(left if limit == "0" else {})}, 0)
    assert [(window.limit, window.guess) for window in lane.windows] == [(3, 3), (5, 5)]
    assert [lane.reserve(0) for _ in range(4)] == [0, 0, 0, math.inf]
    assert lane.day_over(0) is None


def test_what_others_took_of_a_day_is_counted_however_much_it_is() -> None:
    lane = lane_of(Limits.auto(), "status")
    lane.learn({"x-ratelimit-daily-limit": "999999999999", "x-ratelimit-daily-remaining": "2"}, 0)
    assert [lane.reserve(0) for _ in range(3)] == [0, 0, MIDNIGHT]
    assert lane.day_over(0) == MIDNIGHT
    assert not lane.is_overdrawn(0)
    assert lane.day_over(MIDNIGHT) is None


def test_remaining_zero_while_we_have_room_means_somebody_else() -> None:
    lane = lane_of(Limits(default=Rate(10, 60.0)))
    assert lane.reserve(0) == 0
    lane.learn({"x-ratelimit-remaining": "0"}, 1)
    assert lane.reserve(1) == 60


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("none", Limits.none()),
        (" Basic ", Limits.basic()),
        ("premium", Limits.premium()),
        ("auto", Limits.auto()),
        ("300", Limits.shared(300)),
    ],
)
def test_what_the_environment_may_say(text: str, limits: Limits) -> None:
    assert Limits.parse(text) == limits


@pytest.mark.parametrize("text", ["", "0", "-3", "fast", "1.5"])
def test_what_it_may_not(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Limits.parse(text)
