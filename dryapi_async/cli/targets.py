"""Where results go: looked at, and made, before anything is paid for."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from attrs import frozen

from dryapi_async.io.targets import check_target
from dryapi_async.protocol.media import type_of_name

_HELD: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    # what a result is by its usual ending: its name, and the types that it may come as
    ".png": ("a picture comes as .png, .jpg or .webp", ("image/png", "image/jpeg", "image/webp")),
    ".mp4": ("a film comes as .mp4", ("video/mp4",)),
    ".mp3": ("a sound comes as .mp3 or what --format says", ("audio/",)),
    "": ("a text comes as .txt or .json", ("text/", "application/json")),
}


@frozen
class Target:
    """A file to write, or a folder that takes the job's id and the type's ending."""

    path: Path
    is_folder: bool

    def prepare(self) -> Path:
        """Make the folders that aren't there yet, and give the path to save to.

        Raises:
            OSError: They can't be made.
        """
        (self.path if self.is_folder else self.path.parent).mkdir(parents=True, exist_ok=True)
        return self.path

    def prove(self) -> Path:
        """Make the folders and see that a file can be written there, before anything is sent; give the path.

        Raises:
            UsageError: It can't.
        """
        folder = self.path if self.is_folder else self.path.parent
        try:
            self.prepare()
        except OSError as error:
            refuse_out(f"the folder {folder} can't be made ({error.strerror}).")
        try:
            check_target(self.path)
        except OSError as error:
            refuse_out(f"{folder} can't be written to ({error.strerror}).")
        return self.path

    def check_kind(self, result_type: Any, sound: str | None = None) -> None:
        """Refuse a file name that promises what a result can't be: a picture as a.mp4, and a ``sound`` of one format as another's.

        Raises:
            UsageError: It does.
        """
        promised = None if self.is_folder else type_of_name(self.path.name)
        words, types = _HELD[getattr(result_type, "default_ending", "")]
        if promised is not None and not promised.startswith(types):
            refuse_out(f"{self.path.name} would be mislabelled: {words}.")
        asked = None if sound is None else type_of_name(f"a.{sound}")
        if promised is not None and asked is not None and asked.startswith("audio/") and promised != asked:
            refuse_out(f"{self.path.name} would be mislabelled: --format is {sound}.")

    def spell_for_wait(self) -> str:
        """Spell the path as ``dryapi wait --out`` takes it for one job; a name without a known ending would be a folder there."""
        named = self.is_folder or type_of_name(self.path.name) is not None
        return shlex.quote(str(self.path if named else self.path.parent))

    def spell_folder(self) -> str:
        """Spell the folder, as ``dryapi wait --out`` takes it for several jobs."""
        return shlex.quote(str(self.path if self.is_folder else self.path.parent))


def refuse_out(problem: str) -> NoReturn:
    """End for a target that can't be used.

    Raises:
        UsageError: Says why.
    """
    raise click.UsageError(f"--out: {problem} Nothing was sent.", click.get_current_context(silent=True))


def read_target(*, folder: bool = False, named: bool = False) -> Callable[[click.Context, click.Parameter, str], Target]:
    """Make an option's callback that takes a path; what can't be written is refused before a job is made.

    A folder is one that exists, or a name that ends with a slash; with ``folder`` it is every name, but with ``named`` for those that
    end as a result's file does.
    """

    def read(_: click.Context, __: click.Parameter, value: str) -> Target:
        path = Path(value)
        every = folder and not (named and type_of_name(path.name) is not None)
        try:
            target = Target(path, every or path.is_dir() or value.endswith(os.sep))
            problem = _find_problem(target)
        except OSError as error:  # a name that is too long, or a folder that may not be looked into
            refuse_out(f"{path} can't be written to ({error.strerror}).")
        if problem:
            refuse_out(problem)
        return target

    return read


def _find_problem(target: Target) -> str | None:
    path = target.path
    if path.exists() and target.is_folder != path.is_dir():
        return f"{path} is there and is no folder."
    if path.exists() and not target.is_folder and not path.is_file():
        return f"{path} is there and is no plain file, so it isn't replaced."
    folder = path if target.is_folder else path.parent
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        return f"{there} is no folder."
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} can't be written to."
    return None
