"""The writer of the contact sheet: a page's head, once, then a line a result, appended."""

import asyncio
import errno
import json
import os
import re
import threading
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fcntl import LOCK_EX, flock
from functools import partial
from hashlib import sha256
from html import escape
from importlib.resources import files
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar
from urllib.parse import quote

from attrs import frozen

from dryapi_async.sheet.preview import preview

P = ParamSpec("P")
T = TypeVar("T")

State = Literal["saved", "failed", "unknown", "waiting"]

SIGNATURE: Final = b'<!DOCTYPE html>\n<meta charset="utf-8">\n<meta name="generator" content="dryapi contact sheet 1">\n'
"""The first bytes of every sheet; the number is that of the lines' form."""
MARK: Final = b'\n<div id="data" hidden>\n'
"""The end of the head: lines follow, and the element is never closed, so that the page is whole after each of them."""
MOST_HEAD_BYTES: Final = 128 * 1024
MOST_WAITING: Final = 256
"""Entries that may wait for the writer before ``put`` waits."""
GROUP_BYTES: Final = 256 * 1024
"""Lines are collected up to about so much for one write."""
THUMBNAILS_UNTIL_BYTES: Final = 128 * 1024 * 1024
"""A larger sheet, of some 20,000 pictures, gets no more thumbnails: its page loads the files themselves, those in sight."""
MOST_PROMPT: Final = 10_000
MOST_ERROR: Final = 2_000
"""Characters that the sheet keeps."""


@frozen(kw_only=True)
class Entry:
    """One result on the sheet. One of the same key that comes later takes its place.

    Args:
        index: Its place in the batch; the sheet is in this order.
        key: What it is called in the batch, for ever.
        operation: The operation's slug, such as ``img2img``.
        state: ``saved``, ``failed``, ``unknown`` or ``waiting``.
        prompt: As it was sent; any text.
        model: The model's slug.
        seed: As it was sent.
        seconds: How long the job took.
        price: As it is to be shown, such as ``0.0042``.
        error: Why there is no result.
        file: The result: absolute, or relative to the sheet's folder.
        source: The picture that an img2img began with, for before and after.
    """

    index: int
    key: str
    operation: str
    state: State
    prompt: str | None = None
    model: str | None = None
    seed: int | None = None
    seconds: float | None = None
    price: str | None = None
    error: str | None = None
    file: str | PathLike[str] | None = None
    source: str | PathLike[str] | None = None


class Sheet:
    """A contact sheet on disk: one HTML file, whole at each moment, to which each result adds a line of some KB.

    In an event loop, ``put`` each entry and ``close`` at the end: files are looked at and written in a thread. Elsewhere, ``add`` them and
    ``write``. An existing sheet is gone on with, and several processes may add to one at once. Nothing is kept in memory but what waits.
    """

    def __init__(self, path: str | PathLike[str], *, title: str = "dryAPI results") -> None:
        self._path = Path(path).absolute()
        self._title = title
        self._queue: deque[Entry] = deque()
        self._added = self._written = 0
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Sheet {self._path}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def path(self) -> Path:
        """The HTML file."""
        return self._path

    def add(self, entry: Entry) -> None:
        """Queue an entry for the next ``write``; touches no file."""
        self._queue.append(entry)
        self._added += 1

    def write(self) -> None:
        """Write what is queued, in this thread: 10 to 40 ms a picture. Makes the file where there is none.

        Raises:
            OSError: It can't be written, or another program's file is there. What was queued stays so.
        """
        with self._lock:
            # Before the work on thumbnails: this tells whether there is any use in it.
            size = append(self._path, b"", title=self._title)
            while self._queue:
                group: list[Entry] = []
                try:
                    lines = self._take_lines(group, thumbnails=size < THUMBNAILS_UNTIL_BYTES)
                    size = append(self._path, lines, title=self._title)
                except BaseException:
                    self._queue.extendleft(reversed(group))
                    raise
                self._written += len(group)

    def _take_lines(self, group: list[Entry], *, thumbnails: bool) -> bytes:
        lines = bytearray()
        while self._queue and len(lines) < GROUP_BYTES:
            group.append(self._queue.popleft())
            lines += describe(group[-1], self._path.parent, thumbnails=thumbnails)
        return bytes(lines)

    async def put(self, entry: Entry) -> None:
        """Queue an entry and have it written in a thread; waits only while very many are queued.

        Raises:
            OSError: What was put before can't be written. It stays queued, as does this one.
        """
        self.add(entry)
        self._raise_failure()
        _ = self._begin()
        await self._wait_for(self._added - MOST_WAITING)

    async def flush(self) -> None:
        """Wait until all that is queued by now is in the file, which is made where there is none.

        Raises:
            OSError: It can't be written. What was queued stays so.
        """
        count = self._added
        await asyncio.wait([self._begin()])
        self._raise_failure()
        await self._wait_for(count)

    async def states(self) -> dict[str, str]:
        """Read the state of each key on the sheet, from the file: 0.1 s for 5,000, in a thread."""
        await self.flush()
        return await self._start(read_states, self._path)

    async def close(self) -> None:
        """Write what is queued, and let the thread go; a later use starts anew.

        Raises:
            OSError: It can't be written.
        """
        try:
            await self.flush()
        finally:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown(wait=False)

    async def _wait_for(self, count: int) -> None:
        while self._written < count:
            await asyncio.wait([self._begin()])
            self._raise_failure()

    def _begin(self) -> asyncio.Future[None]:
        """Begin to write, unless that is under way."""
        loop = asyncio.get_running_loop()
        if self._writing is None or self._loop is not loop:
            self._loop, self._writing = loop, self._start(self.write)
            self._writing.add_done_callback(self._end)
        return self._writing

    def _end(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        self._failure = asyncio.CancelledError() if writing.cancelled() else writing.exception()
        if self._queue and self._failure is None:
            # It came when the thread had looked for the last time.
            _ = self._begin()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dryapi-sheet")
        return asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))


