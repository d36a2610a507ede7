"""What runs in a child process: one task, told by a line of JSON on standard input, its answer one on standard output, or many."""

import asyncio
import importlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from attrs import asdict

from benchmarks.answers import ROOT, read_answer
from benchmarks.machine import CLIENT_CORE, pin
from benchmarks.meter import measure
from benchmarks.subjects import Upload

PIPELINED: Final = 100
"""Small requests sent before their answers are read."""


def upload(  # noqa: PLR0913  each is a part of what is compared
    *,
    subject: str,
    url: str,
    paths: list[str],
    warm_up: str,
    uploads: int,
    at_once: int,
    loop: str = "asyncio",
    authority: str | None = None,
) -> dict[str, Any]:
    """Upload files with one subject: what it cost, and the id that each upload got.

    ``loop`` is the package whose ``new_event_loop`` is used, ``authority`` a certificate to trust (PEM).
    """
    with tempfile.TemporaryDirectory(prefix="dryapi-benchmark-") as folder:
        if authority is not None:
            # Before the subject is imported: OpenSSL's own way to trust it, so that no subject needs an option for it.
            place = Path(folder, "authority.pem")
            place.write_text(authority)
            os.environ["SSL_CERT_FILE"] = str(place)
        with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
            return runner.run(_upload(subject, url, [Path(path) for path in paths], Path(warm_up), uploads, at_once))


async def _upload(subject: str, url: str, paths: list[Path], warm_up: Path, uploads: int, at_once: int) -> dict[str, Any]:
    module = importlib.import_module(f"benchmarks.subjects.{subject}")
    ids = [""] * uploads
    async with module.open_uploads(url, at_once) as send:
        await send(warm_up)
        reading = await measure(_upload_all(send, paths, ids, at_once))
    return {"reading": asdict(reading), "ids": ids}


async def _upload_all(send: Upload, paths: list[Path], ids: list[str], at_once: int) -> None:
    """Upload, ``at_once`` at once, file after file and round again, noting the ids."""
    numbers = iter(range(len(ids)))

    async def work() -> None:
        for number in numbers:
            ids[number] = await send(paths[number % len(paths)])

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


def idle(*, seconds: float) -> dict[str, Any]:
    """Do nothing for a while, to see how late the machine itself wakes a ticker."""
    return {"reading": asdict(asyncio.run(_idle(seconds)))}


async def _idle(seconds: float) -> Any:
    return await measure(asyncio.sleep(seconds))


def rate(*, port: int, body_bytes: int, bodies: int, requests: int) -> dict[str, float]:
    """Measure the server with a raw socket: bodies from memory, and small requests sent ahead of their answers."""
    body = bytes(body_bytes)
    head = f"POST {ROOT}img2img HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {body_bytes}\r\n\r\n".encode()
    small = f"GET {ROOT}request-status/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * PIPELINED
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
        began = time.perf_counter()
        for _ in range(bodies):
            connection.sendall(head)
            connection.sendall(body)
            read_answer(answers)
        body_seconds = time.perf_counter() - began
        connection.sendall(small)
        answer_bytes = sum(read_answer(answers) for _ in range(PIPELINED))
        began = time.perf_counter()
        for _ in range(requests // PIPELINED):
            connection.sendall(small)
            answers.read(answer_bytes)
        small_seconds = time.perf_counter() - began
    return {"mib_per_second": bodies * body_bytes / 2**20 / body_seconds, "requests_per_second": requests / small_seconds}


TASKS: Final[dict[str, Callable[..., dict[str, Any]]]] = {"upload": upload, "idle": idle, "rate": rate}


def main() -> None:
    """Run the task that the command line names; "module:function" is one that lives beside its benchmark."""
    pin(CLIENT_CORE)
    module, colon, name = sys.argv[1].partition(":")
    # Imported when asked for: a child that runs raw aiohttp must not carry this client.
    task = getattr(importlib.import_module(f"benchmarks.{module}"), name) if colon else TASKS[module]
    answer: dict[str, Any] | Iterator[dict[str, Any]] = task(**json.loads(sys.stdin.readline()))
    for one in answer if isinstance(answer, Iterator) else (answer,):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
