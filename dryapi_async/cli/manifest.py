"""A manifest: a file of operations, one a line. Text in, requests or problems out; no file is looked at here."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final, Literal

from attrs import define, field, frozen

from dryapi_async.cli.cells import OWN, all_fields, build, find_operation, suggest_operation
from dryapi_async.cli.words import say_in_shell, suggest
from dryapi_async.errors import InputError, show_value
from dryapi_async.operations.base import Operation
from dryapi_async.protocol.batches import make_name
from dryapi_async.protocol.replies import shorten
from dryapi_async.protocol.untyped import is_list, is_object

Form = Literal["lines", "commas", "tabs"]

FORMS: Final[Mapping[str, Form]] = {".jsonl": "lines", ".ndjson": "lines", ".json": "lines", ".csv": "commas", ".tsv": "tabs"}
"""A manifest's form by its file's ending."""
_BOM: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_CELL: Final = 10_000_000
"""Characters; the module csv would take 131,072."""
_KEY_DIGITS: Final = 5


@frozen(kw_only=True)
class Line:
    """One operation of a manifest."""

    number: int
    """Its line in the file, from 1."""
    key: str
    """The user's word for it, else its number as five digits: its label in the journal, and its result's name."""
    operation: Operation[Any]


@frozen
class Problem:
    """Why a line can't be sent."""

    number: int
    reason: str


@define
class Manifest:
    """What was read: lines that can be sent, and what is wrong with the others."""

    lines: list[Line] = field(factory=list[Line])
    problems: list[Problem] = field(factory=list[Problem])


def read_manifest(content: bytes, form: Form, folder: PurePath, *, op: str | None = None) -> Manifest:
    """Read a manifest's bytes. Relative paths are meant from ``folder``; ``op`` is the operation of lines that name none."""
    found = Manifest()
    if content.startswith(_UTF_16):
        found.problems.append(Problem(1, "the file is UTF-16: save it as UTF-8"))
        return found
    rows = _read_lines(content.removeprefix(_BOM), found) if form == "lines" else _read_table(content.removeprefix(_BOM), form, found)
    keys = _Keys()
    for number, given in rows:
        try:
            found.lines.append(_make_line(number, given, folder, op, keys, cells=form != "lines"))
        except InputError as error:
            found.problems.append(Problem(number, say_in_shell(str(error)).removesuffix(".")))
    if not found.lines and not found.problems:
        found.problems.append(Problem(1, "there is no operation in the file"))
    # Those of one line stay in the order in which they were found.
    found.problems.sort(key=lambda problem: problem.number)
    return found


def _make_line(number: int, given: dict[str, Any], folder: PurePath, op: str | None, keys: "_Keys", *, cells: bool) -> Line:
    key, named = given.pop("key", None), given.pop("op", op)
    problems: list[str] = []
    operation: Operation[Any] | None = None
    try:
        key = keys.take(key, number)
    except InputError as error:
        problems.append(str(error))
    cls = find_operation(named) if isinstance(named, str) else None
    if cls is None:
        shown = repr(shorten(named)) if isinstance(named, str) else show_value(named)
        unknown = f"there is no operation {shown}{suggest_operation(named) if isinstance(named, str) else ''}"
        problems.append("op is missing: give it in the line, or --op for all" if named is None else unknown)
    else:
        try:
            operation = build(cls, given, folder, cells=cells)
        except InputError as error:
            problems.append(str(error))
    if operation is None or problems:
        raise InputError("; ".join(problems))
    return Line(number=number, key=key, operation=operation)


