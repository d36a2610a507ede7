"""The journal of paid calls: an intent is on disk before its request leaves, a job's id before anybody has it."""

from collections.abc import Collection
from os import PathLike
from pathlib import Path

from dryapi_async.errors import ConfigurationError
from dryapi_async.io.ledger import BUSY_SECONDS, COMES_FROM, Intent, JournalRow, Ledger, Turn
from dryapi_async.io.writer import Writer

__all__ = ["Journal", "JournalRow"]


class Journal:
    """A file that knows each paid call of an account: sqlite in WAL mode on a local disk (not NFS), mode 0600.

    It may be used from one event loop after another, and by several processes at once. Don't open the file by other means in a process
    that has it open: to close a copy's or a reader's handle takes sqlite's locks away (POSIX), and with them what keeps other processes
    from the log.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        base_url: str,
        account: str,
        busy_seconds: float = BUSY_SECONDS,
        writer: Writer | None = None,
    ) -> None:
        self._writer = writer or Writer(Ledger(Path(path).absolute(), base_url=base_url, busy_seconds=busy_seconds))
        self._base_url = base_url
        self._account = account

    def __repr__(self) -> str:
        return f"<Journal {self.path}>"

    def for_account(self, account: str) -> "Journal":
        """Give the journal of another account in the same file, written by the same thread."""
        return Journal(self.path, base_url=self._base_url, account=account, writer=self._writer)

    @property
    def path(self) -> Path:
        """The file."""
        return self._writer.ledger.path

    @property
    def commits(self) -> int:
        """Transactions so far."""
        return self._writer.ledger.commits

    async def open(self) -> None:
        """Open the file; every other method does that, too.

        Raises:
            JournalError: It can't be trusted: locked, read-only, full, of a newer version.
        """
        await self._writer.open()

    async def intend(  # noqa: PLR0913  what stands in its row, and what forbids it
        self,
        key: str,
        *,
        operation: str,
        digest: str,
        attempt: int,
        label: str = "",
        unless: Collection[str] = (),
        covered: frozenset[str] = frozenset(),
        earlier: Collection[str] = (),
    ) -> None:
        """Note that a call leaves now; it is on disk when this returns.

        ``covered`` are the keys of calls in other states than ``unless`` that the user agreed to pay for once more (`keys`), ``earlier``
        those under which the same call was sent before.

        Raises:
            JournalError: It isn't: nothing may be submitted.
            AlreadySubmittedError: A call of the same label is in one of the states ``unless``, or isn't covered.
        """
        _check_states(unless)
        await self._writer.put(
            Intent(
                account=self._account,
                key=key,
                operation=operation,
                digest=digest,
                label=label,
                attempt=attempt,
                unless=tuple(unless),
                covered=covered,
                earlier=tuple(earlier),
            )
        )

    async def record(self, key: str, state: str, *, request_id: str | None = None, cause: str = "", owned: bool = True) -> None:
        """Note a call's next state; it is on disk when this returns. With ``owned=False`` a job stays the process's that made it.

        Raises:
            JournalError: It isn't.
        """
        await self._writer.put(Turn(account=self._account, key=key, state=state, request_id=request_id, cause=cause, owned=owned))

    def note(self, key: str, state: str, *, cause: str = "") -> None:
        """Note a call's next state with the next group, or in a second; ``key`` may be its job's request_id. A failure is only logged."""
        self._writer.put_later(Turn(account=self._account, key=key, state=state, cause=cause))

    async def find(self, key: str) -> JournalRow | None:
        """Find one call by its key."""
        return await self._writer.ask(self._writer.ledger.find, self._account, key)

    async def list(self, *states: str) -> tuple[JournalRow, ...]:
        """List this account's calls in some states, or in all, oldest first.

        Raises:
            ConfigurationError: There is no such state.
        """
        _check_states(states)
        return await self._writer.ask(self._writer.ledger.rows, self._account, states)

    async def keys(self, states: Collection[str], label: str | None = None) -> frozenset[str]:
        """Give the keys of this account's calls that are in some states now, of one label or of all.

        Raises:
            ConfigurationError: There is no such state.
        """
        _check_states(states)
        return await self._writer.ask(self._writer.ledger.keys, self._account, tuple(states), label)

    async def is_alive(self, owner: str) -> bool:
        """Say whether the process that a row belongs to (``row.owner``) still lives and has the journal open."""
        return await self._writer.start(self._writer.ledger.is_alive, owner)

    async def take_over(self) -> tuple[JournalRow, ...]:
        """Make the jobs that dead processes left this process's own: each is given to one caller only."""
        return await self._writer.ask(self._writer.ledger.take_over, self._account)

    async def prune(self, *, older_than: float = 0.0, states: Collection[str] = ("saved", "failed", "refused")) -> int:
        """Forget calls whose last news is older than so many seconds; say how many. What is unknown or unfinished goes only if named."""
        _check_states(states)
        return await self._writer.ask(self._writer.ledger.prune, self._account, older_than, tuple(states))

    async def close(self) -> None:
        """Write what is left, and let go of the file; a later use opens it anew."""
        await self._writer.close()


def _check_states(states: Collection[str]) -> None:
    if wrong := sorted(set(states) - {*COMES_FROM, "intent"}):
        raise ConfigurationError(f"The journal knows no state {wrong[0]!r}: intent, {', '.join(COMES_FROM)}.")
