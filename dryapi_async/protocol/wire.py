"""Requests become wire calls: JSON, multipart parts or a query, all from one description."""

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar, Final, Protocol

import attrs
from attrs import evolve, field, frozen

from dryapi_async.config import is_finite_number
from dryapi_async.errors import InputError, show_value
from dryapi_async.protocol.endpoint import DELIVERY_FIELDS, PRICES_LANE, BodyKind, CallKind, Endpoint
from dryapi_async.protocol.files import Source
from dryapi_async.protocol.jsons import encode_json
from dryapi_async.protocol.untyped import is_object, is_sequence
from dryapi_async.values import Value

FILE_KIND = "dryapi_file"
"""Metadata key of a file field: its value is the kind of media, ``image``, ``audio`` or ``video``."""
WIRE_NAME = "dryapi_name"
"""Metadata key: the field's name on the wire, where it can't be a Python name."""
ALWAYS = "dryapi_always"
"""Metadata key: sent as null (multipart: empty) even when unset."""


class Request(Protocol):
    """What can be encoded: an attrs instance that knows its endpoint."""

    endpoint: ClassVar[Endpoint]


@frozen(kw_only=True, eq=False, repr=False)
class TextPart(Value):
    """One form field."""

    name: str
    text: str


@frozen(kw_only=True, eq=False, repr=False)
class FilePart(Value):
    """One file of a form; ``kind`` is the media it must be."""

    name: str
    kind: str
    source: Source = field(repr=False)


@frozen(kw_only=True, eq=False, repr=False)
class WireCall(Value):
    """One HTTP request before it is anyone's: no host, no key, no open file."""

    slug: str
    kind: CallKind
    lane: str
    path: str
    method: str = "POST"
    query: tuple[tuple[str, str], ...] = ()
    content: bytes | None = field(default=None, repr=False)
    parts: tuple[TextPart | FilePart, ...] | None = field(default=None, repr=False)

    @property
    def billed(self) -> bool:
        """Whether sending it may cost money: then it is sent at most once."""
        return self.kind in {"submit", "prompt"}

    @property
    def name(self) -> str:
        """Method and slug, for messages."""
        return f"{self.method} {self.slug}"


@cache
def _unstructure(cls: Any) -> Callable[[Any], Mapping[str, Any]]:
    """Prepare the way from a request to its wire fields: service's names, sources left as they are."""
    # Imported with the first client (`options.load_parts`), not with the package: it takes a tenth of the package's own time.
    from cattrs import Converter  # noqa: PLC0415
    from cattrs.gen import make_dict_unstructure_fn, override  # noqa: PLC0415

    converter, fields = Converter(), attrs.fields(cls)
    # A field that is left alone isn't even looked at where none comes after it that must be: cattrs would put it behind that one.
    looked_at = max((place for place, one in enumerate(fields) if _must_be_looked_at(one)), default=-1)
    ways = {
        one.name: override(
            rename=one.metadata.get(WIRE_NAME),
            unstruct_hook=_leave if FILE_KIND in one.metadata else None,
            omit_if_default=place > looked_at,
        )
        for place, one in enumerate(fields)
    }
    return make_dict_unstructure_fn(cls, converter, **ways)  # type: ignore[arg-type]  # fields of any name are given as keywords


def _must_be_looked_at(one: "attrs.Attribute[Any]") -> bool:
    """Say whether a field may be sent though it is left alone, or compares in a way of its own, as sources do."""
    return one.default not in (None, ()) or ALWAYS in one.metadata or FILE_KIND in one.metadata


_LISTS: Final = frozenset({list, tuple})


def _leave(value: object) -> object:
    return value


@cache
def _always(cls: Any) -> frozenset[str]:
    """Name the fields, as on the wire, that are sent even as nothing."""
    return frozenset(one.metadata.get(WIRE_NAME, one.name) for one in attrs.fields(cls) if ALWAYS in one.metadata)


@cache
def _file_kinds(cls: Any) -> Mapping[str, str]:
    return {one.metadata.get(WIRE_NAME, one.name): one.metadata[FILE_KIND] for one in attrs.fields(cls) if FILE_KIND in one.metadata}


def wire_fields(request: Request) -> dict[str, Any]:
    """Read a request's fields under the service's names; what is unset is left out unless the service wants it present.

    They come in the order of their class: a journal's digest of a request is of its bytes.
    """
    cls = type(request)
    always = _always(cls)
    return {
        name: value
        for name, value in _unstructure(cls)(request).items()
        # A list without anything in it says nothing, other than an empty text. Requests hold no lists of other types.
        if not (value is None or (type(value) in _LISTS and not value)) or name in always
    }


def encode(request: Request, *, webhook_url: str | None = None, key: str = "{key}") -> WireCall:
    """Encode the call that a request stands for.

    ``webhook_url`` is the client's default, used where the request names none; ``key`` replaces ``{key}`` in either.
    """
    endpoint = request.endpoint
    fields = wire_fields(request)
    if endpoint.kind == "submit" and webhook_url is not None:
        fields.setdefault("webhook_url", webhook_url)
    if "webhook_url" in fields:
        fields["webhook_url"] = fields["webhook_url"].replace("{key}", key)
    path = endpoint.path
    if endpoint.path_field is not None:
        path += f"/{quote_id(fields.pop(endpoint.path_field))}"
    content, parts, query = _fill(endpoint.slug, endpoint.body, fields, type(request))
    return WireCall(
        slug=endpoint.slug,
        kind=endpoint.kind,
        lane=endpoint.lane,
        path=path,
        method=endpoint.method,
        content=content,
        parts=parts,
        query=query,
    )


