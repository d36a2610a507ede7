"""The journal's file: sqlite in WAL mode, and a lock file for each owner. Everything here blocks."""

import re
import sqlite3
import threading
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import evolve, field, frozen

from dryapi_async.errors import AlreadySubmittedError, JournalError
from dryapi_async.io.ledger_file import close_to_others, identify, make_file, switch_to_wal
from dryapi_async.io.owners import OwnerLock, is_alive

VERSION: Final = 1
"""The schema's, in ``user_version``."""
BUSY_SECONDS: Final = 5.0
"""So long another process may hold the file before that is an error."""
_HINTS: Final = {"locked": "another program holds it", "full": "the disk is full", "readonly": "it can't be written"}
_SCHEMA: Final = (
    """CREATE TABLE calls (
        key TEXT PRIMARY KEY, operation TEXT NOT NULL, digest TEXT NOT NULL, label TEXT NOT NULL, state TEXT NOT NULL, request_id TEXT,
        base_url TEXT NOT NULL, account TEXT NOT NULL, owner TEXT NOT NULL, attempt INTEGER NOT NULL, cause TEXT NOT NULL,
        created_at REAL NOT NULL, updated_at REAL NOT NULL)""",
    "CREATE INDEX calls_unfinished ON calls (owner, state) WHERE state IN ('intent', 'waiting', 'submitted', 'done')",
    "CREATE INDEX calls_request ON calls (request_id) WHERE request_id IS NOT NULL",
    f"PRAGMA user_version = {VERSION}",
)
_LABELS: Final = "CREATE INDEX IF NOT EXISTS calls_label ON calls (label) WHERE label != ''"
"""It came later and changes no meaning, so a journal of before is given it as it is opened."""
_UNFINISHED: Final = "state IN ('intent', 'waiting', 'submitted', 'done')"
"""Word for word the partial index's condition: else sqlite doesn't use it."""
COMES_FROM: Final[dict[str, tuple[str, ...]]] = {
    "waiting": ("intent",),
    "refused": ("intent", "waiting"),
    "unknown": ("intent", "waiting"),
    "submitted": ("intent", "waiting", "unknown"),
    "done": ("submitted",),
    "failed": ("submitted",),
    "saved": ("intent", "submitted", "done"),
}
"""State -> those it may come from: a state never goes back. (A prompt tool has no job: its answer makes an intent saved.)"""


@frozen(kw_only=True)
class JournalRow:
    """One paid call as the journal knows it. ``state`` is intent, waiting, submitted, done, saved, failed, unknown or refused."""

    key: str
    """Its key: ``SubmissionUnknownError.journal_key``."""
    operation: str
    """The slug."""
    digest: str
    """SHA-256 of the request."""
    label: str
    """What the user called it: ``client.call(request, label=...)``."""
    state: str
    request_id: str | None
    base_url: str
    account: str
    """A hash of the API key."""
    owner: str
    """The process's life that made it, or took it over."""
    attempt: int
    cause: str
    """Why it is refused or unknown, in words."""
    created_at: float
    """Unix time."""
    updated_at: float

    @property
    def ticket(self) -> str | None:
        """The job's ticket, once there is a job."""
        return None if self.request_id is None else f"{self.operation}:{self.request_id}"


_COLUMNS: Final = "key, operation, digest, label, state, request_id, base_url, account, owner, attempt, cause, created_at, updated_at"


