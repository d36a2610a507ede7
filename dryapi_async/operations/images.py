"""Everything about images. Formats that are taken: JPG, PNG, GIF, BMP, WebP, 10 MB each (the service judges)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from attrs import field, frozen

from dryapi_async.errors import InputError
from dryapi_async.operations.base import JobOperation, Lora, file_field, show_sources
from dryapi_async.operations.results import Image, Text
from dryapi_async.protocol.endpoint import Endpoint, Price, job
from dryapi_async.protocol.files import Source


@frozen(kw_only=True, eq=False, repr=False)
class Txt2Img(JobOperation[Image]):
    """Make a picture from words.

    Look the model up first (``client.models()``): sizes, steps and guidance have limits per model. Leave LoRAs out of first tries.
    """

    endpoint: ClassVar[Endpoint] = job("txt2img", body="json", price=Price(body="json"))
    result_type: ClassVar[type[Image]] = Image

    prompt: str
    """What to draw."""
    model: str
    """The model's slug, such as ``Flux1schnell``."""
    width: int
    """Pixels; the model's limits and step apply."""
    height: int
    """Pixels; the model's limits and step apply."""
    seed: int
    """The same seed and request draw the same picture; -1 draws a random one."""
    steps: int | None = None
    """Inference steps; the schema wants them, models without ``supports_steps`` don't."""
    guidance: float | None = None
    """How strictly the prompt is followed; leave it out for models without ``supports_guidance``."""
    negative_prompt: str | None = None
    """What to keep out, for models that support it."""
    loras: Sequence[Lora] = ()
    """Style weights, from the model's own list."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class Img2Img(JobOperation[Image]):
    """Make a picture from one or more pictures and words: exactly one of ``image`` and ``images``.

    Look the model up first (``client.models()``): it limits how many pictures it takes (``max_input_images``, 1 when absent).
    """

    endpoint: ClassVar[Endpoint] = job(
        "img2img",
        body="multipart",
        price=Price(body="json", fields=frozenset({"prompt", "negative_prompt", "model", "loras", "guidance", "steps", "seed"})),
    )
    result_type: ClassVar[type[Image]] = Image

    prompt: str
    """What to make of it."""
    model: str
    """The model's slug, such as ``QwenImageEdit_Plus_NF4``."""
    steps: int
    """Inference steps."""
    seed: int
    """The same seed and request draw the same picture; -1 draws a random one."""
    image: Source | None = field(default=None, metadata=file_field("image"), repr=show_sources)
    """The picture to start from: a path, bytes, a binary file, or ``File(...)``."""
    images: Sequence[Source] | None = field(default=None, metadata=file_field("image", name="images[]"), repr=show_sources)
    """Several pictures, for models that take more than one."""
    guidance: float | None = None
    """How strictly the prompt is followed."""
    negative_prompt: str | None = None
    """What to keep out, for models that support it."""
    width: int | None = None
    """Pixels; by default the first picture's."""
    height: int | None = None
    """Pixels; by default the first picture's."""
    loras: Sequence[Lora] = ()
    """Style weights, from the model's own list."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""

    def check(self) -> None:
        """Take exactly one of image and images."""
        if (self.image is None) == (not self.images):
            given = "both" if self.images else "neither"
            raise InputError(f"Img2Img takes exactly one of image and images, and got {given}: give image=... or images=[...].")


_BY_SIZE = Price(body="multipart", measures=("width", "height"), replaces=("image",))


@frozen(kw_only=True, eq=False, repr=False)
class ImgRmbg(JobOperation[Image]):
    """Cut the background out of a picture. ``.price(width=..., height=...)`` uploads nothing."""

    endpoint: ClassVar[Endpoint] = job("img-rmbg", body="multipart", price=_BY_SIZE)
    result_type: ClassVar[type[Image]] = Image

    image: Source = field(metadata=file_field("image"), repr=show_sources)
    """The picture: a path, bytes, a binary file, or ``File(...)``."""
    model: str
    """The model's slug, such as ``Ben2``."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class ImgUpscale(JobOperation[Image]):
    """Make a picture larger; the model fixes the factor. ``.price(width=..., height=...)`` uploads nothing."""

    endpoint: ClassVar[Endpoint] = job("img-upscale", body="multipart", price=_BY_SIZE)
    result_type: ClassVar[type[Image]] = Image

    image: Source = field(metadata=file_field("image"), repr=show_sources)
    """The picture: a path, bytes, a binary file, or ``File(...)``."""
    model: str
    """The model's slug, such as ``RealESRGAN_x4plus``."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""


@frozen(kw_only=True, eq=False, repr=False)
class Img2Txt(JobOperation[Text]):
    """Read what is written in a picture (OCR). ``.price(width=..., height=...)`` uploads nothing."""

    endpoint: ClassVar[Endpoint] = job("img2txt", body="multipart", price=_BY_SIZE)
    result_type: ClassVar[type[Text]] = Text

    image: Source = field(metadata=file_field("image"), repr=show_sources)
    """The picture: a path, bytes, a binary file, or ``File(...)``."""
    model: str
    """The model's slug, such as ``Nanonets_Ocr_S_F16``."""
    language: str | None = None
    """A code such as ``en``."""
    format: Literal["text", "json"] | None = None
    """What the text is."""
    return_result_in_response: bool | None = None
    """Have the status carry the result itself, beside the link."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""
