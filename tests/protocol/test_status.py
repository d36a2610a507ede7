"""News about a job become one truth, in whatever order and however often they come."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dryapi_async import JobState, ResponseError, Update
from dryapi_async.protocol.status import SUBMITTED, fold, read_update

WORDS = ["pending", "queued", "processing", "in_progress", "paused", "done", "COMPLETED", "error", "Failed", "canceled", "in-queue"]

updates = st.builds(
    lambda word, progress, url: read_update({"status": word, "progress": progress, "result_url": url}),
    st.sampled_from(WORDS),
    st.none() | st.floats(0, 100),
    st.none() | st.just("https://a.example/r.png?s=1"),
)


def fold_all(news: list[Update]) -> Update:
    known = SUBMITTED
    for one in news:
        known = fold(known, one)
    return known


@given(st.lists(updates, max_size=8), st.randoms(use_true_random=False))
def test_any_order_and_repetition_ends_in_the_same_state(news: list[Update], order: Any) -> None:
    shuffled = news + news
    order.shuffle(shuffled)
    assert fold_all(news).state == fold_all(shuffled).state


@given(st.lists(updates, max_size=12))
def test_p42_neither_state_nor_progress_goes_back(news: list[Update]) -> None:
    known, rank = SUBMITTED, [JobState.PENDING, JobState.PROCESSING, JobState.ERROR, JobState.DONE]
    for one in news:
        folded = fold(known, one)
        assert rank.index(folded.state) >= rank.index(known.state)
        assert (folded.progress or 0) >= (known.progress or 0)
        assert not known.url or folded.url
        known = folded


@given(st.lists(updates, max_size=6))
def test_a_repeat_is_no_news(news: list[Update]) -> None:
    known = fold_all(news)
    assert fold(known, known) is known


def test_done_then_a_late_processing_stays_done() -> None:
    done = read_update({"status": "done", "result_url": "u"})
    assert fold(done, read_update({"status": "processing", "progress": 50})) is done


def test_a_fresh_link_replaces_an_old_one() -> None:
    old, new = (read_update({"status": "done", "result_url": url}) for url in ("old", "new"))
    assert fold(old, new).url == "new"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values), st.text())
def test_p20_any_object_with_a_text_for_its_status_decodes(job: dict[str, Any], word: str) -> None:
    job = {**json.loads(json.dumps(job)), "status": word}
    job.pop("data", None)
    for body in (job, {"data": job}):
        update = read_update(body)
        assert update.word == word
        assert update.progress is None or 0 <= update.progress <= 100


@given(json_values)
def test_p20_any_json_is_an_update_or_a_typed_error(body: Any) -> None:
    with suppress(ResponseError):
        assert isinstance(read_update(body), Update)


@pytest.mark.parametrize("body", [{"status": 3}, {"data": None}, [], {"data": []}, "done", None, {"status": None}, {"status": ["done"]}])
def test_no_word_no_update(body: Any) -> None:
    with pytest.raises(ResponseError):
        read_update(body)


@pytest.mark.parametrize(
    ("job", "code", "reason"),
    [
        ({}, None, None),
        ({"error": "Out of memory"}, None, "Out of memory"),
        ({"error": {"code": "X", "message": "y"}}, "X", "y"),
        ({"error_code": "A", "error_message": "b", "error": {"code": "X", "message": "y"}}, "A", "b"),
        ({"error_reason": "CAPACITY_UNAVAILABLE"}, None, "CAPACITY_UNAVAILABLE"),
        ({"error_code": "A", "error": {"message": "y"}, "error_reason": "Z"}, "A", "y"),
    ],
)
def test_why_a_job_failed(job: dict[str, Any], code: str | None, reason: str | None) -> None:
    update = read_update({"status": "error", **job})
    assert (update.code, update.reason) == (code, reason)


def test_reason_and_flags_stay_in_extra() -> None:
    extra = {"error_reason": "TIMEOUT", "retryable": True, "refunded": False, "failed_at": "2026-01-01"}
    assert read_update({"status": "error", **extra}).extra == extra


def test_p35_a_reason_tells_no_signed_link() -> None:
    for job in (
        {"error_message": "can't read https://storage.example.org/a.png?X-Amz-Signature=stolen"},
        {"error": {"message": "can't read https://storage.example.org/a.png?X-Amz-Signature=stolen"}},
        {"error_reason": "can't read https://storage.example.org/a.png?X-Amz-Signature=stolen"},
    ):
        assert read_update({"status": "error", **job}).reason == "can't read https://storage.example.org/a.png?…"
