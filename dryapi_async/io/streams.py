"""A user's file objects, as all who read them at once share them. Every method but `take` and `give_back` may block."""

import io
import os
import threading
from contextlib import suppress
from typing import Any, Final

_streams: Final[dict[int, "SharedStream"]] = {}
"""By the object's id, as long as somebody reads it: not every object can be referenced weakly, and an entry keeps its object alive."""


class SharedStream:
    """One file object. A seek and the read after it are one step, and its position goes back to where the first reader found it."""

    def __init__(self, stream: Any) -> None:
        self.stream: Any = stream
        self.home: int | None = None
        """The position at which the first reader found it: all readers start there."""
        self._lock = threading.Lock()
        self._gate = threading.Lock()
        self._readers = 0
        self._busy: set[object] = set()
        self._taken_by: object = None
        self._retired = False

    def join(self) -> bool:
        """Count one more reader in; False where the last one has left already."""
        with self._gate:
            if not self._retired:
                self._readers += 1
            return not self._retired

    def look(self, start: int | None, most: int) -> tuple[int, int, Any]:
        """Say where a reader starts, how many bytes there are from there, and what the first ones are."""
        with self._lock:
            home: int = self.stream.tell() if self.home is None else self.home
            self.home = home
            start = home if start is None else start
            try:
                self.stream.seek(0, os.SEEK_END)
                size = self.stream.tell() - start
                self.stream.seek(start)
                return start, size, self.stream.read(most)
            finally:
                self.stream.seek(home)

    def read(self, reader: object, position: int, most: int) -> Any:
        """Read at a position, whoever else reads elsewhere."""
        with self._lock:
            self._busy.add(reader)
            self.stream.seek(position)
            return self.stream.read(most)

    def read_on(self, most: int) -> Any:
        """Read what comes next, as soon as there is some."""
        with self._lock:
            # read() would wait until a slow pipe has given all of it.
            return self.stream.read1(most) if isinstance(self.stream, io.BufferedIOBase) else self.stream.read(most)

    def rest(self, reader: object) -> None:
        """Note that a reader has read all that it wants; after the last one, put the position back."""
        with self._lock:
            self._rest(reader)

    def _rest(self, reader: object) -> None:
        if reader in self._busy:
            self._busy.discard(reader)
            if not self._busy:
                # The user may have closed it by now.
                with suppress(Exception):
                    self.stream.seek(self.home)

    def take(self, reader: object) -> bool:
        """Note that a reader reads what can be read only once; False where another one is at it."""
        with self._gate:
            if self._taken_by not in {None, reader}:
                return False
            self._taken_by = reader
            return True

    def give_back(self, reader: object) -> None:
        """Let the next one read on."""
        with self._gate:
            if self._taken_by is reader:
                self._taken_by = None

    def leave(self, reader: object) -> None:
        """Count a reader out."""
        self.give_back(reader)
        if self.home is not None:
            self.rest(reader)
        with self._gate:
            self._readers -= 1
            if not self._readers:
                self._retired = True
                del _streams[id(self.stream)]


def share(stream: Any) -> SharedStream:
    """Find the entry of a file object that is being read, or make one; each call is one reader, who leaves it in the end."""
    while True:
        shared = _streams.setdefault(id(stream), SharedStream(stream))
        if shared.join():
            return shared
