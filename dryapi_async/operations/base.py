"""What every request class shares: it knows its endpoint, and refuses wrong types when it is made."""

from collections.abc import Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, Generic, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from dryapi_async.config import is_finite_number
from dryapi_async.errors import InputError, show_value
from dryapi_async.operations.results import Door, Result
from dryapi_async.protocol.endpoint import Endpoint
from dryapi_async.protocol.files import check_source, describe
from dryapi_async.protocol.status import Update
from dryapi_async.protocol.untyped import is_sequence
from dryapi_async.protocol.wire import ALWAYS, FILE_KIND, WIRE_NAME
from dryapi_async.values import Value

R_co = TypeVar("R_co", covariant=True)
MOST_INT: Final = 2**64 - 1
"""No service's number is longer, and one of thousands of digits can't even be spelled."""
LEAST_INT: Final = -MOST_INT


@frozen(kw_only=True, eq=False, repr=False)
class Lora(Value):
    """A style weight on top of a model. The service's own advice: leave LoRAs out of first tries."""

    name: str
    """Its name in the model's list of LoRAs."""
    weight: float
    """0 or more; 1 is its full strength."""

    def __attrs_post_init__(self) -> None:
        """Refuse wrong types before anything is sent.

        Raises:
            InputError: Names the field and what it takes.
        """
        _check_fields(self)


class Operation(Value, Generic[R_co]):
    """A request as a value: hold it, log it, compare it, send it again. ``R_co`` is what finishing it gives."""

    __slots__ = ()

    endpoint: ClassVar[Endpoint]

    def __attrs_post_init__(self) -> None:
        """Refuse wrong types and combinations before anything is sent.

        Raises:
            InputError: Names the field and what it takes.
        """
        _check_fields(self)
        cls: Any = type(self)
        for name, several in _file_fields(cls):
            value = getattr(self, name)
            for source in () if value is None else value if several else (value,):
                check_source(f"{cls.__name__}: {name}", source)
        self.check()

    def check(self) -> None:
        """Refuse combinations of fields that the service is known to refuse."""


class JobOperation(Operation[R_co]):
    """A request that makes a paid job."""

    __slots__ = ()

    result_type: ClassVar[type[Any]]
    """The class of its results, a `Result`."""

    @classmethod
    async def read_result(cls, request_id: str, update: Update, door: Door) -> Result:
        """Make the result of a job that is done; what the news didn't bring is fetched through the door."""
        result: Result = await cls.result_type.from_update(request_id, update, door)
        return result


class Reader(Protocol):
    """Reads a decoded answer."""

    def __call__(self, body: Any, /) -> Any:
        """Give the value, or raise ResponseError."""
        ...


class InstantOperation(Operation[R_co]):
    """A request that is answered at once: a prompt tool, which is billed, or a reading, which isn't."""

    __slots__ = ()

    read_answer: ClassVar[Reader]
    """Reads the decoded answer; fractions come as Decimal."""


class Accepts(Protocol):
    """Says whether a value fits a field."""

    def __call__(self, value: object, /) -> bool:
        """Say it."""
        ...


def _check_fields(request: object) -> None:
    """Check each field against its annotation. Lists become tuples: what was checked stays what is sent."""
    cls: Any = type(request)
    for name, default, exact, check in _checks(cls):
        value = getattr(request, name)
        # What most fields of most requests are is told at a glance: left alone, or a plain text or number. NaN is in no range.
        if value is default:
            continue
        if type(value) is exact and (value.isascii() if exact is str else LEAST_INT <= value <= MOST_INT):
            continue
        accepts, wanted, is_file = check
        if not accepts(value):
            raise InputError(f"{cls.__name__}: {name} must be {wanted}, not {show_value(value)}.")
        parts = (value,)
        if is_sequence(value):
            parts = tuple(value)
            object.__setattr__(request, name, parts)
        # The name of a file may be no Unicode; it isn't sent as it is.
        for one in () if is_file else parts:
            if problem := _find_unsendable(one):
                raise InputError(f"{cls.__name__}: {name} {problem}.")


