"""What is remembered of deliveries, and news that came before its job."""

import random
import tracemalloc
from typing import Any

import pytest

from dryapi_async.protocol.signature import WebhookEvent, verify
from dryapi_async.protocol.status import JobState, Update
from dryapi_async.testing import WebhookSigner
from dryapi_async.tracking.deliveries import Deliveries, Early, EarlyNews

DAY = 86_400.0


def event(delivery_id: str, request_id: str | None = "j", word: str = "job.completed") -> WebhookEvent:
    return WebhookEvent(event=word, delivery_id=delivery_id, request_id=request_id)


def news(state: JobState = JobState.PROCESSING, **fields: Any) -> Update:
    return Update(**{"state": state, "word": state.value, "source": "webhook", **fields})


def test_p17_a_repeat_is_known_by_its_id_or_by_its_job_and_event() -> None:
    known = Deliveries()
    assert not known.seen(event("d-1"), 0.0)
    assert not known.seen(event("d-1"), 0.0)  # looking remembers nothing: it may not have been handed over
    known.remember(event("d-1"), 0.0)
    assert known.seen(event("d-1"), 1.0)
    assert known.seen(event("d-1", request_id=None), 1.0)
    assert known.seen(event("d-2"), 1.0)  # a retry under a new id
    assert not known.seen(event("d-2", word="job.processing"), 1.0)
    assert not known.seen(event("d-2", request_id="k"), 1.0)


def test_events_without_a_job_are_known_by_their_id_alone() -> None:
    known = Deliveries()
    known.remember(event("d-1", None, "webhook.validation"), 0.0)
    assert known.seen(event("d-1", None, "webhook.validation"), 0.0)
    assert not known.seen(event("d-2", None, "webhook.validation"), 0.0)


def test_a_day_is_remembered_and_no_more() -> None:
    known = Deliveries()
    known.remember(event("d-1"), 0.0)
    known.remember(event("d-2", "k"), 10.0)
    assert known.seen(event("d-1"), DAY - 0.1)
    assert not known.seen(event("d-1"), DAY)
    assert len(known) == 4
    known.remember(event("d-3", "l"), DAY + 10.0)
    assert len(known) == 2
    known.remember(event("d-3", "l"), DAY + 20.0)  # again: kept from now on, once
    assert len(known) == 2
    assert known.seen(event("d-3", "l"), 2 * DAY + 15.0)


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    known = Deliveries()
    known.remember(event("d-1"), 1000.0)
    known.remember(event("d-2", "k"), 0.0)
    assert known.seen(event("d-1"), 0.0)
    assert known.seen(event("d-2", "k"), 1000.0)


def test_what_is_remembered_is_bounded() -> None:
    known = Deliveries(most=10)
    for number in range(100):
        known.remember(event(f"d-{number}", f"j-{number}"), float(number))
    assert len(known) == 20
    assert [number for number in range(100) if known.seen(event(f"d-{number}", f"j-{number}"), 100.0)] == list(range(90, 100))


def test_a_repeat_counts_as_the_newest() -> None:
    known = Deliveries(most=2)
    for delivery_id in ("d-1", "d-2", "d-1", "d-3"):
        known.remember(event(delivery_id, delivery_id), 0.0)
    assert [known.seen(event(each, each), 0.0) for each in ("d-1", "d-2", "d-3")] == [True, False, True]


def test_a_hundred_thousand_deliveries_take_little_memory() -> None:
    def ids(number: int) -> tuple[str, str]:
        return f"{number:08}-53cb-4a3f-8f6f-2f7c7f0a9b11", f"{number:08}-6d0c-4a0a-9a55-3d8c2a6f1e07"

    known = Deliveries()
    tracemalloc.start()
    try:
        for number in range(20_000):
            known.remember(event(*ids(number)), 0.0)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(known) == 40_000
    assert used / 20_000 < 700  # bytes a delivery: 70 MB at most


@pytest.mark.parametrize("seed", range(20))
def test_many_events_shuffled_and_repeated_are_each_new_once(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  no secret
    signer, known, handed_over = WebhookSigner("s"), Deliveries(), set[tuple[str, str]]()
    sent = [
        signer.sign({"job_request_id": f"j-{number}"}, event=word, at=0.0)
        for number in range(20)
        for word in ("job.processing", "job.completed")
    ] * 3
    chance.shuffle(sent)
    for headers, body in sent:
        one = verify(headers, body, "s", 0.0)
        if not known.seen(one, 0.0):
            assert (str(one.request_id), one.event) not in handed_over
            handed_over.add((str(one.request_id), one.event))
            known.remember(one, 0.0)
    assert len(handed_over) == 40


def test_early_news_is_folded_and_taken_once() -> None:
    early = EarlyNews()
    early.keep("j", news(JobState.DONE, url="https://r.example/1.png"), 10.0)
    early.keep("j", news(progress=50.0), 12.0)  # late: a state never goes back
    kept = early.peek()
    assert kept == {"j": Early(update=news(JobState.DONE, url="https://r.example/1.png"), first_at=10.0, last_at=12.0)}
    assert early.take("j", 20.0) == kept["j"].update
    assert early.take("j", 20.0) is None
    assert (early.take("other", 20.0), len(early)) == (None, 0)


def test_early_news_lasts_fifteen_minutes_from_its_latest() -> None:
    early = EarlyNews()
    early.keep("a", news(progress=1.0), 0.0)
    early.keep("b", news(), 1.0)
    early.keep("a", news(progress=2.0), 500.0)
    assert early.take("b", 901.0) is None
    assert early.peek()["a"].first_at == 0.0
    taken = early.take("a", 1399.9)
    assert taken is not None
    assert taken.progress == 2.0
    early.keep("c", news(), 2000.0)
    assert early.take("c", 2900.0) is None


def test_early_news_is_bounded_and_holds_no_previews() -> None:
    early = EarlyNews(most=3)
    for number in range(10):
        early.keep(f"j-{number}", news(preview="data:image/png;base64," + "A" * 150_000), float(number))
        early.keep("j-0", news(progress=float(number)), float(number))
    kept = early.peek()
    assert list(kept) == ["j-8", "j-9", "j-0"]
    assert all(one.update.preview is None for one in kept.values())