def encode_reading(endpoint: Endpoint, request_id: str) -> WireCall:
    """Encode a reading that has nothing but an id, which stands in its path: `encode` without a request to look at."""
    path = f"{endpoint.path}/{quote_id(request_id)}"
    return WireCall(slug=endpoint.slug, kind=endpoint.kind, lane=endpoint.lane, path=path, method=endpoint.method)


def encode_price(request: Request, measures: Mapping[str, float]) -> WireCall:
    """Encode the question what a request would cost; ``measures`` stand in for the file or text that they measure.

    Raises:
        InputError: The operation has no price, or takes other measures.
    """
    endpoint = request.endpoint
    price = endpoint.price
    if price is None:
        raise InputError(f"{endpoint.slug} has no price: it costs nothing.")
    if measures and not set(measures) <= set(price.measures):
        takes = ", ".join(price.measures) or "no measures"
        raise InputError(f"The price of {endpoint.slug} takes {takes}, not {', '.join(sorted(set(measures) - set(price.measures)))}.")
    for name, number in measures.items():
        if not is_finite_number(number) or number <= 0:
            raise InputError(f"The price of {endpoint.slug}: {name} must be a number over 0, not {show_value(number)}.")
    dropped = DELIVERY_FIELDS | set(price.replaces if measures else ())
    kept = set(wire_fields(request)) - dropped
    if price.fields is not None:
        kept &= price.fields
    fields = {name: value for name, value in wire_fields(request).items() if name in kept}
    slug = f"{endpoint.slug}/price-calculation"
    content, parts, query = _fill(slug, price.body, fields | dict(measures), type(request))
    return WireCall(
        slug=slug,
        kind="price",
        lane=PRICES_LANE,
        path=f"{endpoint.path}/price-calculation",
        method=endpoint.method,
        content=content,
        parts=parts,
        query=query,
    )


Filled = tuple[bytes | None, tuple[TextPart | FilePart, ...] | None, tuple[tuple[str, str], ...]]
"""Content, parts, query."""


def _fill(slug: str, body: BodyKind, fields: Mapping[str, Any], cls: type) -> Filled:
    """Put the fields where the operation wants them: into JSON, a form, or the query."""
    try:
        if body == "json":
            return encode_json(fields), None, ()
        if body == "multipart":
            return None, tuple(_parts(fields, _file_kinds(cls))), ()
        return None, None, tuple((name, _query_text(value)) for name, value in fields.items())
    except UnicodeEncodeError:
        raise InputError(f"{slug}: {_name_unsendable(fields)} has a character that isn't Unicode: clean it before sending.") from None


def rename_key(call: WireCall, old: str, new: str) -> WireCall:
    """Put another key of a call in place of the one that an address in it holds."""
    parts = call.parts
    if parts is not None:
        parts = tuple(evolve(part, text=part.text.replace(old, new)) if isinstance(part, TextPart) else part for part in parts)
    content = None if call.content is None else call.content.replace(old.encode(), new.encode())
    return evolve(call, content=content, parts=parts)


_UNSENDABLE: Final = "[\ud800-\udfff]"
"""Halves of surrogate pairs."""


def _name_unsendable(fields: Mapping[str, Any]) -> str:
    """Name the field whose text is no Unicode. A request's own were looked at when it was made; the client's ``webhook_url`` wasn't."""
    return next((name for name, value in fields.items() if isinstance(value, str) and re.search(_UNSENDABLE, value)), "a text")


def _parts(fields: Mapping[str, Any], file_kinds: Mapping[str, str]) -> Iterator[TextPart | FilePart]:
    for name, value in fields.items():
        kind = file_kinds.get(name)
        if kind is None:
            yield from _text_parts(name, value)
        elif name.endswith("[]"):
            yield from (FilePart(name=name, kind=kind, source=source) for source in value)
        else:
            yield FilePart(name=name, kind=kind, source=value)


def _text_parts(name: str, value: object) -> Iterator[TextPart]:
    """Spell one field as form fields: PHP's brackets for what is nested, and what is nothing as an empty text."""
    if is_object(value):
        for key, inner in value.items():
            yield from _text_parts(f"{name}[{key}]", inner)
    elif is_sequence(value):
        for index, inner in enumerate(value):
            yield from _text_parts(f"{name}[{index}]", inner)
    else:
        yield TextPart(name=name, text=plain_text(value))


def plain_text(value: object) -> str:
    """Spell a value as the service reads it in a form: booleans 1 and 0, numbers in plain decimal, nothing as an empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    # The exact types' own spelling, as in JSON: an enum's member and a number of another library spell themselves in other ways.
    if isinstance(value, float):
        return format(Decimal(float.__repr__(value)), "f").removesuffix(".0")
    text = int.__repr__(value) if isinstance(value, int) else str.__str__(value) if isinstance(value, str) else str(value)
    text.encode()
    return text


def _query_text(value: object) -> str:
    return ",".join(plain_text(one) for one in value) if is_sequence(value) else plain_text(value)


_SAFE: Final = re.compile("[A-Za-z0-9_~-]+")
"""The service's own ids are such."""


def quote_id(request_id: str) -> str:
    """Make an id safe inside a path: percent-encoded, dots alone included."""
    if _SAFE.fullmatch(request_id):
        return request_id
    quoted = re.sub(rb"[^A-Za-z0-9_.~-]", lambda found: b"%%%02X" % found[0][0], request_id.encode(errors="replace")).decode()
    return quoted.replace(".", "%2E") if set(quoted) <= {"."} else quoted
