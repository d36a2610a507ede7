"""The journal's file, as its one thread sees it: sqlite in WAL mode, and a lock file for each owner. Everything here blocks."""

import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from attrs import frozen

from dryapi_async.errors import JournalError

VERSION: Final = 1
"""The schema's, in ``user_version``."""
BUSY_SECONDS: Final = 5.0
"""So long another process may hold the file before that is an error."""
_SCHEMA: Final = (
    """CREATE TABLE calls (
        key TEXT PRIMARY KEY, operation TEXT NOT NULL, digest TEXT NOT NULL, label TEXT NOT NULL, state TEXT NOT NULL, request_id TEXT,
        base_url TEXT NOT NULL, account TEXT NOT NULL, owner TEXT NOT NULL, attempt INTEGER NOT NULL, cause TEXT NOT NULL,
        created_at REAL NOT NULL, updated_at REAL NOT NULL)""",
    "CREATE INDEX calls_unfinished ON calls (owner, state) WHERE state IN ('intent', 'waiting', 'submitted', 'done')",
    "CREATE INDEX calls_request ON calls (request_id) WHERE request_id IS NOT NULL",
    f"PRAGMA user_version = {VERSION}",
)
_UNFINISHED: Final = "state IN ('intent', 'waiting', 'submitted', 'done')"
"""Word for word the partial index's condition: else sqlite doesn't use it."""
COMES_FROM: Final = {
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

    key: str
    operation: str
    digest: str
    label: str
    attempt: int


@frozen(kw_only=True)
class Turn:
    """A call's next state; ``key`` may be its job's request_id."""

    key: str
    state: str
    request_id: str | None = None
    cause: str = ""


_held: "WeakSet[OwnerLock]"


class OwnerLock:
    """The sign that an owner lives: a lock on its own file, which the kernel frees at its death."""

    def __init__(self, path: Path) -> None:
        """Take a fresh owner's lock beside the journal ``path``."""
        self.pid: int = os.getpid()
        while True:
            self.owner: str = secrets.token_hex(8)
            self._file = lock_file(path, self.owner)
            self._fd: int | None = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another may have taken the file for a dead one's, between its making and its lock, and removed it.
                if os.stat(self._file).st_ino == os.fstat(self._fd).st_ino:  # noqa: PTH116  as fstat
                    break
            os.close(self._fd)
        _remember(self)

    def release(self) -> None:
        """Let go: this owner is dead from now on."""
        if self._fd is not None:
            self._file.unlink(missing_ok=True)
            self.forget()

    def forget(self) -> None:
        """Close the file without a word: a forked child isn't the owner."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _remember(lock: OwnerLock) -> None:
    """Let forked children drop the locks that they inherit: a lock lives until its last holder closes it."""
    global _held  # noqa: PLW0603  made at first use, since nothing is made at import
    if "_held" not in globals():
        _held = WeakSet()
        os.register_at_fork(after_in_child=_forget_all)
    _held.add(lock)


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


def lock_file(path: Path, owner: str) -> Path:
    """Find an owner's lock file."""
    return path.with_name(f"{path.name}.{owner}.lock")


def is_alive(path: Path, owner: str) -> bool:
    """Say whether an owner holds its lock."""
    try:
        fd = os.open(lock_file(path, owner), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Ledger:
    """One open journal. All methods but the constructor are called from one thread."""

    def __init__(self, path: Path, *, base_url: str, account: str, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path: Path = path
        self.commits: int = 0
        """Transactions so far: a group of writes is one."""
        self._base_url = base_url
        self._account = account
        self._busy_seconds = busy_seconds
        self._lock: OwnerLock | None = None
        self._db: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None

    @property
    def owner(self) -> str:
        """This life's name."""
        return "" if self._lock is None else self._lock.owner

    def open(self) -> None:
        """Open the file, make its schema if it is new, and bury dead owners' intents.

        Raises:
            JournalError: It can't be trusted; nothing may be submitted.
        """
        if self._db is not None and self._lock is not None and self._lock.pid == os.getpid():
            return
        # A forked child must not touch its parent's connection, not even to close it.
        self._inherited, self._db = self._db, None
        with self._explained():
            _check_place(self.path)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(db)
                self._lock = OwnerLock(self.path)
                self._db = db
                with self._transaction(db):
                    self._bury(db)
            except BaseException:
                self._db = None
                db.close()
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None
                raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalError(f"Journal {self.path} is of version {version}, newer than this package's {VERSION}: update the package.")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"Journal {self.path} can't be in WAL mode here ({mode}): put it on a local disk.")
        db.execute("PRAGMA synchronous = FULL")
        # Whether it can be written is known only by asking for it.
        with self._transaction(db):
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                    raise JournalError(f"Journal {self.path} is another program's database: choose another file.")
                for statement in _SCHEMA:
                    db.execute(statement)

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Say what is wrong with the file, and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            said = str(error)
            hints = {
                "locked": "another program holds it",
                "full": "the disk is full",
                "readonly": "it can't be written",
                "not a database": "",
            }
            hint = next((hint for word, hint in hints.items() if word in said), "")
            raise JournalError(
                f"Journal {self.path} can't be used: {said}{f' ({hint})' if hint else ''}. Nothing is submitted without it: mend that, or "
                "choose another file on a local disk."
            ) from error
        except OSError as error:
            raise JournalError(
                f"Journal {self.path} can't be used: {error.strerror or error}. Choose a file on a local disk that can be written."
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
        self.open()
        assert self._db is not None  # noqa: S101  for the type checker
        with self._explained():
            yield self._db

    def apply(self, writes: Sequence[Intent | Turn]) -> None:
        """Write a group in one transaction: all of it is on disk when this returns.

        Raises:
            JournalError: None of it is.
        """
        with self._opened() as db, self._transaction(db):
            for write in writes:
                self._write(db, write, time.time())

    def _write(self, db: sqlite3.Connection, write: Intent | Turn, now: float) -> None:
        if isinstance(write, Intent):
            db.execute(
                f"INSERT INTO calls ({_COLUMNS}) VALUES (?, ?, ?, ?, 'intent', NULL, ?, ?, ?, ?, '', ?, ?) ON CONFLICT (key) "  # noqa: S608  our own words
                "DO UPDATE SET state = 'intent', attempt = excluded.attempt, updated_at = excluded.updated_at WHERE state = 'waiting'",
                (write.key, write.operation, write.digest, write.label, self._base_url, self._account, self.owner, write.attempt, now, now),
            )
            return
        before = COMES_FROM[write.state]
        db.execute(
            "UPDATE calls SET state = ?, request_id = COALESCE(?, request_id), cause = ?, updated_at = ? "  # noqa: S608  our own words
            f"WHERE (key = ? OR request_id = ?) AND state IN ({', '.join('?' * len(before))})",
            (write.state, write.request_id, write.cause, now, write.key, write.key, *before),
        )

    def rows(self, states: Collection[str]) -> tuple[JournalRow, ...]:
        """List the account's calls in some states, or all, oldest first."""
        only = f" AND state IN ({', '.join('?' * len(states))})" if states else ""
        with self._opened() as db:
            found = db.execute(
                f"SELECT {_COLUMNS} FROM calls WHERE base_url = ? AND account = ?{only} ORDER BY created_at, key",  # noqa: S608  our own words
                (self._base_url, self._account, *states),
            )
            return tuple(map(_read_row, found))

    def find(self, key: str) -> JournalRow | None:
        """Find one call."""
        with self._opened() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM calls WHERE key = ?", (key,)).fetchone()  # noqa: S608  our own words
            return None if row is None else _read_row(row)

    def take_over(self) -> tuple[JournalRow, ...]:
        """Make dead owners' jobs this owner's: each goes to one caller only."""
        with self._opened() as db, self._transaction(db):
            dead = self._bury(db)
            mine = f"owner IN ({', '.join('?' * len(dead))}) AND state IN ('submitted', 'done') AND base_url = ? AND account = ?"
            whose = (*dead, self._base_url, self._account)
            found = [_read_row(row) for row in db.execute(f"SELECT {_COLUMNS} FROM calls WHERE {mine} ORDER BY created_at, key", whose)]  # noqa: S608
            db.execute(f"UPDATE calls SET owner = ? WHERE {mine}", (self.owner, *whose))  # noqa: S608  our own words
        self._sweep()
        return tuple(found)

    def _bury(self, db: sqlite3.Connection) -> list[str]:
        """Find dead owners with unfinished calls; what they had on its way is unknown, what waited was never sent."""
        owners = [owner for (owner,) in db.execute(f"SELECT DISTINCT owner FROM calls WHERE {_UNFINISHED}")]  # noqa: S608  our own words
        dead = [owner for owner in owners if owner != self.owner and not is_alive(self.path, owner)]
        for owner in dead:
            for state, before, cause in (
                ("unknown", "intent", "the process ended while it was on its way"),
                ("refused", "waiting", "the process ended before it was sent again"),
            ):
                db.execute("UPDATE calls SET state = ?, cause = ? WHERE owner = ? AND state = ?", (state, cause, owner, before))
        return dead

    def _sweep(self) -> None:
        """Remove the lock files of the dead: a missing file says the same."""
        for file in self.path.parent.glob(f"{self.path.name}.*.lock"):
            owner = file.name.removeprefix(f"{self.path.name}.").removesuffix(".lock")
            if owner != self.owner and not is_alive(self.path, owner):
                file.unlink(missing_ok=True)

    def prune(self, older_than: float, states: Collection[str]) -> int:
        """Forget the account's calls in some states that are older than so many seconds; say how many."""
        marks = ", ".join("?" * len(states))
        with self._opened() as db, self._transaction(db):
            done = db.execute(
                f"DELETE FROM calls WHERE base_url = ? AND account = ? AND updated_at <= ? AND state IN ({marks})",  # noqa: S608  our own words
                (self._base_url, self._account, time.time() - older_than, *states),
            )
            return done.rowcount

    def close(self) -> None:
        """Close the file, and end this owner's life."""
        if self._lock is not None and self._lock.pid == os.getpid():
            if self._db is not None:
                self._db.close()
            self._lock.release()
        self._db = self._lock = None


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise JournalError(f"Journal {path} is a directory: give the path of a file, such as {path / 'jobs.db'}.")
    if not path.parent.is_dir():
        raise JournalError(f"Journal {path}: the folder {path.parent} doesn't exist. Make it first.")
