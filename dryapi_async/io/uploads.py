"""Bodies of requests: they know their exact length, and whether a byte of the request may have left."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar

from aiohttp.http_writer import StreamWriter

from dryapi_async.errors import SourceError
from dryapi_async.io.body import Body, Progress
from dryapi_async.io.sources import Looked, Reader, check_piece, source_changed
from dryapi_async.io.threads import FileThreads
from dryapi_async.protocol.media import OCTETS, match_name, sniff, type_of_name
from dryapi_async.protocol.multipart import Layout, SizedFile, lay_out
from dryapi_async.protocol.wire import FilePart, TextPart

P = ParamSpec("P")
T = TypeVar("T")

PIECE_BYTES: Final = 256 * 1024
"""Read from disk at once: fewer thread hops than smaller ones, and no longer stall of the loop than larger ones."""


class FormBody(Body):
    """A form with files, streamed from where they are: one piece in memory at a time."""

    def __init__(
        self,
        layout: Layout,
        files: Sequence[SizedFile],
        readers: Sequence[Reader],
        threads: FileThreads,
        *,
        idle: float | None,
        progress: Progress | None,
    ) -> None:
        super().__init__(layout.content_type, layout.length, idle=idle, progress=progress)
        self.files: tuple[SizedFile, ...] = tuple(files)
        """What the form says of its files, in their order."""
        self._layout = layout
        self._readers = readers
        self._threads = threads

    async def _send(self, stream: StreamWriter) -> None:
        *heads, last = self._layout.heads
        for head, size, reader in zip(heads, self._layout.sizes, self._readers, strict=True):
            await self._put(stream, head)
            await self._send_file(stream, reader, size)
        await self._put(stream, last)

    async def _send_file(self, stream: StreamWriter, reader: Reader, size: int) -> None:
        if reader.one_shot:
            reader.spend()
        if reader.pieces is not None:
            await self._send_pieces(stream, reader, size)
            return
        if reader.is_plain:
            await self._send_plain(stream, reader, size)
            return
        if reader.fixed is not None:
            await self._put(stream, reader.fixed)
            return
        position = 0
        while position < size:
            piece = await call_reader(self._threads, reader, self._idle, reader.read, position, PIECE_BYTES)
            await self._put(stream, piece)
            position += len(piece)

    async def _send_plain(self, stream: StreamWriter, reader: Reader, size: int) -> None:
        """Send a plain file through one buffer: a fresh object for each piece would cost its pages anew, a third of all the time."""
        view, position = memoryview(bytearray(min(self._turn_bytes, size))), 0
        with emptied(stream.transport):
            while position < size:
                count = reader.read_cached(position, view)
                if not count:
                    count = await call_reader(self._threads, reader, self._idle, reader.read_into, position, view)
                await self._put(stream, view[:count])
                position += count
                if stream.transport is not None and stream.transport.get_write_buffer_size():
                    # A last byte is below every limit, and yet it is still read from this buffer.
                    view = memoryview(bytearray(len(view)))

    async def _send_pieces(self, stream: StreamWriter, reader: Reader, size: int) -> None:
        """Send what an async iterable gives, held to the size that was announced."""
        left = size
        pieces = start_pieces(reader)
        while (piece := await next_piece(reader, pieces, self._idle)) is not None:
            if len(piece) > left:
                raise source_changed(reader.label, size)
            left -= len(piece)
            await self._put(stream, piece)
        if left:
            raise source_changed(reader.label, size)
        reader.give_back()


@contextmanager
def emptied(transport: asyncio.WriteTransport | None) -> Generator[None, None, None]:
    """Have a transport's writer wait until all was sent, so that a buffer can be used anew: what isn't sent yet is still read from it."""
    if transport is None:
        # The next write says that the connection is gone.
        yield
        return
    low, high = transport.get_write_buffer_limits()
    # With high=0 a TLS transport never goes on.
    transport.set_write_buffer_limits(high=1, low=0)
    try:
        yield
    finally:
        if not transport.is_closing():
            transport.set_write_buffer_limits(high=high, low=low)


def start_pieces(reader: Reader) -> AsyncIterator[object]:
    """Begin to iterate over a user's async iterable.

    Raises:
        SourceError: It raised something.
    """
    assert reader.pieces is not None  # noqa: S101  for the type checker
    try:
        return aiter(reader.pieces)
    except Exception as error:
        raise reader.failed(error) from error


async def next_piece(reader: Reader, pieces: AsyncIterator[object], idle: float | None) -> bytes | None:
    """Wait for the next bytes of an async iterable, at most ``idle`` seconds; None where there are no more.

    Raises:
        SourceError: It gave nothing, or something else than bytes, or raised.
    """
    patience = asyncio.timeout(idle)
    try:
        async with patience:
            while not (piece := check_piece(reader.label, await anext(pieces), "yield bytes")):
                pass
            return piece
    except StopAsyncIteration:
        return None
    except SourceError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Not this upload was cancelled, but something of the user's that the iterable waited for.
        raise reader.failed(error) from error
    except Exception as error:
        raise (reader.gave_nothing(idle) if patience.expired() else reader.failed(error)) from error


async def call_reader(
    threads: FileThreads, reader: Reader, idle: float | None, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a method of a reader in its thread, and wait at most ``idle`` seconds from when it began.

    A call that hangs can't be interrupted: it keeps its thread, and what is open is closed after it. A user's file object has a thread
    of its own. A path has one of the few for all, and waits in their queue before it begins, so that it may take twice the time.

    Raises:
        SourceError: The method's own, or that the source gave nothing.
    """
    work = threads.start_in(reader.thread, method, *args, **kwargs)
    if idle is None:
        return await work
    watch = _Watch(reader, work, idle)
    try:
        return await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not watch.hung or (task is not None and task.cancelling()):
            raise
        raise reader.gave_nothing(idle) from None
    finally:
        watch.timer.cancel()


