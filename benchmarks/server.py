"""The other side: a server that does as little as it can, in a process of its own. It lives until its standard input ends."""

import asyncio
import hashlib
import importlib
import importlib.util
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any, Final, cast

from benchmarks.machine import SERVER_CORE, pin

ROOT: Final = "/api/v1/client/"
RESULT_BYTES: Final = 20 * 1024
SPACE_BYTES: Final = 256 * 1024
"""What one read from a socket takes at most: larger falls out of the processor's cache."""


class Connection(asyncio.BufferedProtocol):
    """One connection: requests one after another, bodies by their Content-Length, read into one buffer and forgotten.

    With ``digests`` a body is kept, and the id in its answer is the SHA-256 of the file in its form.
    """

    def __init__(self, ids: Iterator[int], *, digests: bool = False) -> None:
        self._ids = ids
        self._digests = digests
        self._space = bytearray(SPACE_BYTES)
        self._view = memoryview(self._space)
        self._filled = 0
        self._left = 0
        self._head = b""
        self._body = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  the base class's signature
        """Give what is free behind a head that isn't whole yet."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take bodies and heads off the buffer as far as they go."""
        end, start = self._filled + nbytes, 0
        while start < end:
            if self._left:
                start = self._take_body(start, end)
                continue
            found = self._space.find(b"\r\n\r\n", start, end)
            if found < 0:
                break
            self._take_head(bytes(self._view[start:found]))
            start = found + 4
        self._filled = end - start
        self._view[: self._filled] = bytes(self._view[start:end])
        if self._filled == SPACE_BYTES:
            self._reply(b"431 Request Header Fields Too Large", b"", close=True)

    def _take_body(self, start: int, end: int) -> int:
        taken = min(self._left, end - start)
        if self._digests:
            self._body += self._view[start : start + taken]
        self._left -= taken
        if not self._left:
            self._answer()
        return start + taken

    def _take_head(self, head: bytes) -> None:
        self._head, length = head, find_header(head, b"content-length")
        if head.startswith(b"POST ") and length is None:
            self._reply(b"411 Length Required", b"", close=True)
            return
        self._left = int(length or 0)
        self._body.clear()
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        """Answer the request whose last byte is here."""
        method, path, _ = self._head.split(b" ", 2)
        place = path.decode()
        if method == b"POST" and place.startswith(ROOT):
            request_id = digest_file(self._head, bytes(self._body)) if self._digests else f"{next(self._ids):08x}"
            self._reply(b"200 OK", json.dumps({"data": {"request_id": request_id}}).encode())
        elif place.startswith(f"{ROOT}request-status/"):
            host = (find_header(self._head, b"host") or b"").decode()
            self._reply(
                b"200 OK", json.dumps({"data": {"status": "done", "progress": 100, "result_url": f"http://{host}/result.png"}}).encode()
            )
        elif place == "/result.png":
            self._reply(b"200 OK", bytes(RESULT_BYTES), content_type=b"image/png")
        else:
            self._reply(b"404 Not Found", b"{}")

    def _reply(self, status: bytes, content: bytes, *, content_type: bytes = b"application/json", close: bool = False) -> None:
        if self._transport is None:
            return
        ending = b"\r\nConnection: close\r\n\r\n" if close else b"\r\n\r\n"
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d%b" % (status, content_type, len(content), ending)
        self._transport.write(head + content)
        if close:
            self._transport.close()


def find_header(head: bytes, name: bytes) -> bytes | None:
    """Find one header's value; ``name`` is lower-case."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return None


def digest_file(head: bytes, body: bytes) -> str:
    """Digest the one part of a form that has a file name: SHA-256, in hexadecimal. Empty where there is none."""
    boundary = (find_header(head, b"content-type") or b"").partition(b"boundary=")[2].strip(b'"')
    for part in body.split(b"--" + boundary):
        headers, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in headers:
            return hashlib.sha256(content.removesuffix(b"\r\n")).hexdigest()
    return ""


def loop_name() -> str:
    """Name the event loop that the server runs on."""
    return "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


async def serve(*, digests: bool) -> None:
    """Listen on a free port of this machine, print it, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    ids = itertools.count(1)
    server = await loop.create_server(lambda: Connection(ids, digests=digests), "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "loop": loop_name()}), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()


def main() -> None:
    """Serve on a core of its own, on uvloop where it is installed."""
    pin(SERVER_CORE)
    uvloop: Any = importlib.import_module("uvloop") if loop_name() == "uvloop" else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        runner.run(serve(digests="--digests" in sys.argv[1:]))


if __name__ == "__main__":
    main()
