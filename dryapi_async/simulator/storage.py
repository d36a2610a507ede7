"""The storage host: signed, expiring links; ranges, validators, exact lengths."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from calendar import timegm
from email.utils import formatdate
from typing import TYPE_CHECKING

from dryapi_async.simulator.errors import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dryapi_async.simulator.blobs import Blob
    from dryapi_async.simulator.jobs import SimJob

_SIGNED = "&X-Amz-Signature="
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_XML = "application/xml"
_PREFIX = "/results/"


def _xml(status: int, code: str, message: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, text.encode(), _XML)


class Storage:
    """Signs links and answers for the files behind them."""

    def __init__(
        self, secret: bytes, *, link_seconds: float, now: Callable[[], float], render: Callable[[SimJob, str], Blob | None]
    ) -> None:
        self.url = ""
        self.link_seconds = link_seconds
        self._secret = secret
        self._now = now
        self._render = render
        self._stamp = (0, "")

    def link(self, job: SimJob, name: str, variants: Collection[str] = ()) -> str:
        """Sign a fresh link to a job's result."""
        path = f"{_PREFIX}{job.request_id}/{name}"
        second = int(self._now())
        if self._stamp[0] != second:
            self._stamp = (second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second)))
        algorithm = "X-Amz-Algorithm=AWS4-HMAC-SHA256&"
        # A re-encoded query breaks this one: %2F is legal unescaped, so that eager URL classes unescape it.
        credential = f"X-Amz-Credential=simulator%2F{self._stamp[1][:8]}%2Fauto%2Fs3%2Faws4_request&" if "links-escaped" in variants else ""
        query = f"{algorithm}{credential}X-Amz-Date={self._stamp[1]}&X-Amz-Expires={self.link_seconds:g}"
        return f"{self.url}{path}?{query}{_SIGNED}{self._sign(path, query)}"

    def _sign(self, path: str, query: str) -> str:
        return hmac.digest(self._secret, f"{path}?{query}".encode(), "sha256").hex()

    def _denied(self, path: str, query: str) -> Answer | None:
        signed, mark, signature = query.partition(_SIGNED)
        if not mark or not hmac.compare_digest(self._sign(path, signed).encode(), signature.encode("utf-8", "replace")):
            code = "SignatureDoesNotMatch" if mark else "AccessDenied"
            return _xml(
                403, code, "The request signature we calculated does not match the signature you provided." if mark else "Access Denied"
            )
        fields: dict[str, str] = {name: value for name, _, value in (part.partition("=") for part in signed.split("&"))}
        stamp = fields["X-Amz-Date"]
        made = self._stamp[0] if stamp == self._stamp[1] else _read_stamp(stamp)
        if self._now() >= made + float(fields["X-Amz-Expires"]):
            return _xml(403, "AccessDenied", "Request has expired")
        return None

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], jobs: Mapping[str, SimJob]) -> Answer:
        """Answer GET and HEAD for a result file."""
        if method not in {"GET", "HEAD"}:
            return _xml(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        if (denied := self._denied(path, query)) is not None:
            return denied
        request_id, _, name = path.removeprefix(_PREFIX).partition("/")
        job = jobs.get(request_id)
        blob = self._render(job, name) if job is not None else None
        if blob is None:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        return _answer_range(blob, headers)


def _read_stamp(text: str) -> float:
    return timegm(time.strptime(text, "%Y%m%dT%H%M%SZ"))


def _answer_range(blob: Blob, headers: Mapping[str, str]) -> Answer:
    shared = {"ETag": blob.etag, "Accept-Ranges": "bytes"}
    whole = Answer(200, b"", blob.content_type, shared, blob, 0, blob.size)
    asked = headers.get("Range")
    condition = headers.get("If-Range")
    if headers.get("If-None-Match") == blob.etag:
        return Answer(304, b"", blob.content_type, shared)
    if not asked or (condition is not None and condition != blob.etag):
        return whole
    found = _RANGE.fullmatch(asked)
    if found is None or not (found[1] or found[2]):
        return whole
    if found[1]:
        start = int(found[1])
        stop = min(int(found[2]) + 1 if found[2] else blob.size, blob.size)
    else:
        start, stop = max(blob.size - int(found[2]), 0), blob.size
    if start >= blob.size or start >= stop:
        refused = _xml(416, "InvalidRange", "The requested range is not satisfiable")
        refused.headers["Content-Range"] = f"bytes */{blob.size}"
        return refused
    headers_206 = {**shared, "Content-Range": f"bytes {start}-{stop - 1}/{blob.size}"}
    return Answer(206, b"", blob.content_type, headers_206, blob, start, stop)


def make_secret(seed: str) -> bytes:
    """Derive the signing secret of one simulator."""
    return hashlib.sha256(f"storage {seed}".encode()).digest()


def http_date(seconds: float) -> str:
    """Write a time as HTTP does."""
    return formatdate(seconds, usegmt=True)
