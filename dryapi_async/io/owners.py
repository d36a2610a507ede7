"""Which process's life a call belongs to, and whether it still lives: a lock on a file of its own, beside the journal."""

import fcntl
import os
import secrets
from pathlib import Path


class OwnerLock:
    """The sign that an owner lives: a lock on its own file, which the kernel frees at its death."""

    def __init__(self, path: Path) -> None:
        """Take a fresh owner's lock beside the journal ``path``, inside a transaction: others look for the dead only inside theirs."""
        self.owner: str = secrets.token_hex(8)
        self._file = lock_file(path, self.owner)
        self._fd: int = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(self._fd, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let go: this owner is dead from now on."""
        self._file.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close the file without a word: a forked child isn't the owner, and a lock lives until its last holder closes it."""
        os.close(self._fd)


def lock_file(path: Path, owner: str) -> Path:
    """Find an owner's lock file."""
    return path.with_name(f"{path.name}.{owner}.lock")


def is_alive(path: Path, owner: str) -> bool:
    """Say whether an owner holds its lock."""
    try:
        fd = os.open(lock_file(path, owner), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError) as error:
        # Another user's can't be asked: it is let alone.
        return isinstance(error, PermissionError)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
