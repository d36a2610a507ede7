"""Files to upload, as threads see them: opened, looked at, read at a position, closed. Every method that isn't told otherwise may block."""

import io
import os
import stat
import threading
from collections.abc import AsyncIterable, AsyncIterator, Generator
from contextlib import contextmanager, suppress
from inspect import iscoroutine
from typing import Any, Final, cast

from attrs import frozen

from dryapi_async.errors import SourceChangedError, SourceError, SourceNotReplayableError
from dryapi_async.io.plain import Stamp, is_plain, read_cached, read_into, stamp
from dryapi_async.io.streams import SharedStream, share
from dryapi_async.io.tally import Known, Tally, digest
from dryapi_async.io.threads import OwnThread
from dryapi_async.protocol.files import File, Source, describe, is_bytes
from dryapi_async.protocol.media import SNIFF_BYTES
from dryapi_async.values import Value

_CUT: Final = "The upload was cut off, and the service can't have taken it."


@frozen(kw_only=True, eq=False, repr=False)
class Looked(Value):
    """What is known of a source once it is open."""

    name: str
    """Its own file name, or empty."""
    size: int
    head: bytes
    """Its first bytes; empty where they can't be read twice."""


@frozen(kw_only=True, eq=False, repr=False)
class Before(Value):
    """What the attempt before found: the next one sends the same or refuses."""

    start: int
    looked: Looked
    stamp: Stamp | None
    known: Known | None
    fixed: memoryview | None


