"""The journal's file, as the system and sqlite see it."""

import os
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path

from dryapi_async.errors import JournalError


def make_file(path: Path) -> None:
    """Make a new file that is its owner's alone; one that is there is left as it is.

    Raises:
        JournalError: The path can't be a journal's.
    """
    if path.is_dir():
        raise JournalError(f"Journal {path} is a directory: give the path of a file, such as {path / 'jobs.db'}.")
    if not path.parent.is_dir():
        raise JournalError(f"Journal {path}: the folder {path.parent} doesn't exist. Make it first.")
    if path.exists() and not path.is_file():
        raise JournalError(f"Journal {path} is no regular file: choose another.")
    with suppress(FileExistsError):
        # Only a new one: closing a file takes away all locks on it that this process has, sqlite's too.
        fd = os.open(path.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # The umask may have taken the owner's own rights.
        os.fchmod(fd, 0o600)
        os.close(fd)


def identify(file: Path) -> tuple[int, int] | None:
    """Tell a file from another of its name; None where there is none."""
    with suppress(FileNotFoundError):
        found = file.stat()
        return found.st_dev, found.st_ino
    return None


def switch_to_wal(db: sqlite3.Connection, busy_seconds: float) -> str:
    """Switch to WAL mode, and give the mode. Where processes open a new file at once, sqlite gives up here in place of waiting."""
    ends = time.monotonic() + busy_seconds
    while True:
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(0.005)
        else:
            return str(mode)


def close_to_others(file: Path) -> None:
    """Take the rights of everybody but the owner away."""
    with suppress(FileNotFoundError, PermissionError):
        if (mode := stat.S_IMODE(file.stat().st_mode)) & 0o077:
            file.chmod(mode & ~0o077)
