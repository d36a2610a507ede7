"""Tools that improve a prompt. They are billed and answer at once; deAPI retired them in August 2026 and answers 410."""

from typing import ClassVar, Literal

from attrs import field, frozen

from dryapi_async.errors import ResponseError
from dryapi_async.operations.base import InstantOperation, Reader, file_field, sent_always, show_sources
from dryapi_async.protocol.endpoint import Endpoint, prompt_tool
from dryapi_async.protocol.files import Source
from dryapi_async.protocol.status import excerpt, read_text, unwrap
from dryapi_async.protocol.untyped import is_object
from dryapi_async.values import Value


@frozen(kw_only=True, eq=False, repr=False)
class EnhancedPrompt(Value):
    """A better prompt."""

    prompt: str
    negative_prompt: str | None = None


@frozen(kw_only=True, eq=False, repr=False)
class SamplePrompt(Value):
    """A prompt to start from."""

    prompt: str
    type: str | None = None


def read_enhanced(body: object) -> EnhancedPrompt:
    """Read an improved prompt, on top or in ``data``.

    Raises:
        ResponseError: There is none.
    """
    inner = unwrap(body)
    prompt = inner.get("prompt") if is_object(inner) else None
    if not is_object(inner) or not isinstance(prompt, str):
        raise ResponseError(f"The answer has no prompt; check base_url. It begins: {excerpt(body)}", excerpt=excerpt(body))
    return EnhancedPrompt(prompt=prompt, negative_prompt=read_text(inner.get("negative_prompt")))


def read_sample(body: object) -> SamplePrompt:
    """Read a sample prompt, on top or in ``data``."""
    inner = unwrap(body)
    return SamplePrompt(prompt=read_enhanced(body).prompt, type=read_text(inner.get("type")))


@frozen(kw_only=True, eq=False, repr=False)
class PromptImage(InstantOperation[EnhancedPrompt]):
    """Improve a prompt for `Txt2Img`. Billed; sent at most once."""

    endpoint: ClassVar[Endpoint] = prompt_tool("prompt/image", body="json")
    read_answer: ClassVar[Reader] = staticmethod(read_enhanced)

    prompt: str
    """At least 3 characters."""
    negative_prompt: str | None = field(default=None, metadata=sent_always())
    """At least 3 characters; sent even when it is nothing, as the service wants it."""


@frozen(kw_only=True, eq=False, repr=False)
class PromptVideo(InstantOperation[EnhancedPrompt]):
    """Improve a prompt for `Txt2Video` or `Img2Video`. Billed; sent at most once."""

    endpoint: ClassVar[Endpoint] = prompt_tool("prompt/video", body="multipart")
    read_answer: ClassVar[Reader] = staticmethod(read_enhanced)

    prompt: str
    """At least 3 characters."""
    negative_prompt: str | None = field(default=None, metadata=sent_always())
    """At least 3 characters; sent even when it is nothing, as the service wants it."""
    image: Source | None = field(default=None, metadata=file_field("image"), repr=show_sources)
    """The picture to start from: JPEG, PNG, BMP, GIF, SVG, WebP."""


@frozen(kw_only=True, eq=False, repr=False)
class PromptSpeech(InstantOperation[EnhancedPrompt]):
    """Improve a text for `Txt2Audio`. Billed; sent at most once."""

    endpoint: ClassVar[Endpoint] = prompt_tool("prompt/speech", body="json")
    read_answer: ClassVar[Reader] = staticmethod(read_enhanced)

    prompt: str
    """At least 3 characters."""
    lang_code: str | None = None
    """Such as ``en``."""


@frozen(kw_only=True, eq=False, repr=False)
class PromptImage2Image(InstantOperation[EnhancedPrompt]):
    """Improve a prompt for `Img2Img`. Billed; sent at most once."""

    endpoint: ClassVar[Endpoint] = prompt_tool("prompt/image2image", body="multipart")
    read_answer: ClassVar[Reader] = staticmethod(read_enhanced)

    prompt: str
    """At least 3 characters."""
    image: Source = field(metadata=file_field("image"), repr=show_sources)
    """The picture to start from: JPEG, PNG, BMP, GIF, SVG, WebP."""
    negative_prompt: str | None = field(default=None, metadata=sent_always())
    """At least 3 characters; sent even when it is nothing, as the service wants it."""


@frozen(kw_only=True, eq=False, repr=False)
class PromptSamples(InstantOperation[SamplePrompt]):
    """Ask for a prompt to start from. Billed though it is a GET; sent at most once."""

    endpoint: ClassVar[Endpoint] = prompt_tool("prompts/samples", body="query", method="GET")
    read_answer: ClassVar[Reader] = staticmethod(read_sample)

    type: Literal["text2image", "text2speech"]
    """What the prompt is for."""
    topic: str | None = None
    """What it is about, at most 500 characters."""
    lang_code: str | None = None
    """Such as ``en``, at most 4 characters."""
