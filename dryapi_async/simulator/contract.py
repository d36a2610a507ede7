"""The simulator's own table of the wire contract: one row per operation, 47 in all.

A row's fields are written in one line, ``name<mark> kind[?]``, separated by commas. ``?`` means nullable. Marks:

* ``*`` required, as the document says
* ``~`` required by the document, but the live service takes requests without it
* ``!`` optional in the document, but asked for in practice (with ``?``: the key must be there, null is fine)
* ``+`` not in the document, known from the live service

Kinds: str, str>=3, int, num, bool, enum(a|b), webhook, image, images, audio, video, loras, text (a string or a list of strings).
"""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

Action = Literal["job", "price", "prompt", "sample", "balance", "models", "status"]
Result = Literal["image", "cutout", "upscale", "ocr", "video", "speech", "music", "transcript", "embedding", ""]
Body = Literal["json", "form", "none"]

PRICE = "/price-calculation"
FILE_KINDS = frozenset({"image", "images", "audio", "video"})

_FIELD = re.compile(
    r"(?P<name>[a-z_]+(?:\[\])?)(?P<mark>[*~!+]?) (?P<kind>[a-z]+)(?:>=(?P<least>\d+))?(?:\((?P<words>[^)]*)\))?(?P<null>\??)"
)


@frozen
class Field:
    """One field of a request, as the document has it and as the live service takes it."""

    name: str
    kind: str
    mark: str
    nullable: bool
    least: int = 0
    words: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether the service refuses a request without it."""
        return self.mark in {"*", "!"}

    @property
    def required_by_document(self) -> bool:
        """Whether the service's own document lists it as required."""
        return self.mark in {"*", "~"}


@frozen
class Operation:
    """One row: a path under ``/api/v1/client/`` with its method, body kind, fields and kind of answer."""

    slug: str
    method: str
    body: Body
    fields: dict[str, Field]
    action: Action
    result: Result = ""
    model_type: str = ""
    title: str = ""
    either: tuple[tuple[str, ...], ...] = ()
    """Groups of fields of which one must be there in full (a file, or its measures)."""

    @property
    def job_slug(self) -> str:
        """The operation that a price row is the price of."""
        return self.slug.removesuffix(PRICE)


def parse_fields(text: str) -> dict[str, Field]:
    """Read a row's fields, in order, keyed by their name without ``[]``."""
    fields: dict[str, Field] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = _FIELD.fullmatch(part)
        if found is None:
            raise ValueError(f"not a field of the table: {part!r}")
        words = tuple(found["words"].split("|")) if found["words"] else ()
        name = found["name"].removesuffix("[]")
        fields[name] = Field(name, found["kind"], found["mark"], found["null"] == "?", int(found["least"] or 0), words)
    return fields


_WEBHOOK = ", webhook_url webhook?"
_INLINE = ", return_result_in_response bool?" + _WEBHOOK
_TXT2IMG = "prompt* str, negative_prompt str?, model* str, loras loras, width* int, height* int, guidance~ num, steps~ int, seed* int"
_IMG2IMG = "prompt* str, negative_prompt str?, model* str, loras loras, guidance num, steps* int, seed* int"
_VIDEO = "prompt* str, negative_prompt str?, width* int, height* int, guidance~ num, steps* int, frames* int, seed* int, model* str"
_VIDEO_PRICE = "width* int, height* int, steps* int, frames* int, fps int, model* str"
_SPEECH = "model* str, mode enum(custom_voice|voice_clone|voice_design)?, voice str?, lang* str, speed* num, format* str, sample_rate* num"
_OCR = "image* image, model* str, language str?, format enum(text|json)?"
_MEASURED = "image image, width int, height int, model* str"
_MEASURED_VIDEO = "video video, width int, height int, model* str"
_SECONDS = "duration_seconds int, include_ts* bool, model str"
_PROMPT = "prompt! str>=3, negative_prompt! str>=3?"

_FILE_OR_SIZE = (("image",), ("width", "height"))
_VIDEO_OR_SIZE = (("video",), ("width", "height"))


def _pair(  # noqa: PLR0913 - the columns of the table
    slug: str,
    title: str,
    result: Result,
    job: tuple[Body, str],
    price: tuple[Body, str],
    *,
    model_type: str = "",
    job_either: tuple[tuple[str, ...], ...] = (),
    price_either: tuple[tuple[str, ...], ...] = (),
) -> list[Operation]:
    """Make the two rows of a job: its submit and its price."""
    word = model_type or slug
    return [
        Operation(slug, "POST", job[0], parse_fields(job[1]), "job", result, word, title, job_either),
        Operation(slug + PRICE, "POST", price[0], parse_fields(price[1]), "price", result, word, title, price_either),
    ]


def _prompt(slug: str, body: Body, fields: str, price_fields: str, title: str) -> list[Operation]:
    """Make the two rows of a prompt tool, which answers at once."""
    return [
        Operation(slug, "POST", body, parse_fields(fields), "prompt", title=title),
        Operation(slug + PRICE, "POST", body, parse_fields(price_fields), "price", title=title),
    ]


_SAMPLES = "type* enum(text2image|text2speech), topic str?, lang_code str?"

