"""What may be uploaded: the sources a user gives, and what is said about them."""

from collections.abc import AsyncIterable
from inspect import iscoroutinefunction
from typing import IO, Final, Protocol, TypeGuard, runtime_checkable

from attrs import field, frozen

from dryapi_async.errors import InputError
from dryapi_async.values import Value

_ACCEPTED: Final = "a path, bytes, a binary file, or File(...)"


@runtime_checkable
class PathLike(Protocol):
    """A path that isn't a str, such as `pathlib.Path`."""

    def __fspath__(self) -> str:
        """Give the path as text."""
        ...


@frozen(eq=False, repr=False)
class File(Value):
    """A source to upload with more said about it.

    Args:
        source: A path, bytes, a binary file, or an async iterable of bytes (sent once, and only with ``size``).
        name: The file name that the service sees; its ending is made to match the content type.
        content_type: Such as ``image/png``; else the first bytes tell, else the name.
        size: Bytes; needed for an async iterable only.
    """

    source: "str | PathLike | bytes | bytearray | memoryview | IO[bytes] | AsyncIterable[bytes]" = field(
        repr=lambda value: describe(value)  # noqa: PLW0108  it is defined below
    )
    name: str | None = field(default=None, kw_only=True)
    content_type: str | None = field(default=None, kw_only=True)
    size: int | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse what can't be sent."""
        if isinstance(self.source, File):
            raise InputError("File(File(...)): give the inner source once.")
        if not is_source(self.source) and not isinstance(self.source, AsyncIterable):
            raise InputError(f"File takes {_ACCEPTED} or an async iterable, not {type(self.source).__name__}.")
        _refuse_async_read("File", self.source)
        if self.size is not None and not _is_count(self.size):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            raise InputError(f"File(size=) must be a number of bytes over 0, not {self.size!r}.")
        if isinstance(self.source, AsyncIterable) and self.size is None:
            raise InputError("An async iterable needs File(..., size=<bytes>): the upload announces its exact length.")
        for word, said in (("name", self.name), ("content_type", self.content_type)):
            if said is None:
                continue
            if not isinstance(said, str):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
                raise InputError(f"File({word}=) must be text, not {type(said).__name__}.")
            if not (said.isprintable() and said):
                raise InputError(f"File({word}={said!r}) can't stand in a header: use printable characters.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _refuse_async_read(name: str, source: object) -> None:
    """Refuse handles of aiofiles and their kin: their read() is a coroutine, and what iterates over them gives lines."""
    if (hasattr(source, "fileno") or not hasattr(source, "__aiter__")) and iscoroutinefunction(getattr(source, "read", None)):
        raise InputError(
            f"{name}: {type(source).__name__} is read asynchronously: give the path, or a file that open(path, 'rb') opened. "
            "It is read in threads of this library's own anyway."
        )


Source = str | PathLike | bytes | bytearray | memoryview | IO[bytes] | File
"""What a file field takes."""


def is_bytes(value: object) -> TypeGuard[bytes | bytearray | memoryview]:
    """Say whether a source is in memory already."""
    return isinstance(value, bytes | bytearray | memoryview)


def _is_path(value: object) -> TypeGuard[str | PathLike]:
    return isinstance(value, str | PathLike)


def is_source(value: object) -> bool:
    """Say whether a value can be uploaded as it is."""
    return _is_path(value) or is_bytes(value) or isinstance(value, File) or callable(getattr(value, "read", None))


def check_source(name: str, value: object) -> None:
    """Refuse what can't be uploaded, before anything is opened."""
    inner: object = value.source if isinstance(value, File) else value
    if isinstance(inner, str) and inner.lower().startswith(("http://", "https://")):
        raise InputError(f"{name} is a URL: the service takes files here. Download it first, then give its path.")
    if not isinstance(value, File) and not is_source(value):
        hint = ": wrap it in File(..., size=<bytes>)" if hasattr(value, "__aiter__") else ""
        raise InputError(f"{name} must be {_ACCEPTED}, not {type(value).__name__}{hint}.")
    if not isinstance(value, File):
        _refuse_async_read(name, value)


def describe(source: object) -> str:
    """Name a source for a message: a path as it is, anything else by its kind and size."""
    if isinstance(source, File):
        return source.name or describe(source.source)
    try:
        if _is_path(source):
            return str(source)
        if is_bytes(source):
            return f"<{memoryview(source).nbytes} bytes>"
        name = getattr(source, "name", None)
    except Exception:  # noqa: BLE001  a released memoryview, a detached stream, a property of the user's: it is there for a message
        name = None
    return name if isinstance(name, str) else f"<{type(source).__name__}>"
