"""Plain files by their descriptors: what tells two states of one apart, and reading into a buffer, with a wait or without."""

import errno
import io
import os
import stat
import sys
from typing import Any, Final

Stamp = tuple[int, int, int, int]

_REFUSALS: Final = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def stamp(found: os.stat_result) -> Stamp:
    """Take from a file's status what differs once its content does."""
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


def is_plain(stream: Any) -> bool:
    """Say whether a file object stands on a plain file and adds nothing to it, so that it can be read without moving its position."""
    raw = stream.raw if type(stream) in {io.BufferedReader, io.BufferedRandom} else stream
    return type(raw) is io.FileIO and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)


def read_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill a buffer as far as the file goes, and give the bytes read; may block, and moves no position."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], offset)
    piece = os.pread(fd, len(view), offset)
    view[: len(piece)] = piece
    return len(piece)


def read_cached(fd: int, view: memoryview, offset: int) -> int | None:
    """Read what the system holds in its page cache, and give the bytes read, fewer than there are or 0 where it would have to wait.

    None where it can't say: the flag is Linux's, and each file system takes it or refuses it (ext4, XFS and Btrfs take it, tmpfs
    doesn't on every kernel). An error of the disk is left to `read_into` to find.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.preadv(fd, [view], offset, os.RWF_NOWAIT)
    except OSError as error:
        return None if error.errno in _REFUSALS else 0