def describe(entry: Entry, folder: Path, *, thumbnails: bool = True) -> bytes:
    """Make an entry's line: a thumbnail in base64 or nothing, a tab, and JSON in which no mark-up can stand.

    The JSON comes last, so that a line that was cut anywhere can't be read.
    """
    seen = None if entry.file is None else preview(folder / entry.file, thumbnail=thumbnails)
    before = None if entry.source is None else preview(folder / entry.source, thumbnail=False)
    said: dict[str, object] = {
        "index": entry.index,
        "key": entry.key,
        "operation": entry.operation,
        "state": entry.state,
        "prompt": entry.prompt and entry.prompt[:MOST_PROMPT],
        "model": entry.model,
        # As text: JavaScript's numbers end at 2**53.
        "seed": None if entry.seed is None else str(entry.seed),
        "seconds": entry.seconds if entry.seconds is None or isfinite(entry.seconds) else None,
        "price": entry.price,
        "error": entry.error and entry.error[:MOST_ERROR],
        "file": None if entry.file is None else link_to(entry.file, folder),
        "source": link_to(entry.source, folder) if entry.source is not None and before is not None and before.kind == "picture" else None,
    }
    if entry.file is not None:
        said |= {"kind": "missing"} if seen is None else {"kind": seen.kind, "bytes": seen.size, "pixels": seen.pixels, "text": seen.text}
    if seen is not None and seen.kind == "picture" and seen.readable and seen.thumbnail is None:
        said["large"] = True
    text = json.dumps({name: value for name, value in said.items() if value is not None}, separators=(",", ":"), allow_nan=False)
    # What isn't ASCII is escaped by now, U+2028 too.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{(seen and seen.thumbnail) or ''}\t{text}\n".encode("ascii")


def link_to(file: str | PathLike[str], folder: Path) -> str:
    """Write a file's address relative to a folder, each byte that means something in an address escaped."""
    path = os.path.normpath(folder / file)
    if ".." in Path(file).parts or not Path(path).is_relative_to(folder):
        # A browser takes `..` away by the letters, the system by the real folders.
        path, folder = os.path.realpath(folder / file), Path(os.path.realpath(folder))
    return quote(os.fsencode(os.path.relpath(path, folder)))


def read_states(path: Path) -> dict[str, str]:
    """Read the state of each key on a sheet; the last line of a key counts, and one that was cut is none."""
    found: dict[str, str] = {}
    with path.open("rb") as file:
        file.seek(_head_size(file.fileno()))
        for line in file:
            with suppress(ValueError, KeyError):
                said: dict[str, Any] = json.loads(line.partition(b"\t")[2])
                found[said["key"]] = said["state"]
    return found


def make_head(title: str) -> bytes:
    """Make the page without its results; its policy allows its own script and styles by their digests, and no network."""
    page = files("dryapi_async.sheet").joinpath("sheet.html").read_text("utf-8")
    policy = "default-src 'none'; img-src 'self' file: data:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    for name in ("script", "style"):
        (inner,) = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        policy += f"; {name}-src 'sha256-{b64encode(sha256(inner.encode()).digest()).decode()}'"
    page = page.replace("@POLICY@", policy).replace("@TITLE@", escape(title))
    return SIGNATURE + page.rstrip("\n").encode("utf-8", "replace") + MARK


def append(path: Path, lines: bytes, *, title: str) -> int:
    """Append whole lines to a sheet, which is made where there is none; say how many bytes it has then.

    Raises:
        OSError: It can't be written (nothing of it is then), or the file is no sheet.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        # A file system without locks has one writer only: sqlite's journal doesn't work there either.
        with suppress(OSError):
            flock(fd, LOCK_EX)
        size = _cut_torn(fd, _check_head(fd, path))
        _write_whole(fd, lines if size else make_head(title) + lines, size)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _head_size(fd: int) -> int:
    """Say where a sheet's lines begin; 0 where there is no whole head of a sheet."""
    start = os.pread(fd, MOST_HEAD_BYTES, 0)
    mark = start.find(MARK)
    return mark + len(MARK) if start.startswith(SIGNATURE) and mark >= 0 else 0


def _check_head(fd: int, path: Path) -> int:
    """Say where the lines begin. A head that was cut is taken away, and what is no sheet is refused."""
    size = _head_size(fd)
    if not size:
        start = os.pread(fd, len(SIGNATURE), 0)
        if start != SIGNATURE[: len(start)]:
            raise FileExistsError(errno.EEXIST, "it is there and is no contact sheet, so it isn't written to", str(path))
        os.ftruncate(fd, 0)
    return size


def _cut_torn(fd: int, head: int) -> int:
    """Cut off the half of a line that a killed process has left, and say how large the file is then."""
    end = size = os.fstat(fd).st_size
    while end > head:
        start = max(head, end - GROUP_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
    return end


def _write_whole(fd: int, content: bytes, size: int) -> None:
    """Write all, in one write where the system takes it; where the disk is full, nothing."""
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        os.ftruncate(fd, size)
        raise
