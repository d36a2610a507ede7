"""Everything about speech and music."""

from typing import ClassVar, Literal

from attrs import field, frozen

from dryapi_async.operations.base import JobOperation, file_field, show_sources
from dryapi_async.operations.results import Audio
from dryapi_async.protocol.endpoint import Endpoint, Price, job
from dryapi_async.protocol.files import Source


@frozen(kw_only=True, eq=False, repr=False)
class Txt2Audio(JobOperation[Audio]):
    """Say a text. Language, voice, speed, format and sample rate come from the model (``client.models()``: languages, defaults).

    ``.price(count_text=<characters>)`` sends no text.
    """

    endpoint: ClassVar[Endpoint] = job(
        "txt2audio",
        body="multipart",
        price=Price(
            body="json",
            fields=frozenset({"text", "model", "mode", "voice", "lang", "speed", "format", "sample_rate", "instruct"}),
            measures=("count_text",),
            replaces=("text",),
        ),
    )
    result_type: ClassVar[type[Audio]] = Audio

    text: str
    """What to say; the model limits its length."""
    model: str
    """The model's slug, such as ``Kokoro``."""
    lang: str
    """The language's slug, from the model's list."""
    speed: float
    """1 is the voice's own."""
    format: str
    """Such as ``mp3``, from the model's ``output_formats``."""
    sample_rate: float
    """Hertz, such as 24000."""
    mode: Literal["custom_voice", "voice_clone", "voice_design"] | None = None
    """``custom_voice`` takes ``voice``, ``voice_clone`` takes ``ref_audio``, ``voice_design`` takes ``instruct``."""
    voice: str | None = None
    """The voice's slug, from the model's list."""
    ref_audio: Source | None = field(default=None, metadata=file_field("audio"), repr=show_sources)
    """A recording of the voice: MP3, WAV, FLAC, OGG, M4A, at most 10 MB, 3-10 s."""
    ref_text: str | None = None
    """What is said in it."""
    instruct: str | None = None
    """How the voice is to be, in words."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class Txt2Music(JobOperation[Audio]):
    """Make music from a description and lyrics. The model's limits are narrower than the ranges here (``client.models()``)."""

    endpoint: ClassVar[Endpoint] = job(
        "txt2music", body="multipart", price=Price(body="json", fields=frozenset({"model", "duration", "inference_steps"}))
    )
    result_type: ClassVar[type[Audio]] = Audio

    caption: str
    """What it is to sound like."""
    model: str
    """The model's slug, such as ``ACE-Step-v1.5-turbo``."""
    duration: float
    """Seconds, 10-600."""
    inference_steps: int
    """1-100: 8 for a turbo model, 32 or more for a base one."""
    guidance_scale: float
    """0-20: how strictly the description is followed; turbo models want 1."""
    seed: int
    """-1 draws a random one."""
    format: str
    """``mp3``, ``wav`` or ``flac``; turbo models make ``mp3``."""
    lyrics: str = "[Instrumental]"
    """What is sung; the default is none."""
    bpm: int | None = None
    """Beats a minute, 30-300."""
    keyscale: str | None = None
    """Such as ``C major``."""
    timesignature: int | None = None
    """2, 3, 4 or 6."""
    vocal_language: str | None = None
    """A code such as ``en``."""
    reference_audio: Source | None = field(default=None, metadata=file_field("audio"), repr=show_sources)
    """Music to follow: MP3, WAV, FLAC, OGG, M4A, at most 10 MB."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""
