"""Temporary files: what is half written, whose process still lives, and what dead ones left behind."""

import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

_NAME: Final = r"\.dryapi-[0-9a-f]{16}\.part"


def part_name() -> str:
    """Make a temporary file's name: ``.dryapi-<16 hex digits>.part``, short whatever the target is called."""
    return f".dryapi-{secrets.token_hex(8)}.part"


class Part:
    """A file that is being written beside its target. It is locked until it has its name or is gone: what isn't locked is a dead run's.

    Every method blocks.
    """

    def __init__(self, folder: Path) -> None:
        self.path: Path = folder / part_name()
        self._held: int | None = None

    def open(self, path: str, flags: int) -> int:
        """Make the file and lock it, as an ``opener`` does.

        Raises:
            OSError: It can't be made.
        """
        descriptor = os.open(path, flags, 0o666)
        # A second descriptor of the same opening: the lock outlives the file's closing, up to its rename.
        try:
            self._held = os.dup(descriptor)
        except OSError:
            os.close(descriptor)
            self.path.unlink()
            raise
        _lock(self._held)
        return descriptor

    def rename(self, final: Path) -> Path:
        """Give the whole file its name; where that fails, it is gone."""
        try:
            os.replace(self.path, final)  # noqa: PTH105  the same, and atomic by its documentation
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            self._release()
        return final

    def discard(self) -> None:
        """Remove what was written."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self._release()

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _lock(descriptor: int) -> bool:
    """Take the lock, if nobody has it; where a file system has no locks every file counts as somebody's."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path) -> list[Path]:
    """Remove the half-written files that killed processes left in a folder, and name them; those of living ones stay."""
    swept: list[Path] = []
    for path in folder.iterdir():
        if re.fullmatch(_NAME, path.name) is None:
            continue
        with suppress(OSError):  # another sweeper was faster, or it isn't ours to remove
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _lock(descriptor):
                    path.unlink()
                    swept.append(path)
            finally:
                os.close(descriptor)
    return swept
