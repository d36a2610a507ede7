"""What the command shows: progress on a terminal, plain lines elsewhere; errors as one line; tickets of what goes on."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dryapi_async import Client, ConfigurationError, DryAPIError, Job
from dryapi_async.cli.words import describe
from dryapi_async.events import BytesReceived, BytesSent, Event, RateLimited, StateChanged

if TYPE_CHECKING:
    from dryapi_async.cli.targets import Target

SIGNALLED = 128
"""A command that a signal ended says this and the signal's number, as shells do."""
INTERRUPTED = SIGNALLED + signal.SIGINT
FAILED = 1
UNUSABLE = 2
_SOON = 0.5
"""Seconds."""

logger: logging.Logger = logging.getLogger("dryapi_async")


def is_terminal(stream: TextIO) -> bool:
    """Say whether a stream shows moving text; FORCE_COLOR makes no terminal of a file."""
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def plain(text: str) -> str:
    """Show signs that would steer a terminal as what they are: texts come from outside."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text)


def one_line(text: str) -> str:
    """Put a text on one line."""
    return plain(" ".join(text.split()))


class Screen:
    """Shows what happens to calls. Everything but results goes to stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        # With -v the log has the screen: moving rows would run through it.
        self._moves = is_terminal(sys.stderr) and not logger.isEnabledFor(logging.DEBUG)
        self.console: Console = Console(stderr=True, highlight=False, force_terminal=self._moves)
        self._progress: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}
        self._quiet = quiet
        self._jobs: list[Job[Any]] = []
        self.wanted: Target | None = None
        """Where the results were to go."""

    def __enter__(self) -> Self:
        if self._moves and not self._quiet:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def tell(self, event: Event) -> None:
        """Show an event of the client."""
        if not isinstance(event, BytesSent | BytesReceived):
            logger.debug("%s", event)
        if isinstance(event, BytesSent):
            self._show("upload", f"upload {event.request.partition(' ')[2]}", event.bytes_sent, event.bytes_total, "")
        elif isinstance(event, StateChanged):
            self._show(event.request_id, f"job {event.request_id[:8]}", event.progress or 0, 100, event.state)
        elif isinstance(event, BytesReceived):
            self._show(f"get {event.request_id}", f"download {event.request_id[:8]}", event.bytes_received, event.bytes_total, "")
        elif isinstance(event, RateLimited):
            self.say(f"the {event.lane} limit is reached: waiting {event.seconds:.0f} s")

    def _show(self, key: str, label: str, done: float, total: float | None, state: str) -> None:
        if self._progress is None:
            # Lines tell what a job does; a transfer has its own line only where it moves.
            if state and self._said.get(key) != state:
                self._said[key] = state
                self.say(f"{label}: {state}")
            return
        if key not in self._rows:
            self._rows[key] = self._progress.add_task(f"{label:<22}", total=total, state=state)
        self._progress.update(self._rows[key], completed=done, total=total, state=state or decimal(int(done)))

    def say(self, line: str) -> None:
        """Print a line above the progress; what came from outside isn't markup."""
        if not self._quiet:
            self.console.print(escape(plain(line)), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print a line that isn't to be missed, on one line and above the progress."""
        self.console.print(escape(one_line(line)), soft_wrap=True)

    def follow(self, job: Job[Any]) -> None:
        """Note a job that is paid for and not done."""
        self._jobs.append(job)

    def done(self, job: Job[Any]) -> None:
        """Note that a job needs no more waiting."""
        if job in self._jobs:
            self._jobs.remove(job)

    def tell_tickets(self, client: Client, *, told: str = "") -> None:
        """Print the tickets of what is still running or not saved, but for those that were told already."""
        tickets = [job.ticket for job in (*self._jobs, *client.orphans) if job.ticket not in told]
        if tickets:
            out = "." if self.wanted is None else self.wanted.spell_for_wait() if len(tickets) == 1 else self.wanted.spell_folder()
            sys.stderr.write(f"paid for, and not saved yet; go on with\n  dryapi wait {' '.join(tickets)} --out {out}\n")


def give(value: object, *, as_json: bool, text: str) -> None:
    """Print a command's result: one JSON object for machines, else the text."""
    sys.stdout.write((json.dumps(value, default=str) if as_json else plain(text)) + "\n")


def describe_error(error: BaseException) -> str:
    """Say an error in the words of a shell, on one line."""
    return one_line(describe(error))


def fail(error: BaseException) -> NoReturn:
    """End with one line that says what went wrong."""
    sys.stderr.write(describe_error(error) + "\n")
    sys.exit(UNUSABLE if isinstance(error, ConfigurationError) else FAILED)


class _Warnings(logging.Handler):
    """Shows what the client warns of as a user of the command needs it: one line each, and errors as all others."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning; a job that was found is told with the tickets, and everything else with -v as it is."""
        told = record.args if isinstance(record.args, tuple) else ()
        errors = [one for one in told if isinstance(one, DryAPIError)]
        if errors:
            self._screen.warn(describe_error(errors[0]))
        elif not logging.root.handlers and not any(isinstance(one, Job) for one in told):
            self._screen.warn(f"warning: {record.getMessage()}")


@contextmanager
def _show_warnings(screen: Screen) -> Generator[None, None, None]:
    handler = _Warnings(screen)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def run_client(
    main: Callable[[Client, Screen], Awaitable[None]], *, quiet: bool = False, screen: Screen | None = None, **options: Any
) -> None:
    """Run a command with a client of its own; errors are one line, Ctrl-C and SIGTERM print the tickets of what is still running."""
    screen = screen or Screen(quiet=quiet)

    async def inside() -> None:
        with screen:
            client = Client(on_event=screen.tell, **options)
            try:
                await main(client, screen)
            except asyncio.CancelledError:
                screen.__exit__(None, None, None)
                try:
                    await _close(client)
                finally:
                    screen.tell_tickets(client)
                raise
            except (DryAPIError, OSError) as error:
                screen.__exit__(None, None, None)
                if isinstance(error, OSError) and not isinstance(error, DryAPIError):
                    screen.wanted = None  # that place has just failed
                screen.tell_tickets(client, told=str(error))
                raise
            finally:
                await client.aclose()

    # Around the loop, not in it: the last words about a payment come when its tasks are ended.
    with _show_warnings(screen):
        run_quietly(inside)


async def _close(client: Client) -> None:
    """Close a client; a submit that is on the wire is listened to, and a second Ctrl-C doesn't wait for it."""
    closing = asyncio.ensure_future(client.aclose())
    await asyncio.wait([closing], timeout=_SOON)
    if not closing.done():
        sys.stderr.write("a submit is on its way: waiting for its answer (Ctrl-C again gives it up)\n")
    await closing


def run_quietly(main: Callable[[], Any]) -> None:
    """Run a coroutine function to its end, with one line for what goes wrong; Ctrl-C and SIGTERM end it cleanly."""
    told: list[int] = []
    try:
        asyncio.run(_end_on_signals(main, told))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(SIGNALLED + told[0] if told else INTERRUPTED)
    except (DryAPIError, OSError) as error:
        fail(error)


async def _end_on_signals(main: Callable[[], Any], told: list[int]) -> None:
    """Run until a signal says to end: the first cancels the command, which then ends cleanly, and the next ends it at once.

    asyncio's own way with Ctrl-C raises the second one wherever the command is, even in what it does to end cleanly.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def end(number: int) -> None:
        told.append(number)
        if len(told) > 1 or task is None:
            raise SystemExit(SIGNALLED + number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        # What a shell lets a command in the background ignore stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end, number)
    await main()
