"""The table of what may be sent again, row by row, and its properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dryapi_async import Retry
from dryapi_async.protocol.retry import TRANSIENT, Accept, Again, Answered, Broke, GiveUp, Unknown, Verdict, backoff, decide

RETRY = Retry(attempts=4, max_retry_after=120)
LIMITED = Answered(status=429, retry_after=2)


def verdict(happened: Answered | Broke, *, billed: bool, attempt: int = 1, chance: float = 0.0, left: float | None = None) -> Verdict:
    return decide(happened, billed=billed, attempt=attempt, retry=RETRY, chance=chance, seconds_left=left)


@pytest.mark.parametrize(
    ("happened", "reading", "paid"),
    [
        (Answered(status=200), Accept(), Accept()),
        (Answered(status=202), Accept(), Accept()),
        (Broke(sent=False), Again(0.0), Again(0.0)),
        (Broke(sent=True), Again(0.0), Unknown()),
        (LIMITED, Again(2.0), Again(2.0)),
        (Answered(status=429), Again(60.0), Again(60.0)),
        (Answered(status=429, retry_after=0.0), Again(0.0), Again(0.0)),
        (Answered(status=429, retry_after=121), GiveUp(), GiveUp()),
        (Answered(status=429, retry_after=86400, daily=True), GiveUp(), GiveUp()),
        (Answered(status=429, retry_after=5, daily=True), GiveUp(), GiveUp()),
        *[(Answered(status=status), Again(0.0), Unknown()) for status in (408, 425, 500, 502, 503, 504, 520, 521, 523, 525, 526)],
        *[(Answered(status=status), GiveUp(), GiveUp()) for status in (400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422, 451)],
        *[(Answered(status=status), GiveUp(), Unknown()) for status in (301, 302, 307, 308, 501, 505, 599)],
    ],
)
def test_the_table(happened: Answered | Broke, reading: Verdict, paid: Verdict) -> None:
    assert verdict(happened, billed=False) == reading
    assert verdict(happened, billed=True) == paid


def test_the_last_attempt_gives_up() -> None:
    assert verdict(Broke(sent=False), billed=True, attempt=4) == GiveUp()
    assert verdict(LIMITED, billed=True, attempt=4) == GiveUp()
    assert decide(LIMITED, billed=False, attempt=1, retry=Retry(attempts=1), chance=0.5) == GiveUp()


def test_nothing_is_waited_for_beyond_the_deadline() -> None:
    assert verdict(LIMITED, billed=True, left=1.9) == GiveUp()
    assert verdict(LIMITED, billed=True, left=2.1) == Again(2.0)


@given(st.floats(0, 120), st.floats(0, 1, exclude_max=True))
def test_p08_a_429_is_never_answered_early(asked: float, chance: float) -> None:
    told = verdict(Answered(status=429, retry_after=asked), billed=True, chance=chance)
    assert isinstance(told, Again)
    assert told.seconds >= asked


def test_p08_a_crowd_that_was_told_two_seconds_is_spread() -> None:
    waits = [verdict(LIMITED, billed=True, chance=index / 100) for index in range(100)]
    seconds = [wait.seconds for wait in waits if isinstance(wait, Again)]
    assert len(seconds) == 100
    assert max(seconds) - min(seconds) >= 0.2


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_are_full_jitter_and_capped(attempt: int, chance: float) -> None:
    assert 0 <= backoff(attempt, chance) <= min(8.0, 0.25 * 2 ** min(attempt - 1, 16))


@given(st.integers(100, 599), st.booleans(), st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_p01_a_payment_is_repeated_only_after_a_429_or_nothing_sent(status: int, sent: bool, attempt: int, chance: float) -> None:
    happened = [Answered(status=status), Broke(sent=sent)]
    for one in happened:
        if isinstance(decide(one, billed=True, attempt=attempt, retry=Retry(attempts=11), chance=chance), Again):
            assert (isinstance(one, Answered) and one.status == 429) or (isinstance(one, Broke) and not one.sent)


def test_every_transient_status_is_one_of_trouble() -> None:
    assert all(status in {408, 425} or status >= 500 for status in TRANSIENT)
