"""Everything about films. Frames: JPG, PNG, GIF, BMP, WebP, 10 MB each; input films: MP4, MPEG, MOV, AVI, WMV, OGG (the service judges)."""

from typing import ClassVar, Final

from attrs import field, frozen

from dryapi_async.operations.base import JobOperation, file_field, show_sources
from dryapi_async.operations.results import Video
from dryapi_async.protocol.endpoint import Endpoint, Price, job
from dryapi_async.protocol.files import Source

_BY_FRAMES: Final = Price(body="json", fields=frozenset({"width", "height", "steps", "frames", "fps", "model"}))


@frozen(kw_only=True, eq=False, repr=False)
class Txt2Video(JobOperation[Video]):
    """Make a film from words. Look the model up first (``client.models()``): frames, fps and steps have narrow limits per model."""

    endpoint: ClassVar[Endpoint] = job("txt2video", body="json", price=_BY_FRAMES)
    result_type: ClassVar[type[Video]] = Video

    prompt: str
    """What is to be seen."""
    model: str
    """The model's slug, such as ``Ltxv_13B_0_9_8_Distilled_FP8``."""
    width: int
    """Pixels; the model's limits and step apply."""
    height: int
    """Pixels; the model's limits and step apply."""
    frames: int
    """How many frames; with ``fps`` this is the length."""
    seed: int
    """The same seed and request make the same film; -1 draws a random one."""
    fps: int | None = None
    """Frames a second. The document calls it optional, the live service wants it; no default is guessed."""
    steps: int | None = None
    """Inference steps, within the model's limits."""
    guidance: float | None = None
    """How strictly the prompt is followed; leave it out for models without ``supports_guidance``."""
    negative_prompt: str | None = None
    """What to keep out, for models that support it."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class Img2Video(JobOperation[Video]):
    """Make a film from a picture and words. Look the model up first (``client.models()``)."""

    endpoint: ClassVar[Endpoint] = job("img2video", body="multipart", price=_BY_FRAMES)
    result_type: ClassVar[type[Video]] = Video

    prompt: str
    """What is to be seen."""
    model: str
    """The model's slug, such as ``Ltxv_13B_0_9_8_Distilled_FP8``."""
    width: int
    """Pixels; the model's limits and step apply."""
    height: int
    """Pixels; the model's limits and step apply."""
    frames: int
    """How many frames; with ``fps`` this is the length."""
    seed: int
    """The same seed and request make the same film; -1 draws a random one."""
    first_frame_image: Source = field(metadata=file_field("image"), repr=show_sources)
    """The picture to begin with, at most 10 MB."""
    fps: int | None = None
    """Frames a second. The document calls it optional, the live service wants it; no default is guessed."""
    steps: int | None = None
    """Inference steps, within the model's limits."""
    guidance: float | None = None
    """How strictly the prompt is followed; leave it out for models without ``supports_guidance``."""
    negative_prompt: str | None = None
    """What to keep out, for models that support it."""
    last_frame_image: Source | None = field(default=None, metadata=file_field("image"), repr=show_sources)
    """The picture to end with, for models with ``supports_last_frame``."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class Aud2Video(JobOperation[Video]):
    """Make a film that follows a sound. Look the model up first (``client.models()``)."""

    endpoint: ClassVar[Endpoint] = job("aud2video", body="multipart", price=_BY_FRAMES)
    result_type: ClassVar[type[Video]] = Video

    prompt: str
    """What is to be seen."""
    model: str
    """The model's slug, such as ``Ltx2_19B_Dist_FP8``."""
    width: int
    """Pixels; the model's limits and step apply."""
    height: int
    """Pixels; the model's limits and step apply."""
    frames: int
    """How many frames; with ``fps`` this is the length."""
    seed: int
    """The same seed and request make the same film; -1 draws a random one."""
    audio: Source = field(metadata=file_field("audio"), repr=show_sources)
    """The sound: MP3, WAV, OGG, FLAC, at most 20 MB."""
    fps: int | None = None
    """Frames a second. The document calls it optional, the live service wants it; no default is guessed."""
    steps: int | None = None
    """Inference steps, within the model's limits."""
    guidance: float | None = None
    """How strictly the prompt is followed; leave it out for models without ``supports_guidance``."""
    negative_prompt: str | None = None
    """What to keep out, for models that support it."""
    first_frame_image: Source | None = field(default=None, metadata=file_field("image"), repr=show_sources)
    """The picture to begin with, at most 10 MB."""
    last_frame_image: Source | None = field(default=None, metadata=file_field("image"), repr=show_sources)
    """The picture to end with, for models with ``supports_last_frame``."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class VidUpscale(JobOperation[Video]):
    """Make a film larger. ``.price(width=..., height=..., duration=...)`` uploads nothing; without the duration it may come back 0."""

    endpoint: ClassVar[Endpoint] = job(
        "vid-upscale", body="multipart", price=Price(body="multipart", measures=("width", "height", "duration"), replaces=("video",))
    )
    result_type: ClassVar[type[Video]] = Video

    video: Source = field(metadata=file_field("video"), repr=show_sources)
    """The film: MP4, MPEG, MOV, AVI, WMV, OGG."""
    model: str
    """The model's slug."""
    scale: int | None = None
    """1-16, only for models with a configurable scale; known to the newer v1."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class VidRmbg(JobOperation[Video]):
    """Cut the background out of a film. No model of 2026 does it. ``.price(width=..., height=...)`` uploads nothing."""

    endpoint: ClassVar[Endpoint] = job(
        "vid-rmbg", body="multipart", price=Price(body="multipart", measures=("width", "height"), replaces=("video",))
    )
    result_type: ClassVar[type[Video]] = Video

    video: Source = field(metadata=file_field("video"), repr=show_sources)
    """The film: MP4, MPEG, MOV, AVI, WMV, OGG."""
    model: str
    """The model's slug."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""
