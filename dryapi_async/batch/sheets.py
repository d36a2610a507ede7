"""A batch's contact sheet: an entry for each outcome."""

import asyncio
import logging
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from dryapi_async.batch.outcomes import Outcome
from dryapi_async.errors import AlreadySubmittedError, ConfigurationError, SubmissionUnknownError, show_value
from dryapi_async.operations.results import Image

if TYPE_CHECKING:
    from dryapi_async.sheet import Entry, Sheet  # imported only where a sheet is asked for

logger: logging.Logger = logging.getLogger("dryapi_async")

Album = Union[str, PathLike[str], "Sheet"]
"""The path of a sheet, or the sheet."""


class SheetWriter:
    """Writes one batch's outcomes to its sheet, and never fails a batch whose results are paid for."""

    def __init__(self, album: Album) -> None:
        """Take a path or a sheet.

        Raises:
            ConfigurationError: It is neither.
        """
        from dryapi_async.sheet import Sheet  # noqa: PLC0415  imported only where a sheet is asked for

        if not isinstance(album, str | PathLike | Sheet):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            raise ConfigurationError(f"sheet must be the path of an HTML file, or a Sheet, not {show_value(album)}.")
        self._own = not isinstance(album, Sheet)
        self._sheet: Sheet | None = album if isinstance(album, Sheet) else Sheet(album)

    async def open(self) -> None:
        """Make the file, before anything is paid for.

        Raises:
            OSError: It can't be made, or another program's file is there.
        """
        if self._sheet is not None:
            await asyncio.to_thread(self._sheet.path.parent.mkdir, parents=True, exist_ok=True)
            await self._sheet.flush()

    async def put(self, outcome: Outcome[Any]) -> None:
        """Add an outcome; one that another process has isn't ours to show."""
        if self._sheet is None or isinstance(outcome.error, AlreadySubmittedError):
            return
        try:
            await self._sheet.put(make_entry(outcome))
        except OSError as error:
            logger.warning("%r can't be written any more: %s", self._sheet, error)
            self._sheet = None

    async def close(self) -> None:
        """Write what is queued; a sheet that was given stays open."""
        if self._sheet is None:
            return
        try:
            await (self._sheet.close() if self._own else self._sheet.flush())
        except OSError as error:
            logger.warning("%r can't be written any more: %s", self._sheet, error)


def make_entry(outcome: Outcome[Any]) -> "Entry":
    """Say on a sheet what became of an operation."""
    from dryapi_async.sheet import Entry  # noqa: PLC0415  the same

    operation, error = outcome.operation, outcome.error
    prompt, model = getattr(operation, "prompt", None) or getattr(operation, "text", None), getattr(operation, "model", None)
    images = getattr(operation, "images", None)
    source = getattr(operation, "image", None) or (images[0] if images else None)
    return Entry(
        index=outcome.index,
        key=outcome.key,
        operation="" if operation is None else operation.endpoint.slug,
        state="unknown" if isinstance(error, SubmissionUnknownError) else "saved" if error is None else "failed",
        prompt=prompt if isinstance(prompt, str) else None,
        model=model if isinstance(model, str) else None,
        seed=getattr(operation, "seed", None),
        seconds=round(outcome.seconds, 3),
        price=None if outcome.price is None else str(outcome.price),
        error=None if error is None else f"{type(error).__name__}: {error}",
        file=None if outcome.path is None else outcome.path.absolute(),
        source=_picture_of(source) if isinstance(outcome.result, Image) else None,
    )


def _picture_of(source: Any) -> Path | None:
    """Find the file that an edit began with, where it was one on disk."""
    return Path(fspath(source)).absolute() if isinstance(source, str | PathLike) else None  # pyright: ignore[reportUnknownArgumentType]  of whatever
