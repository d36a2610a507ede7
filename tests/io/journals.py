"""What the journal's tests share."""

import asyncio
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from dryapi_async import AlreadySubmittedError, JournalError
from dryapi_async.io.journal import Journal
from dryapi_async.io.ledger import Intent, Ledger, Turn
from dryapi_async.io.writer import Writer


class CountedLedger(Ledger):
    """A ledger that notes when, by the clock of the loop that made it, and how much it was given to write."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, base_url="https://api.example", busy_seconds=0.05)
        self.tries: list[tuple[float, int]] = []
        self._loop = asyncio.get_running_loop()

    def apply(self, writes: Sequence[Intent | Turn]) -> list[JournalError | AlreadySubmittedError | None]:
        """Write a group."""
        self.tries.append((self._loop.time(), len(writes)))
        return super().apply(writes)


def make_journal(path: Path, account: str = "a", ledger: Ledger | None = None) -> Journal:
    """Make a journal that doesn't wait long for a locked file."""
    return Journal(path, base_url="https://api.example", account=account, busy_seconds=0.5, writer=Writer(ledger) if ledger else None)


async def begin(journal: Journal, key: str = "k") -> None:
    """Note that a call leaves."""
    await journal.intend(key, operation="txt2img", digest="d" * 64, attempt=1)


async def state_of(journal: Journal, key: str = "k") -> str | None:
    """Say what a call's state is."""
    row = await journal.find(key)
    return None if row is None else row.state


@contextmanager
def lock_file_of(path: Path) -> Generator[None]:
    """Hold a journal's file as another program does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


def read_states(path: Path) -> dict[str, str]:
    """Say what is on disk: to ask the journal would make it write what it has."""
    with closing(sqlite3.connect(path)) as other:
        return dict(other.execute("SELECT key, state FROM calls ORDER BY key"))
