"""The service's error bodies, in every documented variant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import Factory, define

from dryapi_async.simulator.blobs import Blob

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


JSON = "application/json"
HTML = "text/html; charset=UTF-8"

REASONS = {
    413: "Request Entity Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
}


CHUNK = 262_144


@define(eq=False)
class Answer:
    """A whole answer before it is put on the wire: its payload is ``body``, or a part of a ``blob``."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = Factory(dict[str, str])
    blob: Blob | None = None
    start: int = 0
    stop: int = 0

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return len(self.body) if self.blob is None else self.stop - self.start

    def pieces(self, start: int = 0, stop: int | None = None, chunk: int = CHUNK) -> Iterator[bytes]:
        """Read the payload, or a part of it, in chunks."""
        end = self.size if stop is None else min(stop, self.size)
        for at in range(start, end, chunk):
            until = min(at + chunk, end)
            yield self.body[at:until] if self.blob is None else self.blob.read(self.start + at, until - at)


class RefusedError(Exception):
    """Ends the handling of a request with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def write_json(value: object) -> bytes:
    """Write JSON as PHP does: compact, slashes escaped."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode()


def answer_json(status: int, value: object, headers: dict[str, str] | None = None) -> Answer:
    """Make a JSON answer."""
    return Answer(status, write_json(value), JSON, headers or {})


def html_page(status: int) -> bytes:
    """Make the page that a proxy in front shows."""
    title = f"{status} {REASONS.get(status, 'Error')}"
    head, rule = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n", "<hr><center>nginx</center>\r\n"
    return f"{head}<center><h1>{title}</h1></center>\r\n{rule}</body>\r\n</html>\r\n".encode()


_SEED: dict[str, Any] = {"data": {}, "message": "string", "errors": [None], "statusCode": 0}


def unauthorized(variants: Collection[str]) -> Answer:
    """Answer 401."""
    if "401-docs" in variants:
        return answer_json(401, {"data": None, "message": "Unauthorized user.", "errors": [], "statusCode": 401})
    if "401-seed" in variants:
        return answer_json(401, _SEED)
    return answer_json(401, {"message": "Unauthenticated."})


def suspended() -> Answer:
    """Answer 403 for a suspended account."""
    return answer_json(403, {"message": "Your account has been suspended."})


def not_found(message: str, variants: Collection[str]) -> Answer:
    """Answer 404."""
    if "404-docs" in variants:
        return answer_json(404, {"data": None, "message": "Request not found.", "errors": [], "statusCode": 404})
    if "404-seed" in variants:
        return answer_json(404, _SEED)
    return answer_json(404, {"message": message})


def gone() -> Answer:
    """Answer 410, as the retired prompt tools do, naming the successor."""
    headers = {"Deprecation": "true", "Link": '<https://api.deapi.ai/api/v2/prompts/enhancements>; rel="successor-version"'}
    return answer_json(410, {"message": "This endpoint has been retired."}, headers)


def too_large() -> Answer:
    """Answer 413 as the front end does."""
    return Answer(413, html_page(413), HTML)


def invalid(errors: Mapping[str, list[str]], variants: Collection[str], *, listed: bool = False) -> Answer:
    """Answer 422. ``listed`` is the shape of the prompt tools' document: a list of fields with messages."""
    messages = [message for found in errors.values() for message in found]
    more = len(messages) - 1
    text = messages[0] + (f" (and {more} more error{'s' if more > 1 else ''})" if more > 0 else "")
    body: dict[str, Any] = {"message": text, "errors": dict(errors)}
    rows: list[dict[str, Any]] = [{"field": name, "messages": found} for name, found in errors.items()]
    if "422-list" in variants:
        body = {"data": None, "message": "Validation failed", "errors": rows, "statusCode": 422}
    elif "422-null-entry" in variants:
        body["errors"] = [None]
    elif "422-missing" in variants:
        del body["errors"]
    elif "422-empty" in variants:
        body["errors"] = []
    elif "422-strings" in variants:
        body["errors"] = messages
    elif "422-error-string" in variants:
        body = {"error": text}
    elif "422-error-object" in variants:
        body = {"error": {"code": "validation_failed", "message": text, "detail": messages}}
    elif listed:
        body = {"data": {}, "message": text, "errors": rows, "statusCode": 422}
    return answer_json(422, body)


def too_many(kind: str, retry_after: int, variants: Collection[str], counts: Mapping[str, int] | None = None) -> Answer:
    """Answer 429; the headers are the limiter's."""
    if "429-skills" in variants:
        return answer_json(429, {"error": "Rate limit exceeded", "retry_after": retry_after})
    if "429-counts" in variants:
        return answer_json(429, {"allowed": False, **(counts or {}), "exceeded": kind})
    if "429-empty" in variants:
        return Answer(429, b"")
    return answer_json(429, {"message": "Too Many Attempts."})
