"""Where results are written: what may be a target, and names made of ids."""

import errno
from pathlib import Path

from dryapi_async.io.parts import part_name
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
    # Somebody who sweeps the folder may be faster.
    part.unlink(missing_ok=True)


def safe_name(request_id: str) -> str:
    """Make a file name of an id: what came from the network can't leave the folder, nor hide."""
    return quote_id(request_id).replace("%", "_").lstrip(".")[:_MOST_NAME_CHARACTERS] or "job"
