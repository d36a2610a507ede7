"""A storage host for downloads, in a process of its own: statuses that say done, and one large file. It lives until its input ends."""

import asyncio
import importlib
import json
import random
import ssl
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from attrs import asdict, frozen

from benchmarks.machine import SERVER_CORE, pin
from benchmarks.processes import serve
from benchmarks.server import find_header, loop_name

STATUSES: Final = "/api/v1/client/request-status/"
PLACE: Final = "/result.png"
SLICE_BYTES: Final = 256 * 1024
MAGIC: Final = b"\x89PNG\r\n\x1a\n"


@frozen(kw_only=True)
class Storage:
    """A storage host that runs."""

    port: int
    loop: str
    tls: bool

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"


def make_content(size: int) -> bytes:
    """Make the file: the same bytes in every process."""
    return MAGIC + random.Random(17).randbytes(size - len(MAGIC))  # noqa: S311  content, no secret


@contextmanager
def start_storage(*, file_bytes: int, certificate: Path | None = None) -> Generator[Storage, None, None]:
    """Run the storage host in a process of its own, over TLS with a certificate (PEM, its key included), and end it.

    Raises:
        ChildError: It doesn't start.
    """
    with serve("benchmarks.files", str(file_bytes), *([] if certificate is None else [str(certificate)])) as said:
        yield Storage(**said)


class Connection(asyncio.Protocol):
    """One connection: a body goes out in slices of one block of memory, as fast as it is taken."""

    def __init__(self, content: bytes, *, scheme: str) -> None:
        self._content = memoryview(content)
        self._scheme = scheme
        self._heads = b""
        self._rest = self._content[:0]
        self._paused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=2 * SLICE_BYTES)

    def data_received(self, data: bytes) -> None:
        """Answer one request after another."""
        self._heads += data
        self._go_on()

    def pause_writing(self) -> None:
        """Wait until what was written is taken."""
        self._paused = True

    def resume_writing(self) -> None:
        """Write on."""
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        transport = self._transport
        while transport is not None and not (self._paused or transport.is_closing()):
            if self._rest:
                piece, self._rest = self._rest[:SLICE_BYTES], self._rest[SLICE_BYTES:]
                transport.write(piece)
                continue
            head, found, rest = self._heads.partition(b"\r\n\r\n")
            if not found:
                return
            self._heads = rest
            transport.write(self._answer(head))

    def _answer(self, head: bytes) -> bytes:
        """Give an answer's head, with its body where that is small."""
        path = head.split(b" ", 2)[1].decode()
        if path.startswith(PLACE):
            self._rest = self._content
            return b'HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nETag: "one"\r\nContent-Length: %d\r\n\r\n' % len(self._content)
        host = (find_header(head, b"host") or b"").decode()
        told = {"status": "done", "progress": 100, "result_url": f"{self._scheme}://{host}{PLACE}"}
        status, body = (b"200 OK", {"data": told}) if path.startswith(STATUSES) else (b"404 Not Found", {})
        content = json.dumps(body).encode()
        return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content)


async def _serve(file_bytes: int, certificate: str | None) -> None:
    """Listen on a free port of this machine, print it, and serve until standard input ends."""
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    content, scheme = make_content(file_bytes), "http" if context is None else "https"
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(content, scheme=scheme), "127.0.0.1", 0, backlog=1024, ssl=context)
    said = Storage(port=server.sockets[0].getsockname()[1], loop=loop_name(), tls=context is not None)
    print(json.dumps(asdict(said)), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()


def main() -> None:
    """Serve on a core of its own, on uvloop where it is installed."""
    pin(SERVER_CORE)
    uvloop: Any = importlib.import_module("uvloop") if loop_name() == "uvloop" else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        runner.run(_serve(int(sys.argv[1]), next(iter(sys.argv[2:]), None)))


if __name__ == "__main__":
    main()
