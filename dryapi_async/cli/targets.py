"""Where results go: looked at before anything is paid for, made when there is something to write."""

import os
from collections.abc import Callable
from pathlib import Path

import click
from attrs import frozen


@frozen
class Target:
    """A file to write, or a folder that takes the job's id and the type's ending."""

    path: Path
    is_folder: bool

    def prepare(self) -> Path:
        """Make the folders that aren't there yet, and give the path to save to."""
        (self.path if self.is_folder else self.path.parent).mkdir(parents=True, exist_ok=True)
        return self.path


def read_target(*, folder: bool = False) -> Callable[[click.Context, click.Parameter, str], Target]:
    """Make an option's callback that takes a path; what can't be written is refused before a job is made.

    A folder is one that exists, or a name that ends with a slash; with ``folder`` it is every name.
    """

    def read(_: click.Context, __: click.Parameter, value: str) -> Target:
        path = Path(value)
        target = Target(path, folder or path.is_dir() or value.endswith(os.sep))
        problem = _find_problem(target)
        if problem:
            raise click.BadParameter(f"{problem} Nothing was sent.")
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