class _Watch:
    """Gives a reader's method up once it has hung for the idle time; a bare timer, since asyncio.wait costs 30 us for each piece."""

    # No closure: it would be a cycle that keeps each piece in memory until the collector comes.
    __slots__ = ("begun", "hung", "idle", "reader", "timer", "work")

    def __init__(self, reader: Reader, work: asyncio.Future[Any], idle: float) -> None:
        self.reader = reader
        self.work = work
        self.idle = idle
        self.begun = reader.thread is not None
        self.hung = False
        self.timer = work.get_loop().call_later(idle, self.look)

    def look(self) -> None:
        if self.begun:
            self.hung = True
            self.work.cancel()
        else:
            self.begun = self.reader.busy
            self.timer = self.work.get_loop().call_later(self.idle, self.look)


class Upload:
    """The files of one call: opened anew for each attempt, so that every attempt sends the same bytes or refuses."""

    def __init__(self, parts: Sequence[TextPart | FilePart], threads: FileThreads) -> None:
        self._parts = parts
        self._threads = threads
        self._readers = [Reader(part.source) for part in parts if isinstance(part, FilePart)]
        self._opened = False

    async def open(self, boundary: str, *, idle: float | None, progress: Progress | None = None) -> FormBody:
        """Open the files, look at them, and lay the form out.

        Raises:
            SourceError: Names the file and the rule it breaks; nothing was sent.
        """
        if self._opened:
            for reader in self._readers:
                reader.check_unspent()
            self._readers = [self._renew(reader) for reader in self._readers]
        self._opened = True
        readers = iter(self._readers)
        sized: list[TextPart | SizedFile] = []
        for part in self._parts:
            if isinstance(part, TextPart):
                sized.append(part)
            else:
                reader = next(readers)
                sized.append(size_up(part, reader, await call_reader(self._threads, reader, idle, reader.open)))
        files = [part for part in sized if isinstance(part, SizedFile)]
        return FormBody(lay_out(sized, boundary), files, self._readers, self._threads, idle=idle, progress=progress)

    def rename(self, parts: Sequence[TextPart | FilePart]) -> None:
        """Take the texts of the next attempt; the files are the same."""
        self._parts = parts

    async def look(self, *, idle: float | None) -> None:
        """Open the files, look at them, and close them again: what can't be sent is told before a long wait for its turn.

        Raises:
            SourceError: As `open` does.
        """
        await self.open("look", idle=idle)
        for reader in self._readers:
            if not reader.one_shot:
                self._threads.begin_in(reader.thread, reader.close)

    def _renew(self, reader: Reader) -> Reader:
        """Make a reader for the next attempt; a one-shot source keeps its own, which knows whether it was read."""
        if reader.one_shot:
            return reader
        self._let_go(reader)
        return reader.renew()

    def _let_go(self, reader: Reader) -> None:
        self._threads.begin_in(reader.thread, reader.close)
        if reader.thread is not None:
            reader.thread.shutdown()

    def close(self) -> None:
        """Close the files, each after the read that is out; nothing is waited for."""
        for reader in self._readers:
            self._let_go(reader)


def size_up(part: FilePart, reader: Reader, looked: Looked) -> SizedFile:
    """Settle a file's name and type: what the user says, else its first bytes, else its name.

    Raises:
        SourceError: It isn't the kind of media that the field takes.
    """
    name = reader.file.name or looked.name
    found = sniff(looked.head)
    content_type = reader.file.content_type or found or (None if part.kind == "image" and looked.head else type_of_name(name))
    if content_type is None and part.kind == "image":
        raise SourceError(
            f"{reader.label} is no image: {part.name} takes JPG, PNG, GIF, BMP or WebP, told by the first bytes. "
            "If the service does take it, say File(..., content_type='image/...').",
            source=reader.label,
        )
    content_type = content_type or OCTETS
    if found is not None and reader.file.content_type is None and not _fits(part.kind, content_type):
        raise SourceError(f"{reader.label} is {content_type}, but {part.name} takes {part.kind}.", source=reader.label)
    filename = match_name(name or part.kind, content_type)
    return SizedFile(name=part.name, filename=filename, content_type=content_type, size=looked.size, head=looked.head)


def _fits(kind: str, content_type: str) -> bool:
    """Say whether a type can stand in a field; sound and film share containers."""
    family = content_type.partition("/")[0]
    return family == kind or (kind in {"audio", "video"} and family in {"audio", "video"})
