"""Recordings become text. The four operations share one rate limit, named after Whisper."""

from typing import ClassVar

from attrs import field, frozen

from dryapi_async.operations.base import JobOperation, file_field, show_sources
from dryapi_async.operations.results import Transcript
from dryapi_async.protocol.endpoint import WHISPER_LANE, Endpoint, Price, job
from dryapi_async.protocol.files import Source


@frozen(kw_only=True, eq=False, repr=False)
class Vid2Txt(JobOperation[Transcript]):
    """Write down what is said in a film on the web. ``.price(duration_seconds=...)`` asks without its address."""

    endpoint: ClassVar[Endpoint] = job(
        "vid2txt", body="json", lane=WHISPER_LANE, price=Price(body="json", measures=("duration_seconds",), replaces=("video_url",))
    )
    result_type: ClassVar[type[Transcript]] = Transcript

    video_url: str
    """A page on YouTube, X, Twitch, Kick or TikTok."""
    include_ts: bool
    """Whether the transcript has time stamps."""
    model: str | None = None
    """The model's slug, such as ``WhisperLargeV3``. The document calls it optional, the live service wants it."""
    return_result_in_response: bool | None = None
    """Have the status carry the result itself, beside the link."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class VideoFile2Txt(JobOperation[Transcript]):
    """Write down what is said in a film. ``.price(duration_seconds=...)`` uploads nothing."""

    endpoint: ClassVar[Endpoint] = job(
        "videofile2txt",
        body="multipart",
        lane=WHISPER_LANE,
        price=Price(body="multipart", measures=("duration_seconds",), replaces=("video",)),
    )
    result_type: ClassVar[type[Transcript]] = Transcript

    video: Source = field(metadata=file_field("video"), repr=show_sources)
    """The film, with a sound track: MP4, MPEG, MOV, AVI, WMV, OGG."""
    include_ts: bool
    """Whether the transcript has time stamps."""
    model: str | None = None
    """The model's slug, such as ``WhisperLargeV3``. The document calls it optional, the live service wants it."""
    return_result_in_response: bool | None = None
    """Have the status carry the result itself, beside the link."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class Aud2Txt(JobOperation[Transcript]):
    """Write down what is said in an X (Twitter) Space. ``.price(duration_seconds=...)`` asks without its address."""

    endpoint: ClassVar[Endpoint] = job(
        "aud2txt", body="json", lane=WHISPER_LANE, price=Price(body="json", measures=("duration_seconds",), replaces=("audio_url",))
    )
    result_type: ClassVar[type[Transcript]] = Transcript

    audio_url: str
    """The Space's address; no other pages are taken."""
    include_ts: bool
    """Whether the transcript has time stamps."""
    model: str
    """The model's slug, such as ``WhisperLargeV3``."""
    return_result_in_response: bool | None = None
    """Have the status carry the result itself, beside the link."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class AudioFile2Txt(JobOperation[Transcript]):
    """Write down what is said in a recording. ``.price(duration_seconds=...)`` uploads nothing."""

    endpoint: ClassVar[Endpoint] = job(
        "audiofile2txt",
        body="multipart",
        lane=WHISPER_LANE,
        price=Price(body="multipart", measures=("duration_seconds",), replaces=("audio",)),
    )
    result_type: ClassVar[type[Transcript]] = Transcript

    audio: Source = field(metadata=file_field("audio"), repr=show_sources)
    """The recording: AAC, MP3, OGG, WAV, WebM, FLAC."""
    include_ts: bool
    """Whether the transcript has time stamps."""
    model: str | None = None
    """The model's slug, such as ``WhisperLargeV3``. The document calls it optional, the live service wants it."""
    return_result_in_response: bool | None = None
    """Have the status carry the result itself, beside the link."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""
