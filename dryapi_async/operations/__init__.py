"""The service's API, said once: a class for each request, a class for each kind of result."""

from typing import Any, Final, cast

from dryapi_async.operations.base import JobOperation, Lora, Operation
from dryapi_async.operations.images import Img2Img, Txt2Img
from dryapi_async.operations.results import Image

__all__ = ["ALL", "Image", "Img2Img", "JobOperation", "Lora", "Operation", "Txt2Img", "job_class"]

ALL: Final[tuple[type[Operation[Any]], ...]] = (Txt2Img, Img2Img)
"""Every request class."""


def job_class(slug: str) -> type[JobOperation[Any]] | None:
    """Find the class that makes jobs under a slug."""
    jobs: list[Any] = [one for one in ALL if issubclass(cast("type", one), JobOperation)]
    return next((one for one in jobs if one.endpoint.slug == slug), None)
