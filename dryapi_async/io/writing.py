"""What is written to disk: pieces go in a thread while the next ones come, and what came meanwhile goes in one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from typing import Final, TypeVar

from dryapi_async.io.parts import Part
from dryapi_async.io.targets import split_target
from dryapi_async.io.threads import FileThreads

T = TypeVar("T")

WRITE_BYTES: Final = 256 * 1024
"""So much is worth a thread's turn, which costs about 28 us."""
MOST_BYTES: Final = 2 * WRITE_BYTES
"""So much waits at most while a write is under way. With twice as much no download was faster, and each took more memory."""
MOST_PIECES: Final = 256
"""So many are worth a thread's turn, however small: each piece takes memory beside its bytes."""


class Writer:
    """Writes one file beside its target, in order and never on the loop: made by `open_writer`, ended by `finish` or by `discard`.

    A write that failed is told by the next call. Who is cancelled in the middle must `discard`, and must let `finish` come to its end.
    """

    def __init__(self, threads: FileThreads, part: Part, name: str, file: BufferedWriter) -> None:
        self._threads = threads
        self._part = part
        self._name = name
        self._file = file
        from aiofiles.threadpool import wrap  # noqa: PLC0415  `options` does that when a client is made

        self._thread_file = wrap(file, loop=asyncio.get_running_loop(), executor=threads.executor)
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._writing: asyncio.Future[None] | None = None

    async def write(self, piece: bytes) -> None:
        """Take a piece; it is waited for only where the disk is slower than what comes.

        Raises:
            OSError: An earlier piece couldn't be written.
        """
        self._pieces.append(piece)
        self._waiting_bytes += len(piece)
        waiting_bytes, pieces = self._waiting_bytes, len(self._pieces)
        if waiting_bytes < WRITE_BYTES and pieces < MOST_PIECES:
            return
        if self._writing is not None and not self._writing.done() and waiting_bytes < MOST_BYTES and pieces < 2 * MOST_PIECES:
            return
        await self._settle()
        self._writing = asyncio.ensure_future(self._thread_file.writelines(self._pieces))
        self._pieces, self._waiting_bytes = [], 0

    async def _settle(self) -> None:
        """Wait for the write that is under way, and say how it went."""
        if self._writing is not None:
            await asyncio.wait([self._writing])  # a cancellation leaves it alone: the thread goes on with the file
            writing, self._writing = self._writing, None
            writing.result()

    async def finish(self, name: Callable[[], str]) -> Path:
        """Write the rest, close the file and give it the target's name, or the one that ``name`` makes where the target is a folder.

        Raises:
            OSError: That failed.
        """
        await self._settle()
        final = self._part.path.parent / (self._name or name())
        # In one turn of a thread, for most files are small.
        return await self._threads.start(_finish, self._part, self._file, self._pieces, final)

    async def discard(self) -> None:
        """Close the file and remove it; what is being written comes to its end before."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.exception()  # it isn't the first failure, and nobody asks for it any more
        await self._threads.start(_discard, self._part, self._file)


async def open_writer(threads: FileThreads, target: Path) -> Writer:
    """Make a temporary file in the target's folder; cancelled in the middle, it is gone before the cancellation goes on.

    Raises:
        OSError: The target can't be written.
    """
    opening = threads.start(_open, target)
    try:
        return Writer(threads, *await asyncio.shield(opening))
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if opening.exception() is None:
            part, _, file = opening.result()
            await threads.start(_discard, part, file)
        raise


def _open(target: Path) -> tuple[Part, str, BufferedWriter]:
    folder, name = split_target(target)
    part = Part(folder)
    return part, name, open(part.path, "xb", opener=part.open)


def _finish(part: Part, file: BufferedWriter, pieces: Sequence[bytes], final: Path) -> Path:
    file.writelines(pieces)
    # The system may say only now that something couldn't be written.
    file.close()
    return part.rename(final)


def _discard(part: Part, file: BufferedWriter) -> None:
    with suppress(OSError):  # whether it could be written is of no use any more
        file.close()
    part.discard()


async def see_through(work: Awaitable[T]) -> T:
    """Wait for what must come to its end; a cancellation goes on after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
