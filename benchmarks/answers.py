"""What the server says: the service's answers by its contract, and what the peers' own services say to the same job."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

ROOT: Final = "/api/v1/client/"
RESULT_BYTES: Final = 20 * 1024
RESULT: Final = b"\x89PNG\r\n\x1a\n" + bytes(RESULT_BYTES - 8)
"""A picture, as far as its first bytes tell."""
SIGNED: Final = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"
    "&X-Amz-Credential=benchmark%2F20261121%2Fauto%2Fs3%2Faws4_request&X-Amz-Date=20261121T120000Z&X-Amz-Expires=86400"
    f"&X-Amz-Signature={'5f' * 32}&X-Amz-SignedHeaders=host&x-id=GetObject"
)
"""The query of a signed link. Who encodes it anew is refused, as a storage host would."""
_LIMITS: Final = b"X-RateLimit-Limit: 300\r\nX-RateLimit-Remaining: 299\r\nCache-Control: no-cache, private\r\n"
"""What the service's own answers carry besides."""
_ORIGIN: Final = "<origin>"
_ID: Final = "<id>"
"""These two stand in prepared answers."""
_STATUS: Final = f"{ROOT}request-status/"
_RESULTS: Final = "/results/"
_FILES: Final = "/files/"
"""Unsigned links, as the peers' services give them."""

_DONE: Final = {
    "status": "done",
    "preview": None,
    "result_url": f"{_ORIGIN}{_RESULTS}{_ID}/result.png?{SIGNED}",
    "results_alt_formats": {form: f"{_ORIGIN}{_RESULTS}{_ID}/result.{form}?{SIGNED}" for form in ("jpg", "webp")},
    "result": None,
    "progress": 100.0,
}

# OpenAI: POST videos, GET videos/{id}, GET videos/{id}/content.
_VIDEOS: Final = "/v1/videos"
_VIDEO: Final = {
    "id": _ID,
    "object": "video",
    "created_at": 1_795_000_000,
    "completed_at": None,
    "error": None,
    "expires_at": None,
    "model": "sora-2",
    "progress": 0,
    "prompt": "a fox in snow",
    "remixed_from_video_id": None,
    "seconds": "4",
    "size": "720x1280",
    "status": "queued",
}
_VIDEO_DONE: Final = _VIDEO | {"completed_at": 1_795_000_001, "expires_at": 1_795_086_400, "progress": 100, "status": "completed"}

# Replicate: POST predictions, GET predictions/{id}, its file by a link.
_PREDICTIONS: Final = "/v1/predictions"
_PREDICTION: Final = {
    "id": _ID,
    "model": "black-forest-labs/flux-schnell",
    "version": "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637",
    "input": {"prompt": "a fox in snow", "num_inference_steps": 4, "seed": 7},
    "logs": "",
    "output": None,
    "data_removed": False,
    "error": None,
    "metrics": {},
    "source": "api",
    "status": "starting",
    "created_at": "2026-11-21T12:00:00.000Z",
    "started_at": None,
    "completed_at": None,
    "urls": {key: f"{_ORIGIN}{_PREDICTIONS}/{_ID}{path}" for key, path in (("get", ""), ("cancel", "/cancel"), ("stream", "/stream"))},
}
_PREDICTION_DONE: Final = _PREDICTION | {
    "logs": "Using seed: 7",
    "output": f"{_ORIGIN}{_FILES}{_ID}.png",
    "metrics": {"predict_time": 0.4, "total_time": 0.5},
    "status": "succeeded",
    "started_at": "2026-11-21T12:00:00.100Z",
    "completed_at": "2026-11-21T12:00:00.500Z",
}

