"""The files that a manifest names: looked at before anything is sent."""

import os
import stat
from collections.abc import Iterable

from dryapi_async.cli.manifest import Line, Problem
from dryapi_async.errors import SourceError
from dryapi_async.io.sources import Reader
from dryapi_async.io.uploads import size_up
from dryapi_async.operations.limits import file_fields
from dryapi_async.protocol.digest import digest_request
from dryapi_async.protocol.multipart import SizedFile
from dryapi_async.protocol.wire import FilePart, encode


def find_file_problems(lines: Iterable[Line]) -> list[Problem]:
    """Look at each file once, and say which can't be sent."""
    looked: dict[str, str | None] = {}
    problems: list[Problem] = []
    for line in lines:
        reasons: list[str] = []
        for name, _, source in file_fields(line.operation):
            path = str(source)
            if path not in looked:
                looked[path] = _find_problem(path)
            if reason := looked[path]:
                reasons.append(f"{name}: {path} {reason}")
        if reasons:
            problems.append(Problem(line.number, "; ".join(reasons)))
    return problems


def _find_problem(path: str) -> str | None:
    try:
        # Looked at, not opened: opening a pipe waits for who writes to it.
        found = os.stat(path)  # noqa: PTH116  the path is a text, and may be one that Path refuses
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except ValueError:
        return "can't be a path"
    if stat.S_ISDIR(found.st_mode):
        return "is a folder"
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file"
    if not found.st_size:
        return "is empty"
    return None if os.access(path, os.R_OK) else "can't be read: Permission denied"


def digest_line(line: Line) -> str | None:
    """Give the digest that a line's call has in the journal; None where it can't be told.

    That is where a file isn't what its field takes, and where the call's own key is part of what is sent.
    """
    if "{key}" in (getattr(line.operation, "webhook_url", None) or ""):
        return None
    call = encode(line.operation)
    try:
        return digest_request(call, [_size_up(part) for part in call.parts or () if isinstance(part, FilePart)])
    except SourceError:
        return None


def _size_up(part: FilePart) -> SizedFile:
    reader = Reader(part.source)
    try:
        return size_up(part, reader, reader.open())
    finally:
        reader.close()
