"""What is known of a job, and how news about it become one truth."""

import json
from collections.abc import Mapping
from enum import StrEnum
from math import isfinite
from typing import Any, Final, Literal

from attrs import evolve, field, frozen

from dryapi_async.errors import ResponseError
from dryapi_async.protocol.links import mask
from dryapi_async.protocol.untyped import is_list, is_object


class JobState(StrEnum):
    """Where a job stands. Unknown words of the service read as ``processing``; the word itself is in ``Update.word``."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    ERROR = "error"


_WORDS: Final = {
    "pending": JobState.PENDING,
    "queued": JobState.PENDING,
    "in_queue": JobState.PENDING,
    "waiting": JobState.PENDING,
    "done": JobState.DONE,
    "completed": JobState.DONE,
    "success": JobState.DONE,
    "succeeded": JobState.DONE,
    "error": JobState.ERROR,
    "failed": JobState.ERROR,
    "cancelled": JobState.ERROR,
    "canceled": JobState.ERROR,
}
_ENDED: Final = (JobState.DONE, JobState.ERROR)
_RANK: Final = {JobState.PENDING: 0, JobState.PROCESSING: 1, JobState.ERROR: 2, JobState.DONE: 3}
_KNOWN: Final = frozenset(
    {"status", "progress", "preview", "result_url", "results_alt_formats", "result", "error", "error_code", "error_message", "request_id"}
)

UpdateSource = Literal["submit", "read", "push", "webhook"]


@frozen(kw_only=True)
class Update:
    """One piece of news about a job.

    ``progress`` is 0-100 or None. ``url``, ``alternatives`` (jpg, webp) and ``text`` are the service's result_url, results_alt_formats and
    result. ``code`` and ``reason`` say why a job failed, where the service says so. ``extra`` has the keys this package doesn't know.
    """

    state: JobState
    word: str
    progress: float | None = None
    preview: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    alternatives: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    text: str | None = None
    code: str | None = None
    reason: str | None = None
    source: UpdateSource = "read"
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    @property
    def finished(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.state in _ENDED

    def link(self, format: str | None = None) -> str | None:  # noqa: A002  the service's word
        """Find the link of one format; None is the one the service made."""
        return self.url if format is None else self.alternatives.get(format)


SUBMITTED: Final = Update(state=JobState.PENDING, word="pending", source="submit")
"""What is known of a job when its id came: nothing more."""


def fold(old: Update, new: Update) -> Update:
    """Merge news into what is known: a state never goes back, nor does progress; repeats and late ones are harmless."""
    if old is SUBMITTED and new is not SUBMITTED:
        return new
    if _RANK[new.state] < _RANK[old.state]:
        return old
    merged = evolve(
        new,
        progress=_furthest(old.progress, new.progress),
        preview=new.preview or old.preview,
        url=new.url or old.url,
        alternatives=new.alternatives or old.alternatives,
        text=old.text if new.text is None else new.text,
        code=new.code or old.code,
        reason=new.reason or old.reason,
    )
    return old if merged == old else merged


def _furthest(old: float | None, new: float | None) -> float | None:
    if old is None or new is None:
        return old if new is None else new
    return max(old, new)


def read_update(body: object, *, source: UpdateSource = "read") -> Update:
    """Read a job object in any of its shapes, wrapped in ``data`` or not.

    Raises:
        ResponseError: No object, or a status that is no text.
    """
    job = unwrap(body)
    word = job.get("status") if is_object(job) else None
    if not is_object(job) or not isinstance(word, str):
        raise ResponseError(
            f"A job's status came without a word for its state; read it again later. It begins: {excerpt(body)}", excerpt=excerpt(body)
        )
    code, reason = _read_failure(job)
    return Update(
        state=_WORDS.get(word) or _WORDS.get(word.strip().lower().replace("-", "_"), JobState.PROCESSING),
        word=word,
        progress=_read_progress(job.get("progress")),
        preview=read_text(job.get("preview")),
        url=read_text(job.get("result_url")),
        alternatives=_read_alternatives(job.get("results_alt_formats")),
        text=_read_result(job.get("result")),
        code=code,
        reason=reason,
        source=source,
        extra={} if job.keys() <= _KNOWN else {key: value for key, value in job.items() if key not in _KNOWN},
    )


def unwrap(body: object) -> Any:
    """Take what is in ``data`` where that is an object or a list, else the whole."""
    inner = body.get("data") if is_object(body) else None
    return inner if is_object(inner) or is_list(inner) else body


def read_text(value: object) -> str | None:
    """Take a text that says something; anything else is None."""
    return value if isinstance(value, str) and value else None


def excerpt(body: object, *, most: int = 200) -> str:
    """Show the beginning of what came."""
    # A text from JSON may hold halves of surrogate pairs, which no log can write.
    text = mask(body.encode(errors="replace").decode() if isinstance(body, str) else json.dumps(body, default=repr))
    return text if len(text) <= most else text[:most] + "…"


def _read_progress(value: object) -> float | None:
    if value is None or isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(max(number, 0.0), 100.0) if isfinite(number) else None


def _read_alternatives(value: object) -> dict[str, str]:
    if not is_object(value):
        return {}
    return {str(key): link for key, link in value.items() if isinstance(link, str) and link}


def _read_result(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


_FAILURE: Final = frozenset({"error", "error_code", "error_message", "error_reason"})


def _read_failure(job: Mapping[str, Any]) -> tuple[str | None, str | None]:
    if _FAILURE.isdisjoint(job):
        return None, None
    error = job.get("error")
    inner: Mapping[str, Any] = error if is_object(error) else {}
    code = read_text(job.get("error_code")) or read_text(inner.get("code"))
    reason = read_text(job.get("error_message")) or read_text(inner.get("message")) or read_text(error)
    reason = reason or read_text(job.get("error_reason"))
    return code, None if reason is None else mask(reason)
