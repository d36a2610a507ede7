"""What a batch shows: two rows on a terminal, a line an outcome elsewhere."""

import sys
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dryapi_async import Client
from dryapi_async.cli.results import State, Told
from dryapi_async.cli.screen import Screen, logger, one_line, plain
from dryapi_async.cli.words import say_in_shell
from dryapi_async.events import BytesReceived, BytesSent, Event, RateLimited
from dryapi_async.protocol.batches import Pace

if TYPE_CHECKING:
    from decimal import Decimal

_COLOURS: dict[str, str] = {"saved": "green", "failed": "red", "refused": "red", "unknown": "yellow", "stopped": "yellow"}
_FRAMES_PER_SECOND = 5
_HOUR = 3600


class Board(Screen):
    """Shows how far a batch has come. Everything but the last line goes to stderr."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.states: Counter[State] = Counter()
        self.running: int = 0
        self.elsewhere: int = 0
        """Lines that other processes have."""
        self.spent: Decimal | None = None
        """US dollars in this run; None where nobody asked."""
        self._total = total
        self._fresh = 0
        self._pace = Pace(time.monotonic())
        self._limited: dict[str, float] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._moves and not self._quiet:
            self._live = Live(
                get_renderable=self._render,
                console=self.console,
                refresh_per_second=_FRAMES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
            )
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tell(self, event: Event) -> None:
        """Show that the account's limit is reached, once for each wait; the batch's own rows tell the rest."""
        if not isinstance(event, BytesSent | BytesReceived):
            logger.debug("%s", event)
        now = time.monotonic()
        if isinstance(event, RateLimited) and now >= self._limited.get(event.lane, 0.0):
            self._limited[event.lane] = now + event.seconds
            self.say(f"the {event.lane} limit is reached: waiting {event.seconds:.0f} s")

    def tell_tickets(self, client: Client, *, told: str = "") -> None:
        """Say nothing: the journal has the tickets, and the same command goes on with them."""

    def count(self, state: State) -> None:
        """Count a line that an earlier run ended, or another process."""
        self.states[state] += 1

    def show(self, told: Told) -> None:
        """Count an outcome of this run, and show it: on a terminal only what went wrong."""
        self.count(told.state)
        self._fresh += 1
        self._pace.note(time.monotonic(), self._fresh)
        if self._live is None or told.state != "saved":
            rest = told.path if told.error is None else f"{told.error}: {say_in_shell(told.message or '')}"
            self.say(one_line(f"{told.key} {told.state} {rest or ''}"))

    def sum_up(self) -> str:
        """Say in one line what has become of all lines."""
        ended = sum(self.states.values())
        parts = [f"{number:,} {state}" for state in _COLOURS if (number := self.states[state])]  # type: ignore[index]
        if ended < self._total:
            parts.append(f"{self._total - ended:,} not done")
        money = "" if self.spent is None else f", ${self.spent} spent in this run"
        return f"{', '.join(parts)} of {self._total:,}{money}"

    def _render(self) -> RenderableType:
        ended = sum(self.states.values())
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        share = Text(f"{ended:,}/{self._total:,} {100 * ended // max(self._total, 1)}%")
        bar.add_row(ProgressBar(total=max(self._total, 1), completed=ended), share)
        return Group(bar, Text("  ").join(self._describe(ended)))

    def _describe(self, ended: int) -> list[Text]:
        rate = self._pace.rate(time.monotonic(), self._fresh)
        states: Any = self.states
        parts = [Text(f"{states[state]:,} {state}", style) for state, style in _COLOURS.items() if states[state]]
        parts.append(Text(f"{self.running:,} running"))
        if self.elsewhere:
            parts.append(Text(f"{self.elsewhere:,} with others"))
        if rate:
            parts.append(Text(f"{rate:.3g}/s" if rate >= 1 else f"{60 * rate:.3g}/min"))
            parts.append(Text(f"{spell_time(max(self._total - ended - self.elsewhere, 0) / rate)} left"))
        if self.spent is not None:
            parts.append(Text(f"${self.spent}"))
        return parts


def spell_time(seconds: float) -> str:
    """Spell a time as a clock shows it."""
    whole = int(seconds + 0.5)
    hours, minutes = whole // _HOUR, whole % _HOUR // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def give_line(text: str) -> None:
    """Print the last line, to stdout."""
    sys.stdout.write(plain(text) + "\n")
