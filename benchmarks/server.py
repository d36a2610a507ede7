"""The other side: a server that does as little as it can, in a process of its own. It lives until its standard input ends."""

import argparse
import asyncio
import hashlib
import importlib
import importlib.util
import itertools
import json
import ssl
import sys
from collections.abc import Iterator
from typing import Any, Final, cast

from benchmarks.answers import answer, name_job, write
from benchmarks.machine import SERVER_CORE, pin

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
        self._scheme, self._host = "http", ""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)
        self._scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"

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
            self._refuse(b"431 Request Header Fields Too Large")

    def _take_body(self, start: int, end: int) -> int:
        taken = min(self._left, end - start)
        if self._digests:
            self._body += self._view[start : start + taken]
        self._left -= taken
        if not self._left:
            self._answer()
        return start + taken

    def _take_head(self, head: bytes) -> None:
        self._head, length = head, find_header(head, b"content-length") if head.startswith(b"POST ") else b"0"
        self._host = self._host or (find_header(head, b"host") or b"").decode()
        if length is None:
            self._refuse(b"411 Length Required")
            return
        self._left = int(length)
        self._body.clear()
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        """Answer the request whose last byte is here."""
        method, target, _ = self._head.split(b" ", 2)
        self._reply(answer(method, target.decode(), f"{self._scheme}://{self._host}", self._name))

    def _name(self) -> str:
        """Name a new job."""
        return digest_file(self._head, bytes(self._body)) if self._digests else name_job(next(self._ids))

    def _reply(self, content: bytes) -> None:
        if self._transport is not None:
            self._transport.write(content)

    def _refuse(self, status: bytes) -> None:
        """Answer what can't be read on from, and hang up."""
        self._reply(write(b"", status=status, more=b"Connection: close\r\n"))
        if self._transport is not None:
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


def make_certificate() -> tuple[ssl.SSLContext, str]:
    """Make a certificate for this machine's loopback address: the server's context, and the authority that clients are told to trust (PEM).

    Raises:
        ImportError: trustme isn't installed.
    """
    authority: Any = importlib.import_module("trustme").CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, authority.cert_pem.bytes().decode()


async def serve(*, digests: bool, tls: bool) -> None:
    """Listen on a free port of this machine, print it, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    ids = itertools.count(1)
    context, authority = make_certificate() if tls else (None, None)
    server = await loop.create_server(lambda: Connection(ids, digests=digests), "127.0.0.1", 0, backlog=1024, ssl=context)
    said = {"port": server.sockets[0].getsockname()[1], "loop": loop_name(), "authority": authority}
    print(json.dumps(said), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()


def main() -> None:
    """Serve on a core of its own, on uvloop where it is installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--digests", action="store_true", help="answer an upload with the SHA-256 of its file as the id")
    parser.add_argument("--tls", action="store_true", help="serve https, with a certificate made for the occasion")
    given = parser.parse_args()
    pin(SERVER_CORE)
    uvloop: Any = importlib.import_module("uvloop") if loop_name() == "uvloop" else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        runner.run(serve(digests=given.digests, tls=given.tls))


if __name__ == "__main__":
    main()
