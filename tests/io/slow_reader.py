"""A server that reads slowly, by fits and starts, and answers an upload with the SHA-256 of its file as the id. Run as a program."""

import hashlib
import json
import random
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress

WINDOW = 16 * 1024
"""Bytes that a socket takes before they are read: small, so that most stays with the sender."""

PAUSES = 0.05
"""How often a read is preceded by a pause."""


def serve(certificate: str | None) -> None:
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        threading.Thread(target=accept, args=(listener, context), daemon=True).start()
        sys.stdin.read()


def accept(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, context), daemon=True).start()


def answer(connection: socket.socket, context: ssl.SSLContext | None) -> None:
    chance = random.Random(connection.getpeername()[1])  # noqa: S311  pauses, no secret
    with suppress(OSError):
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            while body := read_body(connection, chance):
                content = json.dumps({"data": {"request_id": body}}).encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content
                )


def read_body(connection: socket.socket, chance: random.Random) -> str:
    """Read one request, and digest the one part that has a file name; empty where it isn't whole."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (piece := connection.recv(4096)):
            return ""
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    left, form = int(find(head, b"Content-Length: ")) - len(body), bytearray(body)
    while left > 0:
        if chance.random() < PAUSES:
            time.sleep(chance.choice((0, 0.001, 0.003)))
        if not (piece := connection.recv(chance.randrange(1, WINDOW))):
            return ""
        form += piece
        left -= len(piece)
    for part in bytes(form).split(b"--" + find(head, b"boundary=")):
        about, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in about:
            return hashlib.sha256(content.removesuffix(b"\r\n")).hexdigest()
    return ""


def find(head: bytes, name: bytes) -> bytes:
    return head.partition(name)[2].partition(b"\r\n")[0].strip(b'"')


if __name__ == "__main__":
    serve(sys.argv[1] if len(sys.argv) > 1 else None)
