"""Paths that are written by many at once: no two get the same."""

import time
from pathlib import Path
from typing import Final

from dryapi_async.io.threads import FileThreads
from dryapi_async.protocol.batches import number_name

CLOCK_SLACK: Final = 0.05
"""Seconds by which a file system's time may be behind the clock's."""


class Claims:
    """Gives each result a path of its own: a file that was written since the claims began isn't written again, an older one is replaced.

    The files themselves are the memory of what was written, so that it doesn't grow with their number.
    """

    def __init__(self, threads: FileThreads) -> None:
        self._threads = threads
        self._since = time.time() - CLOCK_SLACK
        self._held: set[str] = set()

    async def claim(self, wanted: Path, index: int) -> Path:
        """Take a path, or the same with the outcome's number in its name where another has it; its folder is made.

        Raises:
            OSError: Nothing can be written there.
        """
        for name in number_name(wanted.name, index):
            path = wanted.with_name(name)
            mark = _mark(path)
            if mark in self._held:
                continue
            self._held.add(mark)
            try:
                if await self._threads.start(_is_free, path, self._since):
                    return path
            except BaseException:
                self._held.discard(mark)
                raise
            self._held.discard(mark)
        raise FileExistsError(f"{wanted} and all of its numbered names were written in this batch already.")

    def release(self, path: Path) -> None:
        """Let go of a path that was claimed: from now on its file speaks for itself."""
        self._held.discard(_mark(path))


def _mark(path: Path) -> str:
    # Some file systems take two names that differ only in case for the same.
    return str(path.absolute()).casefold()


def _is_free(path: Path, since: float) -> bool:
    """Make the path's folder, and say whether nothing was written to it since then; a folder is free, for it takes names of ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    return path.is_dir() or found.st_mtime < since
