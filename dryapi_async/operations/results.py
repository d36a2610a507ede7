"""What a finished job gives: data with a door. A result knows its links; how they are fetched is behind the door that it was given."""

import json
from collections.abc import AsyncGenerator, Mapping
from importlib import import_module
from os import PathLike, fsencode, fspath
from pathlib import Path, PurePath
from typing import Any, ClassVar, Protocol, Self

from attrs import field, frozen

from dryapi_async.errors import InputError, ResponseError, show_value
from dryapi_async.protocol.links import Link
from dryapi_async.protocol.media import ending_of
from dryapi_async.protocol.status import Update, excerpt
from dryapi_async.protocol.untyped import is_list
from dryapi_async.values import Value


class Door(Protocol):
    """How results are fetched, renewed and saved. A client hands it in."""

    def open(self, link: Link, *, max_bytes: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream a file; a longer one than ``max_bytes`` is refused."""
        ...

    async def save(self, link: Link, target: Path, *, ending: str = "", max_bytes: int | None = None) -> Path:
        """Save a file whole or not at all; a directory as target takes the id and the type's ending."""
        ...

    async def write(self, request_id: str, text: str, target: Path, *, ending: str, max_bytes: int | None = None) -> Path:
        """Save a text whole or not at all."""
        ...

    async def renew(self, request_id: str) -> Update:
        """Read the status once more, for a fresh link or a text."""
        ...

    async def decode(self, text: str) -> Any:
        """Decode JSON, off the loop where it is long."""
        ...


class Result(Protocol):
    """What every result offers: the id of its job, and saving."""

    @property
    def request_id(self) -> str:
        """The service's id of the job."""
        ...

    @classmethod
    async def from_update(cls, request_id: str, update: Update, door: Door) -> Self:
        """Make the result of a job that is done."""
        ...

    async def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002  the service's word
        *,
        max_bytes: int | None = None,
    ) -> Path:
        """Write the result to disk, whole or not at all."""
        ...


@frozen(kw_only=True, eq=False, repr=False)
class MediaResult(Value):
    """A result that is a file at the storage host, behind a signed link that lives about a day and is renewed by itself."""

    request_id: str
    url: str | None = field(repr=False)
    """The link that the service signed; it gives access to the file, so treat it as a secret."""
    alternatives: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    """Other formats with a link, such as ``jpg`` and ``webp``."""
    _door: Door = field(repr=False, eq=False, alias="door")

    default_ending: ClassVar[str] = ""

    @classmethod
    async def from_update(cls, request_id: str, update: Update, door: Door) -> Self:
        """Make the result of a job that is done; a missing link is asked for when it is used."""
        return cls(request_id=request_id, url=update.url, alternatives=update.alternatives, door=door)

    async def read(self, format: str | None = None, *, max_bytes: int | None = None) -> bytes:  # noqa: A002  the service's word
        """Fetch the whole file into memory (files may have 100 MB: `stream` or `save` keep memory flat).

        Raises:
            DownloadError: It couldn't be fetched whole, is longer than ``max_bytes``, or there is no such format.
        """
        return b"".join([piece async for piece in self.stream(format, max_bytes=max_bytes)])

    def stream(self, format: str | None = None, *, max_bytes: int | None = None) -> AsyncGenerator[bytes, None]:  # noqa: A002  the service's word
        """Stream the file in pieces, its length checked at the end.

        Raises:
            DownloadError: It couldn't be fetched whole, is longer than ``max_bytes``, or there is no such format.
        """
        return self._door.open(self._link(format), max_bytes=check_max_bytes(max_bytes))

    async def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002  the service's word
        *,
        max_bytes: int | None = None,
    ) -> Path:
        """Write the file to disk, whole or not at all, and give its path.

        Args:
            path: The file to write; its folder must exist. A directory takes the job's id and the type's ending.
            format: ``jpg`` or ``webp``; without it the path's suffix tells, else it is the file that the service made.
            max_bytes: Refuse a longer file: before it is fetched where its length is told, else in the middle. Nothing stays on disk.

        Raises:
            DownloadError: It couldn't be fetched whole, is too long, or there is no such format.
            InputError: ``path`` or ``max_bytes`` is no such thing.
            OSError: The path can't be written.
        """
        target = check_path(path)
        link = self._link(format or self._format_of(target))
        return await self._door.save(link, target, ending=self.default_ending, max_bytes=check_max_bytes(max_bytes))

    def _link(self, format: str | None) -> Link:  # noqa: A002  the service's word
        format = None if format is None else _read_format(format)  # noqa: A001  the same
        if format is not None and format not in self.alternatives and self.url is not None and _path_ending(self.url) == format:
            format = None  # noqa: A001  the service made that format itself
        return Link(request_id=self.request_id, format=format, url=self.url if format is None else self.alternatives.get(format))

    def _format_of(self, target: Path) -> str | None:
        """Take the format from a file name where it names another than the service made."""
        ending = ending_of(target.name).lstrip(".")
        wanted = _FORMATS.get(ending, ending)
        return wanted if wanted in _ALTERNATIVES else None