class Reader:
    """One source of one attempt. Any thread may call it: a close waits for nothing, the read that is out closes behind itself."""

    def __init__(self, source: Source, *, before: Before | None = None) -> None:
        """Take a source; ``before`` is what an attempt before found."""
        file = source if isinstance(source, File) else File(source)
        self.file: File = file
        self.label: str = describe(source)
        self.one_shot: bool = self.pieces is not None
        """Whether it can be read only once; of a file object it is known once it is open."""
        self.thread: OwnThread | None = None if self.pieces is not None or _is_ours(file.source) else OwnThread()
        """Where its methods are called, if not in any thread: what a user's own object does may hang for ever."""
        self.busy: bool = False
        """Whether one of its methods is at work now."""
        self._lock = threading.Lock()
        self._looked: Looked | None = None
        self._closed = False
        self._fd: int | None = None
        self._tells_cached = True
        self._memory: memoryview | None = None
        self.fixed: memoryview | None = None
        """Memory that nobody can change: it needs no thread."""
        self._shared: SharedStream | None = None
        self._tally: Tally | None = None
        self._start = 0
        self._size = 0
        self._stamp: Stamp | None = None
        self._spent = False
        self._before = before

    def renew(self) -> "Reader":
        """Make a reader for the next attempt: it reads the same bytes from the same place, or refuses."""
        known = None if self._tally is None else self._tally.known
        assert self._looked is not None  # noqa: S101  only what was opened is opened again
        before = Before(start=self._start, looked=self._looked, stamp=self._stamp, known=known, fixed=self.fixed)
        return Reader(self.file, before=before)

    @property
    def pieces(self) -> AsyncIterable[bytes] | None:
        """The async iterable to read from, where the source is one; taken once."""
        inner = self.file.source
        return inner if isinstance(inner, AsyncIterable) and not hasattr(inner, "fileno") else None

    def check_unspent(self) -> None:
        """Refuse a one-shot source that was read before. Doesn't block.

        Raises:
            SourceNotReplayableError: It was.
        """
        if self._spent:
            raise SourceNotReplayableError(
                f"{self.label} can be read only once, and a first attempt has read it: make a new call with a fresh source.",
                source=self.label,
            )

    def spend(self) -> None:
        """Note that a one-shot source is read now, or refuse where it was read before. Doesn't block.

        Raises:
            SourceNotReplayableError: A first attempt has read it, or another call reads it now.
        """
        self.check_unspent()
        if self._shared is None and isinstance(self.file.source, AsyncIterator):
            self._shared = share(self.file.source)
        if self._shared is not None and not self._shared.take(self):
            raise SourceNotReplayableError(
                f"{self.label} can be read only once, and another call reads it now: give each call a source of its own.",
                source=self.label,
            )
        self._spent = True

    def give_back(self) -> None:
        """Note that all that was announced was read: another call may read on from there. Doesn't block."""
        if self._shared is not None:
            self._shared.give_back(self)

    def failed(self, error: BaseException) -> SourceError:
        """Make the error for what a source raised."""
        cause = error.strerror if isinstance(error, OSError) else None
        return SourceError(f"{self.label} can't be read: {cause or f'{type(error).__name__}: {error}'}. {self._so}", source=self.label)

    def gave_nothing(self, seconds: float | None) -> SourceError:
        """Make the error for a source that hangs."""
        return SourceError(f"{self.label} gave nothing for {seconds:g} s. {self._so} Look at what feeds it.", source=self.label)

    @property
    def _so(self) -> str:
        return _CUT if self._looked else "Check the path, or what was opened: nothing was sent."

    @contextmanager
    def _held(self) -> Generator[None, None, None]:
        """Keep others out, and say what a user's object raises in this library's words."""
        try:
            with self._lock:
                self.busy = True
                self._check_open()
                yield
        except SourceError:
            raise
        except Exception as error:
            # A user's own object may raise anything.
            raise self.failed(error) from error
        finally:
            self.busy = False
            if self._closed:
                self._sweep()

    def _check_open(self) -> None:
        if self._closed:
            raise SourceError(f"{self.label} was closed before it could be read.", source=self.label)

    def open(self) -> Looked:
        """Open the source and look at it.

        Raises:
            SourceError: It is gone, unreadable, a directory, no plain file, not binary, or empty.
        """
        try:
            with self._held():
                looked = self._open()
                self._settle(looked)
                self._looked = looked
        except SourceError:
            self.close()
            raise
        return looked

    def _open(self) -> Looked:
        inner: Any = self.file.source
        if self._before is not None and self._before.fixed is not None:
            return self._open_fixed(self._before.fixed)
        if is_bytes(inner):
            return self._open_memory(memoryview(inner))
        if isinstance(inner, str | os.PathLike):
            return self._open_path(os.fsdecode(cast("str | os.PathLike[str]", inner)))
        if self.pieces is not None:
            return Looked(name="", size=self.file.size or 0, head=b"")
        if isinstance(inner, io.TextIOBase):
            raise SourceError(f"{self.label} is open as text: open it with mode 'rb'.", source=self.label)
        if getattr(inner, "closed", False):
            raise SourceError(f"{self.label} is closed: open it again, or give its path.", source=self.label)
        if isinstance(inner, io.BytesIO):
            # A snapshot that costs nothing: a write to the stream copies first.
            self._start = inner.tell()
            return self._open_fixed(memoryview(inner.getvalue())[self._start :])
        return self._open_stream(inner, os.path.basename(_name_of(inner)))  # noqa: PTH119  a text in, a text out

    def _settle(self, looked: Looked) -> None:
        """Hold what is known of it to what was said and seen before."""
        self._size = size = looked.size
        if self._before is not None and self._before.looked != looked:
            raise self._changed_since()
        if self.file.size is not None and self.file.size != size:
            raise SourceError(f"{self.label} has {size} bytes, not the {self.file.size} that File(size=) says.", source=self.label)
        if size == 0:
            where = f" from where it stands, {self._start}: seek(0) first" if self._start else ": the service takes no empty file"
            raise SourceError(f"{self.label} is empty{where}.", source=self.label)

    def _changed_since(self) -> SourceChangedError:
        return SourceChangedError(f"{self.label} changed since the first attempt: make a new call once it is at rest.", source=self.label)

    def _open_fixed(self, memory: memoryview) -> Looked:
        """Open memory that nobody can change: each attempt sends this."""
        self.fixed = self._memory = memory
        return Looked(name=os.path.basename(_name_of(self.file.source)), size=memory.nbytes, head=bytes(memory[:SNIFF_BYTES]))  # noqa: PTH119  a text

    def _open_memory(self, view: memoryview) -> Looked:
        if not view.c_contiguous:
            return self._open_fixed(memoryview(view.tobytes()))
        view = view.cast("B")
        if isinstance(view.obj, bytes):
            return self._open_fixed(view)
        self._memory, known = view, (view.nbytes, digest(view))
        if self._before is not None and self._before.known != known:
            raise self._changed_since()
        self._tally = Tally(known)
        return Looked(name="", size=view.nbytes, head=bytes(view[:SNIFF_BYTES]))

    def _open_path(self, path: str) -> Looked:
        if "\0" in path:
            raise SourceError(f"{path!r} has a NUL character, which no path can have: check how it was made.", source=path)
        self._check_kind(os.stat(path))  # noqa: PTH116  before open: opening a pipe would wait for its writer
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
        self._stamp = stamp(found)
        if self._before is not None and self._before.stamp != self._stamp:
            raise self._changed_since()
        return Looked(name=name, size=max(found.st_size - self._start, 0), head=os.pread(self._fd, SNIFF_BYTES, self._start))

    def _open_stream(self, stream: Any, name: str) -> Looked:
        if not (hasattr(stream, "seekable") and stream.seekable()):
            return self._open_once(stream, name)
        start = None if self._before is None else self._before.start
        if is_plain(stream):
            if stream.writable():
                stream.flush()
            self._start = stream.tell() if start is None else start
            self._fd = os.dup(stream.fileno())
            return self._look(name)
        self._shared = share(stream)
        self._tally = Tally(None if self._before is None else self._before.known)
        self._start, size, head = self._shared.look(start, SNIFF_BYTES)
        return Looked(name=name, size=max(size, 0), head=self._check_piece(head)[:SNIFF_BYTES])

    def _open_once(self, stream: Any, name: str) -> Looked:
        if self.file.size is None:
            raise SourceError(f"{self.label} doesn't tell its size: give File(..., size=<bytes>), a path, or bytes.", source=self.label)
        self.one_shot = True
        # A second attempt opens the same reader again.
        self._shared = self._shared or share(stream)
        return Looked(name=name, size=self.file.size, head=b"")

    def read(self, position: int, most: int) -> bytes | memoryview:
        """Read up to ``most`` bytes at ``position``; with the last ones, make sure that the source is still the same.

        Raises:
            SourceChangedError: It ended early, or changed since it was opened.
            SourceError: It can't be read on.
        """
        with self._held():
            piece = self._read(position, min(most, self._size - position))
            self._check_end(position, len(piece), same=self._tally is None or self._tally.add(bytes(piece)))
        return piece

    @property
    def is_plain(self) -> bool:
        """Whether it stands on a plain file, which is read with `read_cached` and `read_into`."""
        return self._fd is not None

    def read_into(self, position: int, view: memoryview) -> int:
        """Read a plain file at ``position`` into a buffer, and give the bytes read; the rest is as in `read`."""
        with self._held():
            assert self._fd is not None  # noqa: S101  for the type checker
            count = read_into(self._fd, view[: self._size - position], self._start + position)
            self._check_end(position, count)
        return count

    def read_cached(self, position: int, view: memoryview) -> int:
        """Read a plain file as `read_into` does, but only what needs no wait: it may be 0, and is for the last bytes. Doesn't block."""
        # With the last bytes comes a look at the file, for which a network drive asks its server.
        if not self._tells_cached or position + len(view) >= self._size or not self._lock.acquire(blocking=False):
            return 0
        try:
            count = None if self._fd is None else read_cached(self._fd, view, self._start + position)
            self._tells_cached = count is not None
            return count or 0
        finally:
            self._lock.release()
            if self._closed:
                self._sweep()

    def _check_end(self, position: int, count: int, *, same: bool = True) -> None:
        """Hold what was read to what was announced, and with the last bytes the source to what it was."""
        end = position + count
        same = same and count > 0 and end <= self._size
        if end >= self._size:
            same = same and (self._fd is None or stamp(os.fstat(self._fd)) == self._stamp)
            self._finish()
        if not same:
            raise source_changed(self.label, self._size)

    def _read(self, position: int, most: int) -> bytes | memoryview:
        if self._memory is not None:
            piece = self._memory[position : position + most]
            # What can change is copied, so that what was looked at is what is sent.
            return piece if self.fixed is not None else bytes(piece)
        assert self._shared is not None  # noqa: S101  for the type checker
        if self.one_shot:
            return self._check_piece(self._shared.read_on(most))
        return self._check_piece(self._shared.read(self, self._start + position, most))

    def _check_piece(self, piece: object) -> bytes:
        return check_piece(self.label, piece, "open it with mode 'rb', so that it blocks until there is something")

    def _finish(self) -> None:
        """Leave a user's file object as it was found, before its last bytes are sent: once the call is over it is the user's again."""
        if self._shared is None:
            return
        if self.one_shot:
            self._shared.give_back(self)
        else:
            self._shared.rest(self)

    def close(self) -> None:
        """Let go of what was opened here, at once or when the method that is at work ends; a user's own file stays open."""
        self._closed = True
        self._sweep()

    def _sweep(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._lock.release()

    def _release(self) -> None:
        fd, self._fd = self._fd, None
        shared, self._shared = self._shared, None
        self._memory = None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)
        if shared is not None:
            shared.leave(self)


def check_piece(label: str, piece: object, hint: str) -> bytes:
    """Take a piece of a source for bytes, copied where its owner could change it before it is sent.

    Raises:
        SourceError: It is something else, and ``hint`` says what to do.
    """
    if isinstance(piece, bytes):
        return piece
    if is_bytes(piece):
        return bytes(piece)
    if iscoroutine(piece):
        piece.close()
    raise SourceError(f"{label} gives {type(piece).__name__}, not bytes: {hint}.", source=label)


def source_changed(label: str, size: int) -> SourceChangedError:
    """Make the error for a source that isn't what it was when its length was announced."""
    return SourceChangedError(
        f"{label} changed while it was sent ({size} bytes were announced): the upload was cut off, and the service can't have taken it. "
        "Send it again once the file is at rest.",
        source=label,
    )


def _name_of(source: object) -> str:
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else ""


def _is_ours(source: object) -> bool:
    """Say whether a source is one whose reading is this library's own code: a path or memory."""
    return isinstance(source, str | os.PathLike | io.BytesIO) or is_bytes(source)