class _Keys:
    """The keys so far, as the names that their results will have."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[int, str]] = {}

    def take(self, given: object, number: int) -> str:
        """Settle a line's key.

        Raises:
            InputError: It is none, or another line's result would have the same name.
        """
        key = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
        if key is None:
            key = f"{number:0{_KEY_DIGITS}}"
        if not isinstance(key, str) or not key.strip():
            raise InputError(f"key must be a text, not {show_value(given)}")
        if _has_surrogates(key):
            raise InputError("key has a character that isn't Unicode")
        # Some file systems take names for the same that differ in case, or in how an accent is spelled.
        name = unicodedata.normalize("NFC", make_name(key)).casefold()
        if name in self._lines:
            before, other = self._lines[name]
            same = f"key {key!r} is that of line {before}, too"
            raise InputError(same if other == key else f"key {key!r} makes the same file name as {other!r} of line {before}")
        self._lines[name] = number, key
        return key


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_lines(content: bytes, found: Manifest) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read JSON lines; blank ones and comments are passed over."""
    if content.lstrip().startswith(b"["):
        found.problems.append(Problem(1, "it is a JSON list: write one object a line, without the list's brackets and commas"))
        return
    for number, raw in enumerate(content.split(b"\n"), 1):
        line = raw.strip()
        if not line or line.startswith((b"#", b"//")):
            continue
        try:
            # The whole line, so that the columns named are those of the file.
            yield number, _read_object(raw)
        except InputError as error:
            found.problems.append(Problem(number, str(error)))


def _read_object(line: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise InputError(_name_bytes(error)) from None
    except json.JSONDecodeError as error:
        raise InputError(f"it isn't JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise InputError("it isn't JSON that can be read: it is nested too deeply") from None
    except InputError:
        raise
    except ValueError:
        raise InputError("it has a number of thousands of digits") from None
    if not is_object(value):
        raise InputError(f'it is no JSON object, such as {{"op": "txt2img", ...}}, but {"a list" if is_list(value) else show_value(value)}')
    # What is null isn't given.
    return {name: one for name, one in value.items() if one is not None}


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        raise InputError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return given


def _refuse_constant(word: str) -> Any:
    raise InputError(f"it isn't JSON: {word} is no number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_read_pairs, parse_constant=_refuse_constant)


def _name_bytes(error: UnicodeDecodeError) -> str:
    return f"it isn't UTF-8: byte 0x{error.object[error.start]:02x} at place {error.start + 1} of the line"


def _read_table(content: bytes, form: Form, found: Manifest) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read rows under a header; an empty cell isn't given."""
    bad = set(_find_bad_bytes(content, found))
    csv.field_size_limit(_LONGEST_CELL)
    text = io.StringIO(content.decode(errors="replace"), newline="")
    reader = csv.reader(text, delimiter="\t" if form == "tabs" else ",", strict=True, skipinitialspace=True)
    rows = _number_rows(reader, found)
    number, header = next(rows, (1, list[str]()))
    header = [name.strip() for name in header]
    if problem := _find_header_problem(header):
        found.problems.append(Problem(number, problem))
        return
    for number, cells in rows:
        if len(cells) > len(header):
            found.problems.append(Problem(number, f"it has {len(cells)} cells, but the header has {len(header)}"))
        elif number not in bad:
            yield number, {name: cell for name, cell in zip(header, map(str.strip, cells), strict=False) if cell}


def _number_rows(reader: Any, found: Manifest) -> Iterator[tuple[int, list[str]]]:
    """Give rows with the lines that they begin on; where one can't be read, nothing behind it can."""
    begins = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        found.problems.append(
            Problem(begins, f"the row that begins here can't be read ({error}): look at its quotes; nor can what follows")
        )


def _find_header_problem(header: list[str]) -> str | None:
    if not header:
        return None
    named = [name for name in header if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        return f"the header names {twice!r} twice"
    known = [*OWN, *all_fields()]
    wrong = next((name for name in named if name not in known), None)
    if wrong is None:
        return None
    if ";" in wrong:
        return "the header's names are separated by semicolons: separate them, and the cells, by commas"
    return f"the header has {wrong!r}, which is no field of any operation{suggest(wrong, known)}"


def _find_bad_bytes(content: bytes, found: Manifest) -> Iterable[int]:
    try:
        content.decode()
    except UnicodeDecodeError:
        for number, line in enumerate(content.split(b"\n"), 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                found.problems.append(Problem(number, _name_bytes(error)))
                yield number
