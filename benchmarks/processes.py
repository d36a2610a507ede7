"""Processes of our own: the server, and a child for each repetition, so that its memory and its time are its own."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen

ROOT: Final = Path(__file__).parents[1]
CHILD_SECONDS: Final = 300.0
"""A child that takes longer hangs."""


class ChildError(Exception):
    """A process of ours failed; its last words are in the text."""


@frozen(kw_only=True)
class Server:
    """A server that runs."""

    port: int
    loop: str
    authority: str | None
    """Whom its certificate is to be trusted for (PEM); None is plain http."""

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'http' if self.authority is None else 'https'}://127.0.0.1:{self.port}"


@contextmanager
def start_server(*, digests: bool = False, tls: bool = False) -> Generator[Server, None, None]:
    """Run the server in a process of its own, and end it."""
    with serve("benchmarks.server", *(["--digests"] if digests else []), *(["--tls"] if tls else [])) as said:
        yield Server(**said)


@contextmanager
def serve(module: str, *arguments: str) -> Generator[Any, None, None]:
    """Run a module that serves until its standard input ends, and give the JSON of its first line.

    Raises:
        ChildError: It doesn't start.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise ChildError(f"{module} ended before it listened; its error is above.")
            yield json.loads(line)
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def run_child(task: str, *, patience: float = CHILD_SECONDS, **work: Any) -> Any:
    """Run a task of ``benchmarks.child`` in a process of its own, for ``patience`` seconds at most, and give what it says.

    Raises:
        ChildError: It failed.
    """
    command = [sys.executable, "-m", "benchmarks.child", task]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(work), capture_output=True, text=True, timeout=patience, check=False)
    if done.returncode:
        raise ChildError(f"{task} with {work} failed with exit status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


@contextmanager
def start_child(task: str, *, patience: float = CHILD_SECONDS, **work: Any) -> Generator[Callable[[Any], Any], None, None]:
    """Run a task of ``benchmarks.child`` that answers line by line in a process of its own: what is given asks it once more.

    It has ``patience`` seconds for all of them.

    Raises:
        ChildError: It failed, or hung.
    """
    command = [sys.executable, "-m", "benchmarks.child", task]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):

        def ask(question: Any) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):  # it ended: the next line says so
                process.stdin.write(f"{json.dumps(question)}\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                said.seek(0)
                raise ChildError(f"{task} with {work} ended before it answered:\n{said.read()}")
            return json.loads(line)

        patient = threading.Timer(patience, process.kill)
        patient.start()
        try:
            ask(work)
            yield ask
        finally:
            # Its standard input ends with the block, and it with that; one that hangs is killed when patience is over.
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
            patient.cancel()
