"""Flags from fields: what a request class takes is what its command takes."""

import ast
import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import click

from dryapi_async import InputError, Lora
from dryapi_async.cli.completion import complete_files
from dryapi_async.cli.words import say_in_shell
from dryapi_async.config import DEFAULT_TIMEOUT
from dryapi_async.operations import ALL
from dryapi_async.operations.base import Operation
from dryapi_async.protocol.untyped import is_sequence
from dryapi_async.protocol.wire import FILE_KIND

RequestClass = type[Operation[Any]]


def method_name(cls: RequestClass) -> str:
    """Name the client's method of a class, as users of the command may, too."""
    return cls.endpoint.slug.replace("-", "_").replace("prompts/", "prompt_").replace("/", "_")


def find_class(name: str) -> RequestClass | None:
    """Find a billed operation by its slug or its method's name."""
    return next((cls for cls in ALL if cls.endpoint.price and name in {cls.endpoint.slug, method_name(cls)}), None)


@cache
def field_help(cls: Any) -> Mapping[str, str]:
    """Read the text below each field in the class's source; without a source there is none."""
    try:
        (tree,) = ast.parse(inspect.getsource(cls)).body
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = without_marks(str(text.value.value))
    return found


def without_marks(text: str | None) -> str:
    """Take the marks of reStructuredText out of a docstring, and say for a shell what it says of Python."""
    return say_in_shell(inspect.cleandoc(text or "").replace("`", "")).replace("`", "'")


def timeout_option(help_text: str) -> click.Option:
    """Make the option of how long to wait."""

    def check(_: click.Context, __: click.Parameter, seconds: float) -> float:
        if not isfinite(seconds) or seconds <= 0:
            raise click.BadParameter(f"{seconds:g} is no number of seconds over 0.")
        return seconds

    return click.Option(["--timeout"], type=float, default=DEFAULT_TIMEOUT, show_default=True, callback=check, help=help_text)


def options_for(cls: RequestClass, *, optional: Sequence[str] = ()) -> list[click.Parameter]:
    """Make an option of each field; ``optional`` names fields that aren't required here."""
    known: Any = cls
    hints, texts = get_type_hints(cls), field_help(known)
    names = [one.name for one in attrs.fields(known)]
    options: list[click.Parameter] = []
    for one in attrs.fields(known):
        settings = _settings(_core(hints[one.name]), is_file=FILE_KIND in one.metadata)
        flags = _flags(one.name, names, switch=settings.pop("switch", False), several=settings.get("multiple", False))
        # A file whose class takes several under another name may be repeated, too: then it is those.
        if FILE_KIND in one.metadata and f"{one.name}s" in names:
            settings["multiple"] = True
            more = " Repeat it for several."
        else:
            more = ""
        # Its singular may be repeated, and that is told there.
        hidden = FILE_KIND in one.metadata and one.name.removesuffix("s") in names and one.name.endswith("s")
        required = one.default is attrs.NOTHING and one.name not in optional
        if not required:
            settings["default"] = None
        options.append(click.Option([*flags, one.name], required=required, help=_add(texts.get(one.name), more), hidden=hidden, **settings))
    return options


def _add(text: str | None, more: str) -> str | None:
    return text and text + more


def _flags(name: str, names: Sequence[str], *, switch: bool, several: bool) -> list[str]:
    """Spell a field's flags: ``--x/--no-x`` for yes or no, and the singular for what is repeated."""
    flag = "--" + name.replace("_", "-")
    if switch:
        return [f"{flag}/--no-{flag.removeprefix('--')}"]
    singular = name.removesuffix("s")
    return [flag.removesuffix("s"), flag] if several and singular != name and singular not in names else [flag]


def _core(hint: Any) -> Any:
    """Take ``X`` out of ``X | None``; of a text or several, several."""
    members = [one for one in get_args(hint) if one is not NoneType]
    if get_origin(hint) not in {Union, UnionType}:
        return hint
    return next((one for one in members if get_origin(one) is Sequence), members[0])


def _settings(hint: Any, *, is_file: bool) -> dict[str, Any]:
    if get_origin(hint) is Sequence:
        path = {"metavar": "PATH", "shell_complete": complete_files}
        return {"multiple": True, **(path if is_file else {"metavar": "NAME=WEIGHT" if Lora in get_args(hint) else "TEXT"})}
    if is_file:
        return {"metavar": "PATH", "shell_complete": complete_files}
    if hint is bool:
        return {"switch": True}
    if get_origin(hint) is Literal:
        return {"type": click.Choice([str(one) for one in get_args(hint)])}
    return {"type": {int: int, float: float}.get(hint, str)}


def make_request(cls: RequestClass, values: Mapping[str, Any], *, measures: Mapping[str, float] | None = None) -> Operation[Any]:
    """Make a request from the flags given; fields that measures stand for are filled with nothing that is sent."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None and value != ():
            fields |= _fields(cls, name, value, values)
    price = cls.endpoint.price
    if measures and price is not None:
        fields |= {name: "-" for name in price.replaces if name not in fields}
    return cls(**fields)


def _fields(cls: RequestClass, name: str, value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what one flag was given into its field; a file given several times goes to the field for several."""
    if not is_sequence(value):
        return {name: value}
    given: list[Any] = list(value)
    hint: Any = get_type_hints(cls)[name]
    core: Any = _core(hint)
    if get_origin(core) is not Sequence:
        several = len(given) > 1 and not values.get(f"{name}s")
        return {f"{name}s": given} if several else {name: given[0]}
    if Lora in get_args(core):
        return {name: [_read_lora(one) for one in given]}
    one_will_do = core is not hint and str in get_args(hint)
    return {name: given[0] if one_will_do and len(given) == 1 else given}


def _read_lora(text: str) -> Lora:
    name, _, weight = text.rpartition("=")
    try:
        return Lora(name=name, weight=float(weight))
    except ValueError:
        raise InputError(f"--lora takes NAME=WEIGHT, such as ink=0.8, not {text!r}.") from None