_FORMATS: dict[str, str] = {"jpeg": "jpg", "jpe": "jpg"}
_ALTERNATIVES = frozenset({"jpg", "webp"})
"""The keys that ``results_alt_formats`` has by the service's document."""
_MADE = frozenset({"png", "mp4", "mp3", "wav", "flac", "ogg", "txt", "json"})
"""What the service makes itself, and how results call their own files: asked for by name, that is the file as it was made."""


def check_format(format: object) -> None:  # noqa: A002  the service's word
    """Refuse a format that no result of the service has: a slip is told before anything is paid for.

    Raises:
        InputError: It is none.
    """
    if format is not None and _read_format(format) not in _ALTERNATIVES | _MADE:
        raise InputError(f"format must be 'jpg', 'webp', or None for the file as the service made it, not {show_value(format)}.")


def _read_format(given: object) -> str:
    """Read a format as people write it: in any case, with or without a dot, jpeg for jpg.

    Raises:
        InputError: It is no text.
    """
    if not isinstance(given, str):
        raise InputError(f"format must be 'jpg', 'webp', or None for the file as the service made it, not {show_value(given)}.")
    name = given.lower().lstrip(".")
    return _FORMATS.get(name, name)


def check_path(path: object) -> Path:
    """Read the path to save to.

    Raises:
        InputError: It is none: not str or PathLike, empty, or what no file system takes.
    """
    try:
        text: object = fspath(path)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]  it says what isn't one
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise InputError(f"The path to save to must be a str or PathLike of str, not {type(path).__name__}.")
    if not text or "\0" in text or not _can_be_path(text):
        raise InputError(f"The path to save to must be a str or PathLike that can be a path, such as 'fox.png' or a folder, not {text!r}.")
    return Path(text)


def _can_be_path(text: str) -> bool:
    try:
        return bool(fsencode(text))
    except UnicodeEncodeError:
        return False


def check_max_bytes(max_bytes: object) -> int | None:
    """Read the longest file that is wanted.

    Raises:
        InputError: It is no number of bytes.
    """
    if max_bytes is None or (isinstance(max_bytes, int) and not isinstance(max_bytes, bool) and max_bytes > 0):
        return max_bytes
    raise InputError(f"max_bytes must be a whole number from 1, or None for no limit, not {show_value(max_bytes)}.")


def _path_ending(url: str) -> str:
    ending = ending_of(PurePath(url.partition("?")[0]).name).lstrip(".")
    return _FORMATS.get(ending, ending)


# These add no field, so attrs needn't make them anew: each would take half a millisecond of the import.
class Image(MediaResult):
    """A picture: ``read()``, ``stream()``, ``save(path)``. Other formats (jpg, webp) by name or by the path's suffix."""

    __slots__ = ()

    default_ending: ClassVar[str] = ".png"


