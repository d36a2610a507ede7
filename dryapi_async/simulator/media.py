"""Make a job's results when they are first asked for.

Pictures are drawn, sound is a tone of the asked length. Stand-ins, each served with the content type it really has: WAV
whatever audio format was asked for, an animated GIF for a video, fixed words for transcripts and OCR, and embeddings that
are hashes, so equal texts have equal rows and no two texts are near.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import wave
from array import array
from typing import TYPE_CHECKING, Any

from dryapi_async.simulator import pictures
from dryapi_async.simulator.blobs import Blob, MemoryBlob, PaddedBlob, tiny_picture, write_blob
from dryapi_async.simulator.sniff import measure

if TYPE_CHECKING:
    from pathlib import Path

    from dryapi_async.simulator.jobs import SimJob
    from dryapi_async.simulator.received import ReceivedFile

TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "wav": "audio/wav",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
}
NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image.png", "image.jpg", "image.webp"),
    "cutout": ("image.png", "image.webp"),
    "upscale": ("image.png", "image.jpg", "image.webp"),
    "video": ("video.gif",),
    "speech": ("audio.wav",),
    "music": ("audio.wav",),
    "ocr": ("result.txt",),
    "transcript": ("result.txt",),
    "embedding": ("result.json",),
}
DIMENSIONS = 1024
_SIDE = 512
_SPEECH_RATE, _MUSIC_RATE = 24_000, 8_000
_RATES = (8_000, 48_000)
_SECONDS_A_CHARACTER = 0.06
_SECONDS_MOST = 600.0

_WORDS = "The quick brown fox jumps over the lazy dog. It was seen by the simulator, which hears the same words in every recording."


class Press:
    """Makes results and keeps them: small ones in memory, drawn ones on disk."""

    def __init__(self, folder: Path, *, pictures: bool, result_size: int | None) -> None:
        self._folder = folder
        self._pictures = pictures
        self._result_size = result_size

    def render(self, job: SimJob, name: str) -> Blob | None:
        """Give a result by name, or None where the job has no such one."""
        if name not in NAMES[job.row.result]:
            return None
        blob = job.blobs.get(name)
        if blob is None:
            blob = self._make(job, name)
            job.blobs[name] = blob
        return blob

    def _make(self, job: SimJob, name: str) -> Blob:
        kind = name.rpartition(".")[2]
        if kind in {"txt", "json"}:
            return MemoryBlob(TYPES[kind], text_result(job).encode())
        if not self._pictures:
            small = _tone(0.05, _MUSIC_RATE, job.request_id) if kind == "wav" else tiny_picture(f"{job.request_id} {name}", kind)
            if self._result_size is not None and self._result_size > len(small):
                return PaddedBlob(TYPES[kind], small, self._result_size, job.request_id.encode())
            return MemoryBlob(TYPES[kind], small)
        path = self._folder / f"{job.request_id}.{kind}"
        return write_blob(path, TYPES[kind], self._draw(job, kind))

    def _draw(self, job: SimJob, kind: str) -> bytes:
        if kind == "wav":
            return _speak(job)
        if kind == "gif":
            file = _first(job)
            path = file.path if file is not None and measure(file.head) else None
            return pictures.animate(path, _prompt(job), _size(job), _whole(job, "seed", 0), _whole(job, "fps", 8))
        if kind != "png":
            original = self.render(job, "image.png")
            data = original.read(0, original.size) if original is not None else b""
            return pictures.convert(data, kind)
        file = _first(job)
        path = file.path if file is not None else None
        match job.row.result:
            case "cutout":
                image = pictures.cut_out(path, _size(job))
            case "upscale":
                image = pictures.upscale_picture(path, _size(job))
            case _ if job.files:
                image = pictures.edit_picture(path, _prompt(job), _size(job))
            case _:
                image = pictures.draw_prompt(_prompt(job), *_size(job), _whole(job, "seed", 0))
        return pictures.encode(image, "png")


def _first(job: SimJob) -> ReceivedFile | None:
    for name in ("image", "images", "first_frame_image", "video"):
        if job.files.get(name):
            return job.files[name][0]
    return None


def _whole(job: SimJob, name: str, default: int) -> int:
    value = job.fields.get(name)
    return default if value is None else int(value)


def _prompt(job: SimJob) -> str:
    return str(job.fields.get("prompt") or job.operation)


def _size(job: SimJob) -> tuple[int, int]:
    file = _first(job)
    width, height = (measure(file.head) if file is not None else None) or (_SIDE, _SIDE)
    return _whole(job, "width", width), _whole(job, "height", height)


def _speak(job: SimJob) -> bytes:
    if job.row.result == "music":
        seconds, rate = float(job.fields.get("duration") or 30.0), _MUSIC_RATE
    else:
        rate = min(max(int(job.fields.get("sample_rate") or _SPEECH_RATE), _RATES[0]), _RATES[1])
        seconds = max(0.2, len(str(job.fields.get("text", ""))) * _SECONDS_A_CHARACTER / float(job.fields.get("speed") or 1.0))
    return _tone(min(seconds, _SECONDS_MOST), rate, job.request_id)


def _tone(seconds: float, rate: int, label: str) -> bytes:
    """Make a WAV of exactly that length: one second of a tone (its pitch by the label), repeated."""
    pitch = 220 + hashlib.sha256(label.encode()).digest()[0]
    period = array("h", (int(9000 * math.sin(math.tau * pitch * at / rate)) for at in range(min(rate, max(1, round(seconds * rate))))))
    frames = round(seconds * rate)
    samples = (period * (frames // len(period) + 1))[:frames]
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def text_result(job: SimJob) -> str:
    """Give the text of a text job: worked out once."""
    if job.text is None:
        match job.row.result:
            case "embedding":
                given = job.fields["input"]
                job.text = json.dumps([embed(text) for text in ([given] if isinstance(given, str) else given)], separators=(",", ":"))
            case "ocr":
                job.text = json.dumps({"text": _WORDS}) if job.fields.get("format") == "json" else _WORDS
            case _:
                job.text = _timed(_WORDS) if job.fields.get("include_ts") else _WORDS
    return job.text


def _timed(words: str) -> str:
    lines = words.replace(". ", ".\n").split("\n")
    return "\n".join(f"[00:00:{3 * index:02}.000 --> 00:00:{3 * index + 3:02}.000] {line}" for index, line in enumerate(lines))


def embed(text: str) -> list[float]:
    """Give a text's row: 1,024 numbers of length one, the same for the same text."""
    raw: tuple[Any, ...] = struct.unpack(f"<{DIMENSIONS}h", hashlib.shake_256(text.encode("utf-8", "replace")).digest(DIMENSIONS * 2))
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [round(value / length, 8) for value in raw]