# fal: POST the app, GET requests/{id}/status, GET requests/{id}, its file by a link.
_APP: Final = "/fal-ai/flux/schnell"
_REQUESTS: Final = "/fal-ai/flux/requests/"
_QUEUED: Final[dict[str, Any]] = {
    "status": "IN_QUEUE",
    "request_id": _ID,
    "response_url": f"{_ORIGIN}{_REQUESTS}{_ID}",
    "status_url": f"{_ORIGIN}{_REQUESTS}{_ID}/status",
    "cancel_url": f"{_ORIGIN}{_REQUESTS}{_ID}/cancel",
    "logs": None,
    "metrics": {},
    "queue_position": 0,
}
_COMPLETED: Final[dict[str, Any]] = {key: value for key, value in _QUEUED.items() if key != "queue_position"} | {
    "status": "COMPLETED",
    "metrics": {"inference_time": 0.4},
}
_PICTURES: Final = {
    "images": [{"url": f"{_ORIGIN}{_FILES}{_ID}.png", "width": 512, "height": 512, "content_type": "image/png"}],
    "timings": {"inference": 0.4},
    "seed": 7,
    "has_nsfw_concepts": [False],
    "prompt": "a fox in snow",
}


def name_job(number: int) -> str:
    """Give the number of a job the shape of the service's ids: a UUID."""
    return f"{number:08x}-5cda-4a1b-9b6e-0242ac120002"


def answer(method: bytes, target: str, origin: str, name: Callable[[], str]) -> bytes:
    """Answer a request, as it goes over the wire. ``name`` gives the id of a new job."""
    path, _, query = target.partition("?")
    if method == b"POST":
        if path.startswith(ROOT):
            return write(b'{"data": {"request_id": "%b"}}' % name().encode(), more=_LIMITS)
        return _accept(path, origin, name)
    if path.startswith(_STATUS):
        return write(_fill("done", origin, path.removeprefix(_STATUS)), more=_LIMITS)
    if path.startswith(_RESULTS) and query == SIGNED:
        return write(RESULT, kind=b"image/png")
    return _tell(path, origin)


def _accept(path: str, origin: str, name: Callable[[], str]) -> bytes:
    """Answer a submit of a peer."""
    answers = {_VIDEOS: "video", _PREDICTIONS: "prediction", _APP: "queued"}
    return write(_fill(answers[path], origin, name())) if path in answers else write(b"{}", status=b"404 Not Found")


def _tell(path: str, origin: str) -> bytes:
    """Answer what a peer asks of a job."""
    start, _, ending = path.rpartition("/")
    if path.startswith(_FILES) or (start.startswith(_VIDEOS) and ending == "content"):
        return write(RESULT, kind=b"image/png")
    if start == _VIDEOS:
        return write(_fill("video done", origin, ending))
    if start == _PREDICTIONS:
        return write(_fill("prediction done", origin, ending))
    if path.startswith(_REQUESTS) and ending == "status":
        return write(_fill("completed", origin, start.removeprefix(_REQUESTS)))
    if path.startswith(_REQUESTS):
        return write(_fill("pictures", origin, ending))
    return write(b"{}", status=b"404 Not Found")


def write(content: bytes, *, status: bytes = b"200 OK", kind: bytes = b"application/json", more: bytes = b"") -> bytes:
    """Write an answer: its head and its content."""
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, kind, len(content), more, content)


_PREPARED: Final[dict[str, Any]] = {
    "done": {"data": _DONE},
    "video": _VIDEO,
    "video done": _VIDEO_DONE,
    "prediction": _PREDICTION,
    "prediction done": _PREDICTION_DONE,
    "queued": _QUEUED,
    "completed": _COMPLETED,
    "pictures": _PICTURES,
}


def _fill(which: str, origin: str, request_id: str) -> bytes:
    """Put an id into a prepared answer."""
    return _prepare(which, origin).replace(_ID.encode(), request_id.encode())


@cache
def _prepare(which: str, origin: str) -> bytes:
    return json.dumps(_PREPARED[which]).replace(_ORIGIN, origin).encode()


def read_answer(answers: Any) -> int:
    """Read one answer, throw it away, and give its bytes."""
    line = answers.readline()
    if b" 200 " not in line:
        raise ConnectionError(f"The server refuses the raw sender: {line!r}.")
    read, length = len(line), 0
    while line != b"\r\n":
        line = answers.readline()
        read += len(line)
        if line.startswith(b"Content-Length:"):
            length = int(line.partition(b":")[2])
    return read + len(answers.read(length))
