"""The status resource of a job, in every documented shape."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dryapi_async.simulator.media import NAMES, text_result

if TYPE_CHECKING:
    from collections.abc import Collection

    from dryapi_async.simulator.account import Account
    from dryapi_async.simulator.jobs import SimJob, State

TEXTS = frozenset({"ocr", "transcript", "embedding"})
_PICTURES = frozenset({"image", "cutout", "upscale"})
_WORDS: dict[str, dict[State, str]] = {
    "status-upper": {"pending": "PENDING", "processing": "PROCESSING", "done": "COMPLETED", "error": "FAILED"},
    "status-words": {"pending": "queued", "processing": "in_progress", "done": "completed", "error": "failed"},
    "status-in-progress": {"processing": "in_progress"},
}
_PREVIEW = "data:image/gif;base64,R0lGODlhAQABAIAAAFp4yAAAACwAAAAAAQABAAACAkQBADs="


def describe(account: Account, job: SimJob) -> dict[str, Any]:
    """Give a job's status as it stands now."""
    variants, now = account.variants, account.clock()
    state = job.state(now)
    fields: dict[str, Any] = {
        "status": _word(state, variants),
        "preview": _PREVIEW if "status-preview" in variants and state == "processing" else None,
        "result_url": None,
        "results_alt_formats": None,
        "result": None,
        "progress": job.progress(now),
    }
    if state == "done":
        fields |= results(account, job)
    elif state == "error":
        fields |= _failure(account, job, variants)
    _reshape(fields, variants)
    return fields if "status-unwrapped" in variants else {"data": fields}


def _word(state: State, variants: Collection[str]) -> str:
    for name, words in _WORDS.items():
        if name in variants:
            return words.get(state, state)
    return state


def results(account: Account, job: SimJob) -> dict[str, Any]:
    """Give the result fields of a finished job, with fresh links."""
    variants, storage = account.variants, account.storage
    kind = job.row.result
    names = NAMES[kind]
    if kind in TEXTS:
        inline = ("text-inline" in variants or bool(job.fields.get("return_result_in_response"))) and "text-link" not in variants
        link = None if "text-inline" in variants else storage.link(job, names[0], variants)
        return {"result_url": link, "result": text_result(job) if inline else None}
    found: dict[str, Any] = {"result_url": storage.link(job, names[0], variants)}
    if kind in _PICTURES:
        formats: Any = {
            form: storage.link(job, f"image.{form}", variants) if f"image.{form}" in names else None for form in ("jpg", "webp")
        }
        if "alt-partial" in variants:
            formats["jpg"] = None
        found["results_alt_formats"] = [] if "alt-empty-list" in variants else None if "alt-null" in variants else formats
    return found


def iso_time(seconds: float) -> str:
    """Write a time as the service does: UTC, milliseconds, Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03}Z"


def _failure(account: Account, job: SimJob, variants: Collection[str]) -> dict[str, Any]:
    if "status-error-fields" in variants:
        return {
            "error_code": job.code,
            "error_message": job.message,
            "error_reason": "PROCESSING_FAILED",
            "retryable": True,
            "refunded": True,
            "failed_at": iso_time(account.now() - account.clock() + job.ends),
        }
    if "status-error-string" in variants:
        return {"error": job.message}
    if "status-error-object" in variants:
        return {"error": {"code": job.code, "message": job.message}}
    return {}


def _reshape(fields: dict[str, Any], variants: Collection[str]) -> None:
    if "status-progress-string" in variants:
        fields["progress"] = f"{fields['progress']:.2f}"
    if "status-no-progress" in variants:
        del fields["progress"]
    if "status-extra" in variants:
        fields |= {"metadata": {"worker": "simulator"}, "price": {"amount": 0.02, "is_estimated": False}}
    if "status-sparse" in variants:
        for name in [name for name, value in fields.items() if value is None]:
            del fields[name]
