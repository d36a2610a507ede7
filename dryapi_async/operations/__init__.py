"""The service's API, said once: a class for each request, a class for each kind of result."""

from typing import Any, Final

from dryapi_async.operations.account import Balance, ListModels, Model, ModelPage, ReadBalance, ReadStatus
from dryapi_async.operations.audio import Txt2Audio, Txt2Music
from dryapi_async.operations.base import InstantOperation, JobOperation, Lora, Operation
from dryapi_async.operations.images import Img2Img, Img2Txt, ImgRmbg, ImgUpscale, Txt2Img
from dryapi_async.operations.prompts import (
    EnhancedPrompt,
    PromptImage,
    PromptImage2Image,
    PromptSamples,
    PromptSpeech,
    PromptVideo,
    SamplePrompt,
)
from dryapi_async.operations.results import Audio, Embedding, Image, Text, Transcript, Video
from dryapi_async.operations.text import Txt2Embedding
from dryapi_async.operations.transcripts import Aud2Txt, AudioFile2Txt, Vid2Txt, VideoFile2Txt
from dryapi_async.operations.videos import Aud2Video, Img2Video, Txt2Video, VidRmbg, VidUpscale

__all__ = [
    "ALL",
    "JOBS",
    "Aud2Txt",
    "Aud2Video",
    "Audio",
    "AudioFile2Txt",
    "Balance",
    "Embedding",
    "EnhancedPrompt",
    "Image",
    "Img2Img",
    "Img2Txt",
    "Img2Video",
    "ImgRmbg",
    "ImgUpscale",
    "InstantOperation",
    "JobOperation",
    "ListModels",
    "Lora",
    "Model",
    "ModelPage",
    "Operation",
    "PromptImage",
    "PromptImage2Image",
    "PromptSamples",
    "PromptSpeech",
    "PromptVideo",
    "ReadBalance",
    "ReadStatus",
    "SamplePrompt",
    "Text",
    "Transcript",
    "Txt2Audio",
    "Txt2Embedding",
    "Txt2Img",
    "Txt2Music",
    "Txt2Video",
    "Vid2Txt",
    "VidRmbg",
    "VidUpscale",
    "Video",
    "VideoFile2Txt",
    "job_class",
]

JOBS: Final[tuple[type[JobOperation[Any]], ...]] = (
    Txt2Img,
    Img2Img,
    ImgUpscale,
    ImgRmbg,
    Img2Txt,
    Txt2Video,
    Img2Video,
    Aud2Video,
    VidUpscale,
    VidRmbg,
    Txt2Audio,
    Txt2Music,
    Vid2Txt,
    VideoFile2Txt,
    Aud2Txt,
    AudioFile2Txt,
    Txt2Embedding,
)
"""The 17 that make paid jobs."""

ALL: Final[tuple[type[Operation[Any]], ...]] = (
    *JOBS,
    PromptImage,
    PromptVideo,
    PromptSpeech,
    PromptImage2Image,
    PromptSamples,
    ReadBalance,
    ListModels,
    ReadStatus,
)
"""Every request class: 25."""


def job_class(slug: str) -> type[JobOperation[Any]] | None:
    """Find the class that makes jobs under a slug."""
    return next((one for one in JOBS if one.endpoint.slug == slug), None)