_ROWS: list[Operation] = [
    *_pair("txt2img", "Text To Image", "image", ("json", _TXT2IMG + _WEBHOOK), ("json", _TXT2IMG)),
    *_pair(
        "img2img",
        "Image To Image",
        "image",
        ("form", _IMG2IMG + ", image image, images[] images, width int?, height int?" + _WEBHOOK),
        ("json", _IMG2IMG),
        job_either=(("image",), ("images",)),
    ),
    *_pair(
        "img-rmbg",
        "Image Background Removal",
        "cutout",
        ("form", "image* image, model* str" + _WEBHOOK),
        ("form", _MEASURED),
        price_either=_FILE_OR_SIZE,
    ),
    *_pair(
        "img-upscale",
        "Image Upscale",
        "upscale",
        ("form", "image* image, model* str" + _WEBHOOK),
        ("form", _MEASURED),
        price_either=_FILE_OR_SIZE,
    ),
    *_pair(
        "img2txt",
        "Image To Text",
        "ocr",
        ("form", _OCR + _INLINE),
        ("form", _MEASURED + ", language str?, format enum(text|json)?"),
        price_either=_FILE_OR_SIZE,
    ),
    *_pair("txt2video", "Text To Video", "video", ("json", _VIDEO + ", fps! int" + _WEBHOOK), ("json", _VIDEO_PRICE)),
    *_pair(
        "img2video",
        "Image To Video",
        "video",
        ("form", _VIDEO.replace("steps*", "steps~") + ", fps int, first_frame_image* image, last_frame_image image?" + _WEBHOOK),
        ("json", _VIDEO_PRICE.replace("steps*", "steps~")),
    ),
    *_pair(
        "aud2video",
        "Audio To Video",
        "video",
        (
            "form",
            "prompt* str, negative_prompt str?, audio* audio, first_frame_image image?, last_frame_image image?, width* int, height* int,"
            " guidance num, steps int, frames* int, fps int, seed* int, model* str" + _WEBHOOK,
        ),
        ("json", _VIDEO_PRICE.replace("steps*", "steps")),
    ),
    *_pair(
        "vid-rmbg",
        "Video Background Removal",
        "video",
        ("form", "video* video, model* str" + _WEBHOOK),
        ("form", _MEASURED_VIDEO + ", duration+ num"),
        price_either=_VIDEO_OR_SIZE,
    ),
    *_pair(
        "vid-upscale",
        "Video Upscale",
        "video",
        ("form", "video* video, model* str, scale+ int?" + _WEBHOOK),
        ("form", _MEASURED_VIDEO + ", scale+ int?, duration+ num"),
        price_either=_VIDEO_OR_SIZE,
    ),
    *_pair(
        "txt2audio",
        "Text To Audio",
        "speech",
        ("form", "text* str, " + _SPEECH + ", ref_audio audio?, ref_text str?, instruct str?" + _WEBHOOK),
        ("json", "text str?, count_text int?, " + _SPEECH + ", instruct str?"),
        price_either=(("text",), ("count_text",)),
    ),
    *_pair(
        "txt2music",
        "Text To Music",
        "music",
        (
            "form",
            "caption* str, model* str, lyrics~ str, duration* num, bpm int?, keyscale str?, timesignature int?, vocal_language str?,"
            " inference_steps* int, guidance_scale* num, seed* int, format* str, reference_audio audio?" + _WEBHOOK,
        ),
        ("json", "model* str, duration* num, inference_steps* int"),
    ),
    *_pair(
        "vid2txt",
        "Video To Text",
        "transcript",
        ("json", "video_url* str, include_ts* bool, model! str" + _INLINE),
        ("json", "video_url~ str, duration_seconds+ num, include_ts* bool, model str"),
        model_type="video2text",
        price_either=(("video_url",), ("duration_seconds",)),
    ),
    *_pair(
        "videofile2txt",
        "Video File To Text",
        "transcript",
        ("form", "video* video, include_ts* bool, model! str" + _INLINE),
        ("form", "video video, " + _SECONDS),
        model_type="video_file2text",
        price_either=(("video",), ("duration_seconds",)),
    ),
    *_pair(
        "aud2txt",
        "Audio To Text",
        "transcript",
        ("json", "audio_url* str, include_ts* bool, model* str" + _INLINE),
        ("json", "audio_url str, duration_seconds num, include_ts* bool, model* str"),
        model_type="audio2text",
        price_either=(("audio_url",), ("duration_seconds",)),
    ),
    *_pair(
        "audiofile2txt",
        "Audio File To Text",
        "transcript",
        ("form", "audio* audio, include_ts* bool, model! str" + _INLINE),
        ("form", "audio audio, " + _SECONDS),
        model_type="audio_file2text",
        price_either=(("audio",), ("duration_seconds",)),
    ),
    *_pair(
        "txt2embedding",
        "Text To Embedding",
        "embedding",
        ("json", "input* text, model* str" + _INLINE),
        ("json", "input* text, model* str"),
    ),
    *_prompt("prompt/image", "json", _PROMPT, _PROMPT, "Image prompt"),
    *_prompt("prompt/video", "form", _PROMPT + ", image image?", _PROMPT + ", image image?", "Video prompt"),
    *_prompt("prompt/speech", "json", "prompt! str>=3, lang_code str?", "prompt! str>=3, lang_code str?", "Speech prompt"),
    *_prompt("prompt/image2image", "form", _PROMPT + ", image! image", _PROMPT + ", image image", "Image edit prompt"),
    Operation("prompts/samples", "GET", "none", parse_fields(_SAMPLES), "sample"),
    Operation("prompts/samples" + PRICE, "GET", "none", parse_fields(_SAMPLES), "price"),
    Operation("balance", "GET", "none", {}, "balance"),
    Operation("models", "GET", "none", parse_fields("per_page int, page int, limit+ int"), "models"),
    Operation("request-status", "GET", "none", {}, "status"),
]

OPERATIONS: dict[str, Operation] = {row.slug: row for row in _ROWS}

WHISPER = frozenset({"vid2txt", "videofile2txt", "aud2txt", "audiofile2txt"})
