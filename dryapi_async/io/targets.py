"""Where results are written: what may be a target, how the temporary file beside it is called, and names made of ids."""

import errno
import os
import secrets
from pathlib import Path

from dryapi_async.protocol.wire import quote_id

_MOST_NAME_CHARACTERS = 128


def split_target(target: Path) -> tuple[Path, str]:
    """Split a target into its folder and name; a directory has no name yet. A device or a pipe isn't a target: it would be replaced.

    Raises:
        OSError: Nothing can be written there: the same error that writing would meet.
    """
    try:
        target.stat()
    except FileNotFoundError:
        target.parent.stat()
        return target.parent, target.name
    if target.is_dir():
        return target, ""
    if not target.is_file():
        raise FileExistsError(errno.EEXIST, "it is there and is no plain file, so it isn't replaced", str(target))
    return target.parent, target.name


def check_target(target: Path) -> None:
    """Find out whether a target can be written, by making a temporary file beside it and removing that again.

    Raises:
        OSError: It can't: the same error that saving would meet.
    """
    folder, _ = split_target(target)
    part = folder / part_name()
    with part.open("xb"):
        pass
    part.unlink()


def part_name() -> str:
    """Make a temporary file's name: ``.dryapi-<16 hex digits>.part``, short whatever the target is called."""
    return f".dryapi-{secrets.token_hex(8)}.part"


def rename(part: Path, final: Path) -> Path:
    """Give a whole file its name; where that fails, it is gone."""
    try:
        os.replace(part, final)  # noqa: PTH105  the same, and atomic by its documentation
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return final


def safe_name(request_id: str) -> str:
    """Make a file name of an id: what came from the network can't leave the folder, nor hide."""
    return quote_id(request_id).replace("%", "_").lstrip(".")[:_MOST_NAME_CHARACTERS] or "job"
