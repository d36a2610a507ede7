"""What a finished job gives: data with a door. A result knows its links; how they are fetched is behind the door that it was given."""

from collections.abc import AsyncIterator, Mapping
from os import PathLike
from pathlib import Path, PurePath
from typing import ClassVar, Protocol, Self

from attrs import field, frozen

from dryapi_async.protocol.links import Link
from dryapi_async.protocol.media import ending_of
from dryapi_async.protocol.status import Update


class Door(Protocol):
    """How results are fetched, renewed and saved. A client hands it in."""

    def open(self, link: Link) -> AsyncIterator[bytes]:
        """Stream a file."""
        ...

    async def save(self, link: Link, target: Path, *, ending: str = "") -> Path:
        """Save a file whole or not at all; a directory as target takes the id and the type's ending."""
        ...

    async def write(self, request_id: str, text: str, target: Path, *, ending: str) -> Path:
        """Save a text whole or not at all."""
        ...

    async def renew(self, request_id: str) -> Update:
        """Read the status once more, for a fresh link or a text."""
        ...


class Result(Protocol):
    """What every result offers: the id of its job, and saving."""

    @property
    def request_id(self) -> str:
        """The service's id of the job."""
        ...

    @classmethod
    def from_update(cls, request_id: str, update: Update, door: Door) -> Self:
        """Make the result of a job that is done."""
        ...

    async def save(self, path: str | PathLike[str], format: str | None = None) -> Path:  # noqa: A002  the service's word
        """Write the result to disk, whole or not at all."""
        ...


@frozen(kw_only=True)
class MediaResult:
    """A result that is a file at the storage host, behind a signed link that lives about a day and is renewed by itself."""

    request_id: str
    url: str | None = field(repr=False)
    """The link that the service signed; it gives access to the file, so treat it as a secret."""
    alternatives: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    """Other formats with a link, such as ``jpg`` and ``webp``."""
    _door: Door = field(repr=False, eq=False, alias="door")

    default_ending: ClassVar[str] = ""

    @classmethod
    def from_update(cls, request_id: str, update: Update, door: Door) -> Self:
        """Make the result of a job that is done."""
        return cls(request_id=request_id, url=update.url, alternatives=update.alternatives, door=door)

    async def read(self, format: str | None = None) -> bytes:  # noqa: A002  the service's word
        """Fetch the whole file into memory (files may have 100 MB: `stream` or `save` keep memory flat).

        Raises:
            DownloadError: It couldn't be fetched whole, or there is no such format.
        """
        return b"".join([piece async for piece in self.stream(format)])

    def stream(self, format: str | None = None) -> AsyncIterator[bytes]:  # noqa: A002  the service's word
        """Stream the file in pieces, its length checked at the end.

        Raises:
            DownloadError: It couldn't be fetched whole, or there is no such format.
        """
        return self._door.open(self._link(format))

    async def save(self, path: str | PathLike[str], format: str | None = None) -> Path:  # noqa: A002  the service's word
        """Write the file to disk, whole or not at all, and give its path.

        Args:
            path: The file to write; its folder must exist. A directory takes the job's id and the type's ending.
            format: ``jpg`` or ``webp``; without it the path's suffix tells, else it is the file that the service made.

        Raises:
            DownloadError: It couldn't be fetched whole, or there is no such format.
            OSError: The path can't be written.
        """
        target = Path(path)
        return await self._door.save(self._link(format or self._format_of(target)), target, ending=self.default_ending)

    def _link(self, format: str | None) -> Link:  # noqa: A002  the service's word
        format = None if format is None else _FORMATS.get(format.lower().lstrip("."), format.lower().lstrip("."))  # noqa: A001  the same
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


def _path_ending(url: str) -> str:
    ending = ending_of(PurePath(url.partition("?")[0]).name).lstrip(".")
    return _FORMATS.get(ending, ending)


@frozen(kw_only=True)
class Image(MediaResult):
    """A picture: ``read()``, ``stream()``, ``save(path)``. Other formats (jpg, webp) by name or by the path's suffix."""

    default_ending: ClassVar[str] = ".png"
