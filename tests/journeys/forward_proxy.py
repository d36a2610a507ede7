"""A small proxy of our own: it forwards plain requests and opens tunnels, and notes what it is asked and from which ports it dials."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import AF_INET, SOCK_STREAM
from ssl import SSLContext
from urllib.parse import urlsplit

from attrs import define, field

PIECE_BYTES = 65_536


@define
class ForwardProxy:
    """What a running proxy was asked."""

    url: str = ""
    lines: list[str] = field(factory=list[str])
    """The first lines of what it was asked, without the protocol's version."""
    heads: list[bytes] = field(factory=list[bytes])
    ports: set[int] = field(factory=set[int])
    """The local ports that it dialled from: a server sees a request come from one of these, or it didn't come through here."""

    def ports_asked_for(self) -> set[int | None]:
        """Give the ports of the servers that it was asked for."""
        return {urlsplit(f"//{target}" if method == "CONNECT" else target).port for method, target in map(str.split, self.lines)}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request or tunnel, and carry bytes until both sides have ended."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        self.heads.append(head)
        method, target, _ = head.partition(b"\r\n")[0].decode().split()
        self.lines.append(f"{method} {target}")
        address = urlsplit(f"//{target}" if method == "CONNECT" else target)
        # The jumping clocks count the loop's own look-ups; those in uvloop's connecting run in threads that nobody sees.
        found = await asyncio.get_running_loop().getaddrinfo(address.hostname, address.port, family=AF_INET, type=SOCK_STREAM)
        server_reader, server_writer = await asyncio.open_connection(*found[0][4][:2])
        self.ports.add(server_writer.get_extra_info("sockname")[1])
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server_writer.write(make_direct(head))
        await asyncio.gather(carry(reader, server_writer), carry(server_reader, writer))


def make_direct(head: bytes) -> bytes:
    """Turn a request to a proxy into one to the server, which is to close after its answer, and sees nothing that was for the proxy."""
    first, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, version = first.split()
    scheme, _, rest = target.partition(b"://")
    path = b"/" + rest.partition(b"/")[2]
    kept = [line for line in headers if not line.lower().startswith((b"proxy-", b"connection:"))]
    upgrades = any(line.lower() == b"connection: upgrade" for line in headers)
    kept.append(b"Connection: Upgrade" if upgrades else b"Connection: close")
    assert scheme == b"http"
    return b"\r\n".join([b" ".join([method, path, version]), *kept]) + b"\r\n\r\n"


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until they end."""
    try:
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def open_proxy(*, ssl: SSLContext | None = None) -> AsyncIterator[ForwardProxy]:
    """Run a proxy on a loopback port; with ``ssl`` it is spoken to in TLS itself."""
    proxy = ForwardProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=ssl)
    proxy.url = f"http{'s' if ssl else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        # From Python 3.12 on this waits for the connections, too, which a client closes before.
        await server.wait_closed()
