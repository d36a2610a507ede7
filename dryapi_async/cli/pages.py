"""A batch's contact sheet, ``index.html``: in the manifest's order, whichever run made a result."""

from pathlib import Path
from typing import Any, Final

from dryapi_async.cli.board import Board
from dryapi_async.cli.manifest import Line
from dryapi_async.cli.results import Told
from dryapi_async.errors import ConfigurationError
from dryapi_async.operations.limits import file_fields
from dryapi_async.sheet import Entry, Sheet

SHEET: Final = "index.html"
_STATES: Final[dict[str, Any]] = {"saved": "saved", "failed": "failed", "refused": "failed", "unknown": "unknown", "stopped": "waiting"}
_WORDS: Final = ("prompt", "text", "caption", "input")
"""Fields that say what a result is of."""


class Pages:
    """Writes the contact sheet; where it can't be written the batch goes on without it."""

    def __init__(self, folder: Path, board: Board) -> None:
        self._sheet: Sheet | None = Sheet(folder / SHEET)
        self._board = board
        self._known: dict[str, str] = {}

    async def open(self) -> None:
        """Make the sheet, or read which results an earlier run has put on it.

        Raises:
            ConfigurationError: It can't be written: nothing was sent.
        """
        assert self._sheet is not None  # noqa: S101  for the type checker
        try:
            self._known = await self._sheet.states()
        except OSError as error:
            self._sheet = None
            raise ConfigurationError(f"{error.filename or SHEET}: {error.strerror}. Give another --out, or --no-sheet.") from error

    async def put_missing(self, line: Line, told: Told) -> None:
        """Put what an earlier run, or another process, did and isn't on the sheet."""
        if self._known.get(line.key) != _STATES[told.state]:
            await self.put(line, told)

    async def put(self, line: Line, told: Told) -> None:
        """Put one result on the sheet."""
        if self._sheet is not None:
            try:
                await self._sheet.put(make_entry(line, told))
            except OSError as error:
                self._give_up(error)

    async def close(self) -> None:
        """Write what is left."""
        if self._sheet is not None:
            try:
                await self._sheet.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._sheet = None
        self._board.warn(f"{SHEET} can't be written ({error.strerror}): the batch goes on without it")


def make_entry(line: Line, told: Told) -> Entry:
    """Make the sheet's entry of an outcome."""
    fields: dict[str, Any] = {name: getattr(line.operation, name, None) for name in (*_WORDS, "model", "seed")}
    source = next((str(source) for _, kind, source in file_fields(line.operation) if kind == "image"), None)
    return Entry(
        index=line.number,
        key=line.key,
        operation=told.op,
        state=_STATES[told.state],
        prompt=next((str(fields[name]) for name in _WORDS if fields[name]), None),
        model=fields["model"],
        seed=fields["seed"],
        seconds=told.seconds,
        price=None if told.price is None else str(told.price),
        error=None if told.error is None else f"{told.error}: {told.message}",
        file=told.path,
        source=None if source is None else Path(source).absolute(),
    )
