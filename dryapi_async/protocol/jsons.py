"""JSON as bytes: by orjson where it is installed (the extra ``speed``), by the standard library where it isn't or refuses."""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

_decode_text: Final = json.JSONDecoder().decode
_encode_text: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode


def _find_orjson() -> tuple[Callable[[Any], bytes] | None, Callable[[bytes], Any] | None]:
    """Find the two functions of orjson."""
    try:
        found: Any = import_module("orjson")
    except ImportError:
        return None, None
    return found.dumps, found.loads


_dumps, _loads = _find_orjson()


def encode_json(fields: Mapping[str, Any]) -> bytes:
    """Encode a request's fields, whose types were checked.

    Raises:
        UnicodeEncodeError: A text is no Unicode.
    """
    if _dumps is not None:
        try:
            return _dumps(fields)
        except TypeError:
            # The standard library says what is wrong, or takes it.
            pass
    return _encode_text(fields).encode()


def decode_fast(content: bytes) -> Any:
    """Decode an answer whose numbers are no ids and no money: orjson makes floats of long ones.

    Raises:
        ValueError: It is no JSON.
    """
    if _loads is not None:
        try:
            return _loads(content)
        except ValueError:
            # It refuses what the standard library takes, such as NaN.
            pass
    return decode_plain(content)


def decode_plain(content: bytes) -> Any:
    """Decode an answer with the standard library.

    Raises:
        ValueError: It is no JSON.
    """
    # Without looking for other encodings, which takes as long as the decoding: JSON between systems is UTF-8 (RFC 8259, 8.1).
    return _decode_text(content.decode().removeprefix("\ufeff"))
