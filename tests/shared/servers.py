"""A Redis of the tests' own: on a free loopback port, in a folder of its own, stopped by its id; and what breaks it."""

import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "a-password-nobody-may-see"


def free_port() -> int:
    """Find a free port below those that the system gives to outgoing connections: nobody takes it before, or between, a server's starts."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311  no secret
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class RedisServer:
    """One redis-server, which can be stopped and started again; it keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("redis", reason="redis-py isn't installed")
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server isn't installed (apt-get install redis-server)")
        self._program = program
        self._folder = folder
        self.port: int = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--daemonize", "no", "--loglevel", "warning")
        command = [self._program, "--port", str(self.port), "--dir", str(self._folder), "--requirepass", PASSWORD, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError("redis-server doesn't answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def ask(self, *words: str) -> bytes:
        """Send one command, and give the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as line:
            line.sendall(_write("AUTH", PASSWORD) + _write(*words) + _write("QUIT"))
            answer = b""
            while part := line.recv(65536):
                answer += part
        return answer.removeprefix(b"+OK\r\n").removesuffix(b"+OK\r\n")

    def keys(self) -> list[str]:
        """Name all keys."""
        return [line.decode() for line in self.ask("KEYS", "*").split(b"\r\n") if line and line[:1] not in b"*$"]

    def everything(self) -> bytes:
        """Give all that is in it, names and values."""
        script = """
            local found = {}
            for _, key in ipairs(redis.call('KEYS', '*')) do
              found[#found + 1] = key
              local kind = redis.call('TYPE', key).ok
              if kind == 'hash' then found[#found + 1] = table.concat(redis.call('HGETALL', key), ' ') end
              if kind == 'zset' then found[#found + 1] = table.concat(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), ' ') end
              if kind == 'string' then found[#found + 1] = redis.call('GET', key) end
              if kind == 'stream' then
                for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do found[#found + 1] = table.concat(entry[2], ' ') end
              end
              if redis.call('PTTL', key) < 0 then found[#found + 1] = 'NO EXPIRY' end
            end
            return table.concat(found, '|')
        """
        return self.ask("EVAL", script, "0")


def _write(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def kill_connections(server: RedisServer, *, every: float = 0.4) -> None:
    """Cut all connections again and again, until it is cancelled; ``kills`` counts them."""
    while True:
        await asyncio.sleep(every)
        with suppress(OSError):
            await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")


@define
class Loss:
    """A way to a Redis that takes commands there, and cuts the connection in place of a script's answer, so many times."""

    left: int
    port: int = 0
    lost: int = 0

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"


@asynccontextmanager
async def losing_answers(server: RedisServer, *, times: int) -> AsyncIterator[Loss]:
    """Serve such a way."""
    loss = Loss(times)

    serving = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.add(task)
        answers, commands = await asyncio.open_connection("127.0.0.1", server.port)
        script = False

        async def bring() -> None:
            nonlocal script
            while part := await reader.read(65536):
                script = b"EVALSHA" in part
                commands.write(part)
            commands.close()

        bringing = asyncio.create_task(bring())
        with suppress(OSError):
            while part := await answers.read(65536):
                if script and loss.left and not part.startswith(b"-NOSCRIPT"):
                    loss.left, loss.lost = loss.left - 1, loss.lost + 1
                    break
                writer.write(part)
        bringing.cancel()
        for end in (writer, commands):
            end.transport.abort()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    loss.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield loss
    await asyncio.gather(*serving)


class Worker:
    """A process that runs a task of ``worker.py``, and says what came of it in one line of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "a worker ended without a word; its error is above"
        return json.loads(line)

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")


@asynccontextmanager
async def workers(count: int, task: str, **work: Any) -> AsyncIterator[list[Worker]]:
    """Run so many processes of a task; each is told its number."""
    running: list[Worker] = []
    try:
        for number in range(count):
            words = json.dumps({**work, "number": number})
            program = str(Path(__file__).with_name("worker.py"))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, program, task, words),
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},  # this tree, whichever is installed
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                limit=1 << 24,
            )
            running.append(Worker(process))
        for worker in running:
            assert await worker.line() == "ready"
        yield running
    finally:
        for worker in running:
            if worker.process.returncode is None:
                with suppress(ProcessLookupError):
                    worker.process.kill()
            await worker.process.wait()