class Video(MediaResult):
    """A film: ``read()``, ``stream()``, ``save(path)``."""

    __slots__ = ()

    default_ending: ClassVar[str] = ".mp4"


class Audio(MediaResult):
    """A sound: ``read()``, ``stream()``, ``save(path)``."""

    __slots__ = ()

    default_ending: ClassVar[str] = ".mp3"


@frozen(kw_only=True, eq=False, repr=False)
class TextResult(Value):
    """A result that is a text, whether it came with the status or behind a link."""

    request_id: str
    text: str
    """The words; empty is a good result, too (silence)."""
    _door: Door = field(repr=False, eq=False, alias="door")

    @classmethod
    async def from_update(cls, request_id: str, update: Update, door: Door) -> Self:
        """Make the result of a job that is done."""
        return cls(request_id=request_id, text=await fetch_text(request_id, update, door), door=door)

    def __str__(self) -> str:
        return self.text

    async def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002, ARG002  the service's word
        *,
        max_bytes: int | None = None,
    ) -> Path:
        """Write the text to disk as UTF-8, whole or not at all, and give its path; a directory takes the job's id and ``.txt``."""
        target, most = check_path(path), check_max_bytes(max_bytes)
        return await self._door.write(self.request_id, self.text, target, ending=".txt", max_bytes=most)


class Transcript(TextResult):
    """What was said in a recording; with time stamps where they were asked for."""

    __slots__ = ()


class Text(TextResult):
    """What is written in a picture; JSON where that format was asked for."""

    __slots__ = ()


@frozen(kw_only=True, eq=False, repr=False)
class Embedding(Value):
    """Vectors, one for each input, in the inputs' order."""

    request_id: str
    rows: tuple[tuple[float, ...], ...] = field(repr=lambda rows: f"<{len(rows)} x {len(rows[0]) if rows else 0}>")
    _door: Door = field(repr=False, eq=False, alias="door")

    @classmethod
    async def from_update(cls, request_id: str, update: Update, door: Door) -> Self:
        """Make the result of a job that is done."""
        text = await fetch_text(request_id, update, door)
        return cls(request_id=request_id, rows=read_rows(await door.decode(text)), door=door)

    def to_numpy(self) -> Any:
        """Give the rows as a numpy array of float64, shape (inputs, dimensions). Needs numpy, which this package doesn't."""
        return import_module("numpy").asarray(self.rows, dtype="float64")

    async def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002, ARG002  the service's word
        *,
        max_bytes: int | None = None,
    ) -> Path:
        """Write the rows to disk as JSON, whole or not at all, and give the path; a directory takes the job's id and ``.json``."""
        target, most = check_path(path), check_max_bytes(max_bytes)
        return await self._door.write(self.request_id, json.dumps(self.rows), target, ending=".json", max_bytes=most)


async def fetch_text(request_id: str, update: Update, door: Door) -> str:
    """Find a text result: in the news, else in one status read, else behind its link.

    Raises:
        ResponseError: The job is done and has neither.
    """
    if update.text is None and update.source != "read":
        update = await door.renew(request_id)
    if update.text is not None:
        return update.text
    if update.url is None:
        raise ResponseError(f"Job {request_id} is done but the service gave neither text nor link. Read its status again later.")
    link = Link(request_id=request_id, format=None, url=update.url, is_text=True)
    return b"".join([piece async for piece in door.open(link)]).decode(errors="replace")


def read_rows(body: object) -> tuple[tuple[float, ...], ...]:
    """Read a 2-D array of numbers; a flat one is a single row.

    Raises:
        ResponseError: It is something else.
    """
    rows: list[Any] = body if is_list(body) and (not body or is_list(body[0])) else [body]
    try:
        return tuple(tuple(map(float, row)) for row in rows)
    except (TypeError, ValueError, OverflowError) as error:
        raise ResponseError(f"The embedding is no array of numbers: {excerpt(body)}", excerpt=excerpt(body)) from error
