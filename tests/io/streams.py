"""What tests of sources share: a picture, a file object of a user's own, and a look at the threads that read such objects."""

import io
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ..conftest import PNG

PICTURE = PNG + os.urandom(700_000 - len(PNG))
"""Over two pieces long. What follows a PNG's end is ignored by every decoder."""


class Stream:
    """A seekable file object of a user's own, that can't be referenced weakly."""

    __slots__ = ("_inner", "log")

    def __init__(self, content: bytes = PICTURE) -> None:
        self._inner = io.BytesIO(content)
        self.log: list[str] = []

    def read(self, most: int = -1) -> bytes:
        time.sleep(0.0005)  # another thread's turn
        return self._inner.read(most)

    def seek(self, position: int, whence: int = 0) -> int:
        found = self._inner.seek(position, whence)
        time.sleep(0.0005)
        return found

    def tell(self) -> int:
        return self._inner.tell()

    def seekable(self) -> bool:
        return True


def own_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "dryapi-source"]


async def no_threads_left() -> None:
    for _ in range(500):
        if not own_threads():
            return
        time.sleep(0.005)  # noqa: ASYNC251  they end in real time, the clock is virtual
    assert not own_threads()


def stream_at(stream: Any, position: int = 7) -> Any:
    stream.seek(position)
    return stream


def spool(_: Path) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=10_000_000)  # noqa: SIM115  the test closes it
    file.write(b"7 bytes" + PICTURE)
    return file


def open_file(folder: Path) -> Any:
    (folder / "fox.png").write_bytes(b"7 bytes" + PICTURE)
    return (folder / "fox.png").open("rb")
