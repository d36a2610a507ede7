"""What a batch works out without waiting: names of files, shapes of prices, and how fast it goes."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Final

from attrs import define, field, frozen

from dryapi_async.errors import InputError
from dryapi_async.protocol.media import ending_of, type_of_name
from dryapi_async.protocol.wire import FilePart, Request, TextPart, WireCall, encode_price

FIELDS: Final = ("index", "key", "request_id", "seed", "suffix")
"""What a template may name."""
_DIFFER: Final = frozenset({"index", "key", "request_id"})
"""Those that differ from outcome to outcome; a key may repeat, which is looked after where the file is written."""
_NUMBERS: Final = frozenset({"index", "seed"})
_SPEC: Final = re.compile(r"(0?[1-9][0-9]?)?d?")
"""How a number may be written: so many digits."""
_MOST_NAME_BYTES: Final = 120
"""Of a key in a name: file systems take 255 for the whole name."""
_UNSAFE: Final = frozenset('/\\:*?"<>|')
"""What some file system refuses in a name."""
MOST_SHAPES: Final = 256
"""Prices that a batch remembers."""


@frozen
class Template:
    """A path with fields in braces, such as ``out/{index:05}{suffix}``."""

    pieces: tuple[tuple[str, str | None, str], ...]
    """Literal text, the field behind it or None, and how that is written."""

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a template.

        Raises:
            InputError: A field that there isn't, or none that differs from outcome to outcome.
        """
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise InputError(f"save={text!r} can't be read ({error}): write a brace of the name's own twice.") from None
        for _, name, spec, conversion in parsed:
            if name is None:
                continue
            if name not in FIELDS:
                raise InputError(f"save={text!r}: there is no field {name!r}; the fields are {', '.join(FIELDS)}.")
            if conversion or (spec and not (name in _NUMBERS and _SPEC.fullmatch(spec))):
                raise InputError(f"save={text!r}: only index and seed take a format, of digits, such as {{index:05}}.")
        if not _DIFFER & {name for _, name, _, _ in parsed}:
            raise InputError(f"save={text!r} would give every result the same path: name index, key or request_id in it.")
        return cls(tuple((literal, name, spec or "") for literal, name, spec, _ in parsed))

    @property
    def folder(self) -> str:
        """The folder that all paths are in, as far as it is the same for all; empty is the current one."""
        literal = self.pieces[0][0]
        return literal[: literal.rfind("/") + 1]

    def fill(self, *, index: int, key: str, request_id: str, seed: int | None, suffix: str) -> str:
        """Write the path of one outcome; nothing that is filled in adds a folder."""
        texts = {"key": make_name(key), "request_id": make_name(request_id), "suffix": suffix}
        numbers = {"index": index, "seed": seed}
        written = ""
        for literal, name, spec in self.pieces:
            number = numbers.get(name or "")
            written += literal + (texts.get(name or "", "") if number is None else format(number, spec))
        return written


def make_name(text: str) -> str:
    """Make a part of a file name of any text: no separators, nothing invisible, no dots around it, 120 bytes at most."""
    clean = "".join("_" if one in _UNSAFE or not one.isprintable() else one for one in text).strip(". ")
    return clean.encode()[:_MOST_NAME_BYTES].decode(errors="ignore").rstrip(". ") or "_"


def number_name(name: str, index: int) -> Iterator[str]:
    """Give the names that a file may have, the wanted one first: the others have the outcome's number before the ending."""
    yield name
    ending = ending_of(name)
    stem = name[: len(name) - len(ending)]
    yield f"{stem}~{index}{ending}"
    for further in range(2, 1000):
        yield f"{stem}~{index}~{further}{ending}"


def pick_suffix(url: str | None, default: str) -> str:
    """Find a file's ending in its link, where that has one that is known; a link comes from the network."""
    name = (url or "").partition("?")[0].rpartition("/")[2]
    return ending_of(name) if type_of_name(name) else default


_WORDS: Final = frozenset({"prompt", "negative_prompt", "instruct", "topic", "seed"})
"""Price fields that say what is made, not how much of it."""
_MEASURED: Final = frozenset({"text", "input", "video_url", "audio_url"})
"""Price fields that the service measures itself: two values of them may differ in price."""


def price_measures(request: Request) -> Mapping[str, float]:
    """Measure what can be measured here, so that it isn't sent: a text's characters."""
    price, text = request.endpoint.price, getattr(request, "text", None)
    return {"count_text": len(text)} if price is not None and "count_text" in price.measures and isinstance(text, str) and text else {}


def price_shape(request: Request) -> str | None:
    """Say what the price of a request depends on; None where it depends on what only the service measures (a file, a page)."""
    call = encode_price(request, price_measures(request))
    fields = _sent_fields(call)
    if fields is None or _MEASURED & fields.keys():
        return None
    return f"{call.slug} {json.dumps({name: value for name, value in fields.items() if name not in _WORDS}, sort_keys=True)}"


def _sent_fields(call: WireCall) -> dict[str, object] | None:
    """Read back what a call sends; None where it sends a file."""
    if call.content is not None:
        sent: dict[str, object] = json.loads(call.content)
        return sent
    if any(isinstance(part, FilePart) for part in call.parts or ()):
        return None
    texts = {part.name: part.text for part in call.parts or () if isinstance(part, TextPart)}
    return {**texts, **dict(call.query)}


_SAMPLES: Final = 30
_SAMPLE_SECONDS: Final = 1.0


@define
class Pace:
    """How fast a batch goes, over its last 30 samples, which are a second apart or more."""

    began: float
    _samples: deque[tuple[float, int]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._samples = deque([(self.began, 0)], maxlen=_SAMPLES)

    def note(self, now: float, ended: int) -> None:
        """Note how many have ended by now."""
        if now - self._samples[-1][0] >= _SAMPLE_SECONDS:
            self._samples.append((now, ended))

    def rate(self, now: float, ended: int) -> float:
        """Say how many end in a second."""
        then, before = self._samples[0]
        return (ended - before) / (now - then) if now > then else 0.0


def make_label(key: str) -> str:
    """Make a journal's label of a key: a file name's bytes that are no Unicode can't be stored as they are."""
    return key if key.isascii() else key.encode(errors="replace").decode()
