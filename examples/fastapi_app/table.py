"""The table of photos: one sqlite file that all workers share, used in a thread of its own."""

import asyncio
import fcntl
import sqlite3
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from attrs import frozen

T = TypeVar("T")

ENDED: Final = frozenset({"done", "failed", "unknown"})
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS photos (
        id TEXT PRIMARY KEY, prompt TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, progress REAL NOT NULL, preview TEXT,
        ticket TEXT, error TEXT NOT NULL, held_until REAL NOT NULL);
    CREATE INDEX IF NOT EXISTS photos_open ON photos (held_until) WHERE state NOT IN ('done', 'failed', 'unknown');
"""
_COLUMNS: Final = "id, prompt, kind, state, progress, preview, ticket, error"


@frozen(kw_only=True)
class Photo:
    """One photo and what becomes of it."""

    id: str
    """Unguessable: who has the page's address may see the picture."""
    prompt: str
    kind: str
    """The uploaded file's media type, by its first bytes."""
    state: str = "waiting"
    """waiting, pending, processing, saving; done, failed, unknown."""
    progress: float = 0.0
    """Per cent."""
    preview: str | None = None
    """A data URI."""
    ticket: str | None = None
    """By which any worker takes the job up again."""
    error: str = ""


class Table:
    """Photos by id. Nothing is opened before ``open()``: an application may be made first and forked then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, and make its table if it is new."""
        self._thread = ThreadPoolExecutor(1, "photos")
        await self._run(self._connect)

    def _connect(self) -> None:
        self._db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = NORMAL")
        # Workers start at once, and sqlite gives up in place of waiting where two of them switch a new file to WAL.
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_SCHEMA)

    async def close(self) -> None:
        """Close the file."""
        if self._thread is not None and self._db is not None:
            await self._run(self._db.close)
            self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _ask(self, statement: str, *values: object) -> list[Photo]:
        return await self._run(lambda: self._read(statement, values))

    def _read(self, statement: str, values: Collection[object]) -> list[Photo]:
        if self._db is None:
            raise RuntimeError("the table isn't open")
        rows = self._db.execute(statement, tuple(values)).fetchall()  # pyright: ignore[reportArgumentType]  texts, numbers, None
        return [Photo(**dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]

    async def insert(self, photo: Photo) -> None:
        """Add a photo; nobody has it in hand yet."""
        await self._ask("INSERT INTO photos (id, prompt, kind, state, progress, error, held_until) VALUES (?, ?, ?, 'waiting', 0, '', 0)",
                        photo.id, photo.prompt, photo.kind)  # fmt: skip

    async def find(self, photo_id: str) -> Photo | None:
        """Find a photo."""
        return next(iter(await self._ask(f"SELECT {_COLUMNS} FROM photos WHERE id = ?", photo_id)), None)  # noqa: S608  our own words

    async def write(
        self,
        photo_id: str,
        state: str,
        *,
        progress: float | None = None,
        preview: str | None = None,
        ticket: str | None = None,
        error: str = "",
    ) -> None:
        """Note news of a photo: progress never goes back, and what is done stays done, whichever worker is late."""
        await self._ask(
            "UPDATE photos SET state = ?, progress = max(progress, coalesce(?, 0)), preview = coalesce(?, preview), "
            "ticket = coalesce(?, ticket), error = ? WHERE id = ? AND state NOT IN ('done', 'failed')",
            *(state, progress, preview, ticket, error, photo_id),
        )

    async def reopen(self, photo_id: str) -> None:
        """Let a worker look again at a photo whose fate was unknown."""
        await self._ask("UPDATE photos SET state = 'waiting', held_until = 0 WHERE id = ? AND state = 'unknown'", photo_id)

    async def hold(self, ids: Collection[str], seconds: float) -> None:
        """Say that this worker has photos in hand for so many seconds more; 0 lets go of them."""
        marks = ", ".join("?" * len(ids))
        await self._ask(f"UPDATE photos SET held_until = ? WHERE id IN ({marks})", time.time() + seconds, *ids)  # noqa: S608  question marks

    async def take(self, seconds: float) -> list[Photo]:
        """Take in hand all unfinished photos that no living worker has: each goes to one worker only."""
        now = time.time()
        return await self._ask(
            "UPDATE photos SET held_until = ? WHERE state NOT IN ('done', 'failed', 'unknown') AND held_until <= ? "  # noqa: S608  our own words
            f"RETURNING {_COLUMNS}",
            *(now + seconds, now),
        )