def _find_unsendable(value: object) -> str | None:
    """Say why a text or a number of the right type can't be sent all the same."""
    if isinstance(value, int) and not LEAST_INT <= value <= MOST_INT:
        return f"must be a number of at most 64 bits, not one of {value.bit_length()}"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"has a character that isn't Unicode ({error.reason} at {error.start}): clean it before sending"
    return None


@cache
def _file_fields(cls: Any) -> tuple[tuple[str, bool], ...]:
    """Name the fields that hold files, each with whether it takes several."""
    hints = get_type_hints(cls)
    return tuple((one.name, _takes_several(hints[one.name])) for one in attrs.fields(cls) if FILE_KIND in one.metadata)


def _takes_several(hint: Any) -> bool:
    return get_origin(_without_none(hint)) is Sequence


_Check = tuple[str, object, Any, tuple[Accepts, str, bool]]
"""A field's name and default, and the type that is plain to see; then what it accepts, that in words, and whether it holds files."""
_EXACT: Final = {str: str, int: int, bool: bool, float: float}


@cache
def _checks(cls: Any) -> tuple[_Check, ...]:
    """Prepare a check for each field from its annotation, once per class."""
    hints = get_type_hints(cls)
    found: list[_Check] = []
    for one in attrs.fields(cls):
        if FILE_KIND not in one.metadata:
            exact = _EXACT.get(_without_none(hints[one.name]))
            found.append((one.name, _default_of(one), exact, (*_check_for(hints[one.name]), False)))
        elif _takes_several(hints[one.name]):
            found.append((one.name, _default_of(one), None, (_accepts_sources, "a list or tuple of sources", True)))
    return tuple(found)


def _default_of(one: "attrs.Attribute[Any]") -> object:
    """Give what a field is where it is left alone; nothing that can be given where it must be given."""
    return object() if one.default is attrs.NOTHING else one.default


def _without_none(hint: Any) -> Any:
    """Take ``X`` out of ``X | None``."""
    inner = [one for one in get_args(hint) if one is not NoneType]
    return inner[0] if get_origin(hint) in {Union, UnionType} and len(inner) == 1 else hint


def _accepts_sources(value: object, /) -> bool:
    return value is None or is_sequence(value)


def _check_for(hint: Any) -> tuple[Accepts, str]:
    """Make a check and its words from one annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        checks = [_check_for(one) for one in arguments if one is not NoneType]
        nullable = NoneType in arguments
        words = " or ".join(said for _, said in checks) + (" or None" if nullable else "")
        return (lambda value: (nullable and value is None) or any(accepts(value) for accepts, _ in checks)), words
    if origin is Literal:
        return (lambda value: isinstance(value, str) and value in arguments), f"one of {', '.join(map(repr, arguments))}"
    if origin is Sequence:
        accepts, said = _check_for(arguments[0])
        return (lambda value: is_sequence(value) and all(map(accepts, value))), f"a list or tuple, each {said}"
    return _ATOMS.get(hint, (lambda value: isinstance(value, hint), hint.__name__))


def _accepts_number(value: object, /) -> bool:
    return is_finite_number(value)


_ATOMS: dict[Any, tuple[Accepts, str]] = {
    str: (lambda value: isinstance(value, str), "a str"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    int: (lambda value: isinstance(value, int) and not isinstance(value, bool), "an int"),
    float: (_accepts_number, "a finite number"),
}


def file_field(kind: Literal["image", "audio", "video"], *, name: str | None = None) -> dict[str, Any]:
    """Say in a field's metadata that it is a file of one kind, and its name on the wire where that differs."""
    return {FILE_KIND: kind} | ({WIRE_NAME: name} if name else {})


def sent_always() -> dict[str, Any]:
    """Say in a field's metadata that the service wants it present, even as nothing."""
    return {ALWAYS: True}


def show_sources(value: object) -> str:
    """Show a file field in a repr without its bytes."""
    return f"[{', '.join(map(describe, value))}]" if is_sequence(value) else "None" if value is None else repr(describe(value))
