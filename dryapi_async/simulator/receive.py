"""Read request bodies: JSON and forms into fields, multipart files in chunks to disk."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl

from attrs import Factory, define

from dryapi_async.simulator.errors import RefusedError, too_large
from dryapi_async.simulator.received import ReceivedFile
from dryapi_async.simulator.shapes import is_object

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

HEAD_BYTES = 65_536
_TEXT_MOST = 10_485_760
_PARTS_MOST = 1_000
_HEADERS_MOST = 8_192
_PARAMETER = re.compile(r';\s*([a-z*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))', re.IGNORECASE)
_KEY = re.compile(r"\[([^\[\]]*)\]")


@define
class Form:
    """A read body. ``typed`` says that values have JSON's types; else all are text."""

    fields: dict[str, Any] = Factory(dict[str, Any])
    files: list[ReceivedFile] = Factory(list[ReceivedFile])
    typed: bool = False
    size: int = 0
    sha256: str = ""


class _Meter:
    """Counts and hashes the body as it comes; refuses it beyond the front end's cap."""

    def __init__(self, request: web.BaseRequest, most: int, *, hashed: bool) -> None:
        self.size = 0
        self._content = request.content
        self._most = most
        self._hash = hashlib.sha256() if hashed else None

    async def chunk(self) -> bytes:
        data = await self._content.readany()
        self.size += len(data)
        if self.size > self._most:
            raise RefusedError(too_large())
        if self._hash is not None:
            self._hash.update(data)
        return data

    async def everything(self) -> bytes:
        pieces = [piece async for piece in self.chunks()]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        while data := await self.chunk():
            yield data

    @property
    def digest(self) -> str:
        return self._hash.hexdigest() if self._hash is not None else ""


class Receiver:
    """Reads bodies; holds where files are kept."""

    def __init__(self, folder: Path, *, keep_files: bool, most: int) -> None:
        self.folder = folder
        self.keep_files = keep_files
        self.most = most
        self._names = count(1)

    async def read(self, request: web.BaseRequest, *, hashed: bool) -> Form:
        """Read a whole body. A malformed one reads as far as it goes, as PHP does."""
        meter = _Meter(request, self.most, hashed=hashed)
        kind = request.content_type
        form = Form()
        if kind == "multipart/form-data":
            await self._read_multipart(request, meter, form)
        elif kind == "application/x-www-form-urlencoded":
            for name, value in parse_qsl((await meter.everything()).decode("utf-8", "replace"), keep_blank_values=True):
                nest(form.fields, name, value)
        else:
            body = await meter.everything()
            form.typed = True
            if kind.endswith("json"):
                form.fields = _read_json(body)
        if not form.typed:
            form.fields = {name: _as_lists(value) for name, value in form.fields.items()}
        form.size = meter.size
        form.sha256 = meter.digest
        return form

    async def _read_multipart(self, request: web.BaseRequest, meter: _Meter, form: Form) -> None:
        boundary = dict(_parameters(request.headers.get("Content-Type", ""))).get("boundary")
        if not boundary:
            await meter.everything()
            return
        scanner = _Scanner(meter, b"\r\n--" + boundary.encode("utf-8", "replace"))
        for _ in range(_PARTS_MOST):
            if not await scanner.next_part():
                break
            headers = await scanner.headers()
            if headers is None:
                break
            parameters = dict(_parameters(headers.get("content-disposition", "")))
            name = parameters.get("name", "")
            if "filename" in parameters:
                kind = headers.get("content-type", "application/octet-stream")
                form.files.append(await self._store(scanner, name, parameters["filename"], kind))
            else:
                nest(form.fields, name, (await scanner.text()).decode("utf-8", "replace"))
        await meter.everything()

    async def _store(self, scanner: _Scanner, field: str, name: str, kind: str) -> ReceivedFile:
        digest, size, head = hashlib.sha256(), 0, b""
        path = self.folder / f"{next(self._names):07}" if self.keep_files else None
        file: BinaryIO | None = path.open("wb") if path is not None else None
        try:
            async for piece in scanner.body():
                digest.update(piece)
                size += len(piece)
                if len(head) < HEAD_BYTES:
                    head += bytes(piece[: HEAD_BYTES - len(head)])
                if file is not None:
                    file.write(piece)
        finally:
            if file is not None:
                file.close()
        return ReceivedFile(field, name, kind, size, digest.hexdigest(), head, str(path) if path is not None else None)


class _Scanner:
    """Walks a multipart body: finds delimiters in a sliding buffer that never holds more than a chunk and a delimiter."""

    def __init__(self, meter: _Meter, delimiter: bytes) -> None:
        self._meter = meter
        self._delimiter = delimiter
        self._buffer = b"\r\n"  # so that the first delimiter, which may start the body, looks like the others
        self._ended = False

    async def _more(self) -> bool:
        data = await self._meter.chunk()
        if not data:
            self._ended = True
            return False
        self._buffer = self._buffer + data if self._buffer else data
        return True

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the pieces up to the next delimiter, which stays in the buffer."""
        keep = len(self._delimiter) - 1
        while True:
            at = self._buffer.find(self._delimiter)
            if at >= 0:
                if at:
                    yield self._buffer[:at]
                self._buffer = self._buffer[at:]
                return
            if len(self._buffer) > keep:
                piece, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
                yield piece
            if not await self._more():
                if self._buffer:
                    yield self._buffer
                self._buffer = b""
                return

    async def text(self) -> bytes:
        """Read a text part whole."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self.body():
            size += len(piece)
            if size <= _TEXT_MOST:
                pieces.append(piece)
        return b"".join(pieces)

    async def next_part(self) -> bool:
        """Go behind the next delimiter; False at the end of the form."""
        async for _ in self.body():
            pass
        if self._ended and not self._buffer:
            return False
        self._buffer = self._buffer[len(self._delimiter) :]
        while len(self._buffer) < len(b"--"):
            if not await self._more():
                return False
        return not self._buffer.startswith(b"--")

    async def headers(self) -> dict[str, str] | None:
        """Read a part's headers, names in lower case."""
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEADERS_MOST or not await self._more():
                return None
        lines = self._buffer[:at].decode("utf-8", "replace").split("\r\n")
        self._buffer = self._buffer[at + 4 :]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip()}


def _parameters(header: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, quoted, plain in _PARAMETER.findall(header):
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        found.append((name.lower(), value.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")))
    return found


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return {}
    return value if is_object(value) else {}


def nest(fields: dict[str, Any], name: str, value: Any) -> None:
    """Put a form value where PHP would: ``a[0][b]`` becomes nested, ``a[]`` a list."""
    base, _, rest = name.partition("[")
    keys = _KEY.findall("[" + rest) if rest else []
    at: Any = fields
    for key, following in zip([base, *keys], [*keys, None], strict=True):
        if following is None:
            _put(at, key, value)
            return
        inner: Any = at.get(key) if key else None
        if not is_object(inner):
            inner = dict[str, Any]()
            _put(at, key, inner)
        at = inner


def _as_lists(value: Any) -> Any:
    """Turn what was numbered 0, 1, 2 … into lists."""
    if not is_object(value):
        return value
    inner = {key: _as_lists(each) for key, each in value.items()}
    return list(inner.values()) if list(inner) == [str(index) for index in range(len(inner))] else inner


def _put(into: dict[str, Any], key: str, value: Any) -> None:
    into[key or str(len(into))] = value
