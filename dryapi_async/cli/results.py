"""What a batch leaves in its folder: results by their keys, and a line for each outcome."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, Final, Literal

import attrs
from attrs import frozen

from dryapi_async.io.parts import Part
from dryapi_async.protocol.batches import make_name
from dryapi_async.protocol.media import ending_of, type_of_name

State = Literal["saved", "failed", "unknown", "refused", "stopped"]

OUTCOMES: Final = "outcomes.jsonl"
_CLOCK_SLACK: Final = 2.0
"""Seconds: some file systems keep time no finer."""
_PIECE_BYTES: Final = 64 * 1024


@frozen(kw_only=True)
class Told:
    """One line of ``outcomes.jsonl``."""

    key: str
    line: int
    op: str
    state: State
    """saved; failed (paid for, and the job failed); unknown (maybe paid for); refused (not billed); stopped (the same command goes on)."""
    ticket: str | None = None
    path: str | None = None
    """Of the result, in the batch's folder."""
    seconds: float | None = None
    price: Decimal | None = None
    error: str | None = None
    """The error's class."""
    message: str | None = None


class Log:
    """``outcomes.jsonl``: a line an outcome, appended whole by whatever processes. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / OUTCOMES

    def read_states(self) -> dict[str, str]:
        """Cut off what a killed process left half written, and read the last state of each key.

        Raises:
            OSError: It can't be read or written.
        """
        states: dict[str, str] = {}
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "rb") as file:
            flock(fd, LOCK_EX)
            _cut_torn(fd)
            for line in file:
                with suppress(ValueError, KeyError, TypeError):
                    said: dict[str, Any] = json.loads(line)
                    states[said["key"]] = said["state"]
        return states

    def append(self, told: Iterable[Told]) -> None:
        """Append outcomes with one write.

        Raises:
            OSError: They can't be written.
        """
        lines = "".join(json.dumps(attrs.asdict(one), default=str) + "\n" for one in told)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            flock(fd, LOCK_EX)
            os.write(fd, lines.encode())
        finally:
            os.close(fd)


def _cut_torn(fd: int) -> None:
    end = size = os.fstat(fd).st_size
    while end:
        start = max(0, end - _PIECE_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)


def find_results(folder: Path) -> dict[str, tuple[str, float]]:
    """Find the results in a folder: by the name that a key makes, the newest file's name and its time."""
    found: dict[str, tuple[str, float]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if type_of_name(entry.name) is None or not entry.is_file():
                continue
            try:
                written = entry.stat().st_mtime
            except FileNotFoundError:
                continue  # another process gave it its last name meanwhile
            stem = entry.name[: -len(ending_of(entry.name))]
            if stem not in found or written > found[stem][1]:
                found[stem] = entry.name, written
    return found


def pick_result(results: dict[str, tuple[str, float]], key: str, since: float) -> str | None:
    """Give the file of a key's result, if it was written since its call was made: an older one is something else's."""
    name, written = results.get(make_name(key), ("", 0.0))
    return name if name and written >= since - _CLOCK_SLACK else None


def write_answer(folder: Path, key: str, answer: Any) -> str:
    """Write a prompt tool's answer as JSON, whole or not at all, and give the file's name.

    Raises:
        OSError: It can't be written.
    """
    final = folder / f"{make_name(key)}.json"
    part = Part(folder)
    try:
        with open(part.path, "x", encoding="utf-8", opener=part.open) as file:
            json.dump(attrs.asdict(answer), file)
    except BaseException:
        part.discard()
        raise
    return part.rename(final).name


def take_name(path: Path, key: str) -> Path:
    """Give a result the name of its key, where another process that fetched the same took it a moment before: both are the same."""
    wanted = path.with_name(make_name(key) + ending_of(path.name))
    return path if wanted == path else path.replace(wanted)