def _read_row(row: tuple[object, ...]) -> JournalRow:
    return JournalRow(**dict(zip(_COLUMNS.split(", "), row, strict=True)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  the schema's types


@frozen(kw_only=True)
class Intent:
    """A call that leaves now."""

    account: str
    key: str
    operation: str
    digest: str
    label: str
    attempt: int
    unless: tuple[str, ...] = ()
    """States in which another call of the same label forbids this one."""
    covered: frozenset[str] = frozenset()
    """Keys of calls in other states that the user agreed to pay for once more. Any other of the same label forbids it, too."""
    earlier: tuple[str, ...] = ()
    """Keys that the same call was sent under before: they forbid nothing."""


@frozen(kw_only=True)
class Turn:
    """A call's next state; ``key`` may be its job's request_id."""

    account: str
    key: str
    state: str
    request_id: str | None = None
    cause: str = ""
    owned: bool = True
    """Whether the life that writes it has the job from now on."""
    at: float = field(factory=time.time)
    """Unix time at which it was so: it may be written later."""


class Ledger:
    """One open journal. Its methods block, and wait for each other; a fork waits for them, too."""

    def __init__(self, path: Path, *, base_url: str, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path: Path = path
        self.commits: int = 0
        """Transactions so far: a group of writes is one."""
        self.in_use: threading.RLock = threading.RLock()
        self._place = path
        self._inode: tuple[int, int] | None = None
        self._base_url = base_url
        self._busy_seconds = busy_seconds
        self._lock: OwnerLock | None = None
        self._db: sqlite3.Connection | None = None

    @property
    def owner(self) -> str:
        """This life's name."""
        return "" if self._lock is None else self._lock.owner

    def open(self) -> None:
        """Open the file, make its schema if it is new, and bury dead owners' intents.

        Raises:
            JournalError: It can't be trusted; nothing may be submitted.
        """
        with self.in_use, self._explained():
            if self._db is not None:
                return
            make_file(self.path)
            self._inode = identify(self.path)
            # Lock files lie beside the file itself: it may have several names.
            self._place = self.path.resolve()
            self._db = sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(self._db)
                with self._transaction(self._db):
                    self._lock = OwnerLock(self._place)
                    self._bury(self._db)
            except BaseException:
                self.close()
                raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        # Before anything is changed: it may be somebody else's.
        self._is_new(db)
        mode = switch_to_wal(db, self._busy_seconds)
        if mode != "wal":
            raise JournalError(f"Journal {self.path} can't be in WAL mode here ({mode}): put it on a local disk.")
        db.execute("PRAGMA synchronous = FULL")
        # Whether it can be written is known only by asking for it.
        with self._transaction(db):
            for statement in _SCHEMA if self._is_new(db) else ():
                db.execute(statement)
            db.execute(_LABELS)
        for name in ("", "-wal", "-shm"):
            close_to_others(Path(f"{self._place}{name}"))

    def _is_new(self, db: sqlite3.Connection) -> bool:
        # In this order: another process may make the tables and the version, in one step, in between.
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalError(f"Journal {self.path} is of version {version}, newer than this package's {VERSION}: update the package.")
        if tables and not (version == VERSION and "calls" in tables):
            raise JournalError(f"Journal {self.path} is another program's database: choose another file.")
        return not tables

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Say what is wrong with the file, and what to do."""
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            if isinstance(error, JournalError):
                raise
            said: str = getattr(error, "strerror", None) or str(error)
            hint = next((f" ({hint})" for word, hint in _HINTS.items() if word in said), "")
            raise JournalError(
                f"Journal {self.path} can't be used: {said}{hint}. Nothing is submitted without it: mend that, or choose another file on a "
                "local disk."
            ) from error

    @contextmanager
    def _transaction(self, db: sqlite3.Connection) -> Generator[None]:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            # A full disk has rolled back already.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.commits += 1

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection]:
        with self.in_use:
            self.open()
            assert self._db is not None  # noqa: S101  for the type checker
            with self._explained():
                if identify(self.path) != self._inode:
                    # What is written now would be gone with the old file.
                    raise JournalError(f"Journal {self.path} was removed or replaced while it was open: close the client, make a new one.")
                yield self._db

    def apply(self, writes: Sequence[Intent | Turn]) -> list[JournalError | AlreadySubmittedError | None]:
        """Write a group in one transaction: all of it is on disk when this returns, but for those that have an error.

        Raises:
            JournalError: None of it is.
        """
        errors: list[JournalError | AlreadySubmittedError | None] = []
        with self._opened() as db, self._transaction(db):
            for write in writes:
                try:
                    self._write(db, write, time.time())
                    errors.append(None)
                except AlreadySubmittedError as error:
                    errors.append(error)
                except (sqlite3.Error, ValueError, KeyError) as error:
                    if not db.in_transaction:
                        # A full disk: sqlite has taken the others back, too.
                        raise
                    errors.append(JournalError(f"Journal {self.path} can't keep call {write.key!r}: {error}"))
        return errors

    def _write(self, db: sqlite3.Connection, write: Intent | Turn, now: float) -> None:
        if isinstance(write, Intent):
            self._check_label(db, write)
            done = db.execute(
                f"INSERT INTO calls ({_COLUMNS}) VALUES (?, ?, ?, ?, 'intent', NULL, ?, ?, ?, ?, '', ?, ?) ON CONFLICT (key) DO UPDATE "  # noqa: S608  our own words
                "SET state = 'intent', attempt = excluded.attempt, owner = excluded.owner, updated_at = excluded.updated_at "
                "WHERE state IN ('intent', 'waiting')",
                (
                    *(write.key, write.operation, write.digest, write.label, self._base_url, write.account),
                    *(self.owner, write.attempt, now, now),
                ),
            )
            if not done.rowcount:
                raise ValueError("it is further than an intent already. Nothing may be sent for it")
            return
        before = COMES_FROM[write.state]
        # The life that was answered a job's id has the job.
        owner = self.owner if write.state == "submitted" and write.owned else None
        db.execute(
            "UPDATE calls SET state = ?, request_id = COALESCE(?, request_id), owner = COALESCE(?, owner), cause = ?, updated_at = ? "  # noqa: S608  our own words
            f"WHERE (key = ? OR request_id = ?) AND base_url = ? AND account = ? AND state IN ({', '.join('?' * len(before))})",
            (write.state, write.request_id, owner, write.cause, write.at, write.key, write.key, self._base_url, write.account, *before),
        )

    def _check_label(self, db: sqlite3.Connection, intent: Intent) -> None:
        """Refuse a call whose label another one has, whoever made it: inside the transaction, so that of two only one gets through."""
        if not intent.unless:
            return
        found = db.execute(
            f"SELECT {_COLUMNS} FROM calls WHERE label = ? AND label != '' AND base_url = ? AND account = ? AND state != 'refused' "  # noqa: S608  our own words
            "ORDER BY updated_at DESC",
            (intent.label, self._base_url, intent.account),
        ).fetchall()  # all of it: a statement that is open still, in a raised error's traceback, would hold the file
        own = {intent.key, *intent.earlier}
        for row in map(_read_row, found):
            if row.key in own or (row.state not in intent.unless and row.key in intent.covered):
                continue
            shown = f"{row.state}, {row.ticket}" if row.ticket else row.state
            since = "" if row.state in intent.unless else " It came to that after you agreed to pay again: if you still do, call anew."
            raise AlreadySubmittedError(
                f"{intent.label!r} is in the journal already ({shown}): nothing was sent.{since}",
                label=row.label,
                state=row.state,
                ticket=row.ticket,
                journal_key=row.key,
            )

    def is_alive(self, owner: str) -> bool:
        """Say whether the process's life that a row belongs to goes on."""
        return owner == self.owner or is_alive(self._place, owner)

    def rows(self, account: str, states: Collection[str]) -> tuple[JournalRow, ...]:
        """List an account's calls in some states, or all, oldest first."""
        only = f" AND state IN ({', '.join('?' * len(states))})" if states else ""
        with self._opened() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM calls WHERE base_url = ? AND account = ?{only} ORDER BY created_at, key",  # noqa: S608  our own words
                (self._base_url, account, *states),
            )
            return tuple(map(_read_row, found))

    def keys(self, account: str, states: Collection[str], label: str | None = None) -> frozenset[str]:
        """Give the keys of an account's calls in some states, of one label or of all."""
        with self._opened() as db:
            found = db.execute(
                f"SELECT key FROM calls WHERE base_url = ? AND account = ? AND state IN ({', '.join('?' * len(states))})"  # noqa: S608  our own words
                + (" AND label = ? AND label != ''" if label is not None else ""),
                (self._base_url, account, *states, *(() if label is None else (label,))),
            )
            return frozenset(key for (key,) in found)

    def find(self, account: str, key: str) -> JournalRow | None:
        """Find one of an account's calls."""
        with self._opened() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM calls WHERE key = ? AND base_url = ? AND account = ?",  # noqa: S608  our own words
                (key, self._base_url, account),
            )
            return next(map(_read_row, found), None)

    def take_over(self, account: str) -> tuple[JournalRow, ...]:
        """Make an account's jobs of dead owners this owner's: each goes to one caller only."""
        found: list[JournalRow] = []
        with self._opened() as db, self._transaction(db):
            for owner in self._bury(db):
                theirs = f"FROM calls WHERE {_UNFINISHED} AND owner = ? AND state IN ('submitted', 'done') AND base_url = ? AND account = ?"
                found += map(_read_row, db.execute(f"SELECT {_COLUMNS} {theirs}", (owner, self._base_url, account)))
            db.executemany("UPDATE calls SET owner = ? WHERE key = ?", [(self.owner, row.key) for row in found])
            self._sweep()
        return tuple(evolve(row, owner=self.owner) for row in sorted(found, key=lambda row: (row.created_at, row.key)))

    def _bury(self, db: sqlite3.Connection) -> list[str]:
        """Find dead owners with unfinished calls; what they had on its way is unknown, what waited was never sent."""
        owners = [owner for (owner,) in db.execute(f"SELECT DISTINCT owner FROM calls WHERE {_UNFINISHED}")]  # noqa: S608  our own words
        dead = [owner for owner in owners if owner != self.owner and not is_alive(self._place, owner)]
        for state, before, cause in (
            ("unknown", "intent", "the process ended while it was on its way"),
            ("refused", "waiting", "the process ended before it was sent again"),
        ):
            db.executemany(
                f"UPDATE calls SET state = ?, cause = ?, updated_at = ? WHERE {_UNFINISHED} AND owner = ? AND state = ?",  # noqa: S608  our own words
                [(state, cause, time.time(), owner, before) for owner in dead],
            )
        return dead

    def _sweep(self) -> None:
        """Remove the lock files of the dead: a missing file says the same."""
        names = re.compile(re.escape(self._place.name) + r"\.([0-9a-f]{16})\.lock")
        for file in self._place.parent.iterdir():
            name = names.fullmatch(file.name)
            if name and name[1] != self.owner and not is_alive(self._place, name[1]):
                file.unlink(missing_ok=True)

    def prune(self, account: str, older_than: float, states: Collection[str]) -> int:
        """Forget an account's calls in some states that are older than so many seconds; say how many."""
        marks = ", ".join("?" * len(states))
        with self._opened() as db, self._transaction(db):
            done = db.execute(
                f"DELETE FROM calls WHERE base_url = ? AND account = ? AND updated_at <= ? AND state IN ({marks})",  # noqa: S608  our own words
                (self._base_url, account, time.time() - older_than, *states),
            )
            return done.rowcount

    def close(self) -> None:
        """Close the file, and end this owner's life."""
        with self.in_use:
            if self._db is not None:
                self._db.close()
            if self._lock is not None:
                self._lock.release()
            self._db = self._lock = None

    def disown(self) -> None:
        """Drop what a forked child has of its parent's: while sqlite sees the old connection, it believes that its locks are held."""
        self.in_use = threading.RLock()
        if self._lock is not None:
            self._lock.forget()
            self._lock = None
        self.close()
