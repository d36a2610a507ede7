"""Files to upload, as threads see them: opened, looked at, read at a position, closed. Every method here blocks."""

import io
import os
import stat
import threading
from collections.abc import AsyncIterable
from typing import IO, Any

from attrs import frozen

from dryapi_async.errors import SourceChangedError, SourceError, SourceNotReplayableError
from dryapi_async.protocol.files import File, Source, describe, is_bytes
from dryapi_async.protocol.media import SNIFF_BYTES

Stamp = tuple[int, int, int, int]


@frozen(kw_only=True)
class Looked:
    """What is known of a source once it is open."""

    name: str
    """Its own file name, or empty."""
    size: int
    head: bytes
    """Its first bytes; empty where they can't be read twice."""


class Reader:
    """One source of one attempt. Any thread may call it: a close waits for the read that is out, and an open after it opens nothing."""

    def __init__(self, source: Source, *, start: int | None = None, stamp: Stamp | None = None) -> None:
        """Take a source; ``start`` and ``stamp`` are where and what it was in an attempt before."""
        file = source if isinstance(source, File) else File(source)
        self.file: File = file
        self.label: str = describe(source)
        self._lock = threading.Lock()
        self._closed = False
        self._fd: int | None = None
        self._owned = False
        self._start = 0
        self._size = 0
        self._stamp: Stamp | None = None
        self._memory: memoryview | None = None
        self._stream: IO[bytes] | None = None
        self._spent = False
        self._start_before = start
        self._stamp_before = stamp

    def renew(self) -> "Reader":
        """Make a reader for the next attempt: it reads the same bytes from the same place, or refuses."""
        return Reader(self.file, start=self._start, stamp=self._stamp)

    @property
    def pieces(self) -> AsyncIterable[bytes] | None:
        """The async iterable to read from, where the source is one; taken once."""
        inner = self.file.source
        return inner if isinstance(inner, AsyncIterable) and not hasattr(inner, "fileno") else None

    def spend(self) -> None:
        """Note that a one-shot source is read now, or refuse where it was read before."""
        if self._spent:
            raise SourceNotReplayableError(
                f"{self.label} can be read only once, and a first attempt has read it: make a new call with a fresh source.",
                source=self.label,
            )
        self._spent = True

    def open(self) -> Looked:
        """Open the source and look at it.

        Raises:
            SourceError: It is gone, unreadable, a directory, no plain file, not binary, or empty.
        """
        with self._lock:
            if self._closed:
                raise SourceError(f"{self.label} was closed before it was opened.", source=self.label)
            try:
                looked = self._open()
            except OSError as error:
                self._release()
                raise SourceError(f"{self.label} can't be read: {error.strerror or error}. Check the path.", source=self.label) from error
            except SourceError:
                self._release()
                raise
        if looked.size == 0:
            self.close()
            raise SourceError(f"{self.label} is empty: the service takes no empty file.", source=self.label)
        return looked

    def _open(self) -> Looked:
        inner: Any = self.file.source
        if is_bytes(inner):
            view = memoryview(inner)
            return self._open_memory(view.cast("B") if view.c_contiguous else memoryview(view.tobytes()))
        if isinstance(inner, str | os.PathLike):
            return self._open_path(os.fspath(inner))
        if self.pieces is not None:
            self._size = self.file.size or 0
            return Looked(name="", size=self._size, head=b"")
        return self._open_stream(inner)

    def _open_memory(self, memory: memoryview) -> Looked:
        self._memory, self._size = memory, memory.nbytes
        self._check_size()
        return Looked(name="", size=self._size, head=bytes(memory[:SNIFF_BYTES]))

    def _open_path(self, path: str) -> Looked:
        self._check_kind(os.stat(path))  # noqa: PTH116  before open: opening a pipe would wait for its writer
        self._fd, self._owned = os.open(path, os.O_RDONLY | os.O_CLOEXEC), True
        return self._look(os.path.basename(path))  # noqa: PTH119  a text in, a text out

    def _check_kind(self, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            raise SourceError(f"{self.label} is a directory: give the path of one file.", source=self.label)
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{self.label} is no plain file: read it, and give its bytes or File(..., size=<bytes>).", source=self.label)

    def _look(self, name: str) -> Looked:
        """Look at an open descriptor: its size from where it stands, its stamp, its first bytes."""
        assert self._fd is not None  # noqa: S101  for the type checker
        found = os.fstat(self._fd)
        self._check_kind(found)
        self._stamp = _stamp(found)
        if self._stamp_before not in {None, self._stamp}:
            raise SourceChangedError(
                f"{self.label} changed since the first attempt: make a new call once it is at rest.", source=self.label
            )
        self._size = max(found.st_size - self._start, 0)
        self._check_size()
        return Looked(name=name, size=self._size, head=os.pread(self._fd, SNIFF_BYTES, self._start))

    def _check_size(self) -> None:
        if self.file.size is not None and self.file.size != self._size:
            raise SourceError(f"{self.label} has {self._size} bytes, not the {self.file.size} that File(size=) says.", source=self.label)

    def _open_stream(self, stream: Any) -> Looked:
        if isinstance(stream, io.TextIOBase):
            raise SourceError(f"{self.label} is open as text: open it with mode 'rb'.", source=self.label)
        if getattr(stream, "closed", False):
            raise SourceError(f"{self.label} is closed: open it again, or give its path.", source=self.label)
        name = stream.name if isinstance(getattr(stream, "name", None), str) else ""
        if isinstance(stream, io.BytesIO):
            return self._open_memory(memoryview(stream.getvalue())[stream.tell() :])
        if not (hasattr(stream, "seekable") and stream.seekable()):
            return self._open_once(stream, name)
        # An attempt leaves its own position behind.
        self._start = stream.tell() if self._start_before is None else self._start_before
        if _is_plain(stream):
            self._fd, self._owned = os.dup(stream.fileno()), True
            return self._look(os.path.basename(name))  # noqa: PTH119  a text in, a text out
        self._stream = stream
        self._size = stream.seek(0, os.SEEK_END) - self._start
        stream.seek(self._start)
        self._check_size()
        head = bytes(self._read(0, SNIFF_BYTES))
        stream.seek(self._start)
        return Looked(name=os.path.basename(name), size=self._size, head=head)  # noqa: PTH119  the same

    def _open_once(self, stream: IO[bytes], name: str) -> Looked:
        if self.file.size is None:
            raise SourceError(f"{self.label} doesn't tell its size: give File(..., size=<bytes>), a path, or bytes.", source=self.label)
        self._stream, self._size = stream, self.file.size
        return Looked(name=os.path.basename(name), size=self._size, head=b"")  # noqa: PTH119  a text in, a text out

    @property
    def one_shot(self) -> bool:
        """Whether it can be read only once."""
        return self.pieces is not None or (self._stream is not None and not self._stream.seekable())

    def read(self, position: int, most: int) -> bytes | memoryview:
        """Read up to ``most`` bytes at ``position``; with the last ones, make sure that the file is still the same.

        Raises:
            SourceChangedError: It ended early, or changed since it was opened.
            SourceError: It can't be read on.
        """
        with self._lock:
            most = min(most, self._size - position)
            try:
                piece = self._read(position, most)
                changed = position + len(piece) >= self._size and self._fd is not None and _stamp(os.fstat(self._fd)) != self._stamp
            except OSError as error:
                raise SourceError(f"{self.label} can't be read on: {error.strerror or error}.", source=self.label) from error
        if changed or not piece:
            raise source_changed(self.label, self._size)
        return piece

    def _read(self, position: int, most: int) -> bytes | memoryview:
        if self._memory is not None:
            return self._memory[position : position + most]
        if self._fd is not None:
            return os.pread(self._fd, most, self._start + position)
        if self._stream is None:
            raise SourceError(f"{self.label} was closed while it was read.", source=self.label)
        if not self.one_shot:
            self._stream.seek(self._start + position)
        piece = self._stream.read(most)
        if not isinstance(piece, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            raise SourceError(f"{self.label} gives {type(piece).__name__}, not bytes: open it with mode 'rb'.", source=self.label)
        return piece

    def close(self) -> None:
        """Let go of what was opened here; a user's own file stays open."""
        with self._lock:
            self._closed = True
            self._release()

    def _release(self) -> None:
        if self._fd is not None and self._owned:
            os.close(self._fd)
        self._fd = self._memory = self._stream = None


def source_changed(label: str, size: int) -> SourceChangedError:
    """Make the error for a source that isn't what it was when its length was announced."""
    return SourceChangedError(
        f"{label} changed while it was sent ({size} bytes were announced): the upload was cut off, and the service can't have taken it. "
        "Send it again once the file is at rest.",
        source=label,
    )


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


def _is_plain(stream: object) -> bool:
    """Say whether a file object stands on a plain file, so that it can be read without moving its position."""
    if not isinstance(stream, io.BufferedReader | io.BufferedRandom | io.FileIO):
        return False
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
