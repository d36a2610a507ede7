"""The exact bytes around the files of a form, and their exact length, before anything is sent."""

from collections.abc import Iterable

from attrs import field, frozen

from dryapi_async.protocol.wire import TextPart
from dryapi_async.values import Value


@frozen(kw_only=True, eq=False, repr=False)
class SizedFile(Value):
    """A file part whose name, type and size are known."""

    name: str
    filename: str
    content_type: str
    size: int
    head: bytes = field(default=b"", repr=False)
    """Its first bytes, as they were looked at; empty where they can't be read twice."""


@frozen(kw_only=True, eq=False, repr=False)
class Layout(Value):
    """A form as it goes over the wire: ``heads[0]``, file 0, ``heads[1]``, file 1, ..., and the last head closes it."""

    content_type: str
    heads: tuple[bytes, ...]
    sizes: tuple[int, ...]

    @property
    def length(self) -> int:
        """Content-Length: every byte, the closing boundary included."""
        return sum(map(len, self.heads)) + sum(self.sizes)


def lay_out(parts: Iterable[TextPart | SizedFile], boundary: str) -> Layout:
    """Lay a form out. ``boundary`` is random, given from outside, and mustn't occur in the content (128 bits don't)."""
    heads: list[bytes] = []
    sizes: list[int] = []
    text = bytearray()
    for part in parts:
        text += f"--{boundary}\r\nContent-Disposition: form-data; name={_quoted(part.name)}".encode()
        if isinstance(part, TextPart):
            text += f"\r\n\r\n{part.text}\r\n".encode()
            continue
        text += f"; filename={_quoted(part.filename)}\r\nContent-Type: {part.content_type}\r\n\r\n".encode(errors="replace")
        heads.append(bytes(text))
        sizes.append(part.size)
        text = bytearray(b"\r\n")
    text += f"--{boundary}--\r\n".encode()
    heads.append(bytes(text))
    return Layout(content_type=f"multipart/form-data; boundary={boundary}", heads=tuple(heads), sizes=tuple(sizes))


def _quoted(name: str) -> str:
    """Quote a name as browsers do (WHATWG, multipart/form-data): no line break and no quote can end the header."""
    return '"' + name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A") + '"'
