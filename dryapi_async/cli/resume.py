"""What the journal says of a manifest's lines: which are done, which are another process's, and which are to be sent or taken up."""

import asyncio
from collections.abc import Collection
from typing import Any, Final, Literal

from attrs import define, field

from dryapi_async import Client, Job
from dryapi_async.calls import AGAIN
from dryapi_async.io.journal import JournalRow

_RANK: Final = ("saved", "done", "submitted", "intent", "waiting", "unknown", "failed", "refused")
"""Of several calls of one label the first of these decides."""
_HELD: Final = frozenset({"done", "submitted", "intent", "waiting"})
"""States of a call that somebody goes on with, as long as he lives."""

What = Literal["send", "fetch", "saved", "failed", "unknown", "gone", "elsewhere"]


@define
class Records:
    """The journal's calls of the lines of one manifest, as they were when it was last read."""

    client: Client
    keys: Collection[str]
    rows: dict[str, JournalRow] = field(factory=dict[str, JournalRow])
    """Of each key the call that decides."""
    taken: dict[str, Job[Any]] = field(factory=dict[str, Job[Any]])
    """Jobs of dead processes that are this one's now, by their ids."""
    living: dict[str, bool] = field(factory=dict[str, bool])
    lost: frozenset[str] = frozenset()
    """The journal's keys of all that may be paid for once more."""

    async def read(self) -> None:
        """Read the journal, and take over what dead processes left of these lines.

        Raises:
            JournalError: It can't be read.
        """
        await self._list()
        if any(row.state in _HELD and not self.living[row.owner] for row in self.rows.values()):
            self.taken |= {job.id: job for job in await self.client.unfinished()}
            await self._list()

    async def _list(self) -> None:
        journal = self.client.journal
        rows = await journal.list()
        self.rows = await asyncio.to_thread(_pick_rows, rows, self.keys)
        self.lost = frozenset(row.key for row in rows if row.state in AGAIN)
        self.living = {owner: await journal.is_alive(owner) for owner in {row.owner for row in self.rows.values()}}

    def judge(self, key: str, result: str | None, again: Collection[str]) -> What:
        """Say what is to be done with a line, of which ``result`` is in the folder; ``again`` names states that are paid for once more."""
        row = self.rows.get(key)
        if row is None or row.state in {"refused", *again}:
            return "send"
        if row.state == "unknown":
            return "unknown"
        if row.state == "failed":
            return "failed"
        if row.state != "saved":
            return "elsewhere" if row.request_id not in self.taken else "saved" if result else "fetch"
        return "saved" if result else "fetch" if row.request_id else "gone"

    def job(self, key: str) -> Job[Any]:
        """Take a line's job up by its ticket: it is paid for."""
        row = self.rows[key]
        return self.taken.get(row.request_id or "") or self.client.job(row.ticket or "")


def _pick_rows(rows: tuple[JournalRow, ...], keys: Collection[str]) -> dict[str, JournalRow]:
    """Find the call of each key that decides; of two in one state the later one."""
    found: dict[str, JournalRow] = {}
    for row in rows:
        if row.label in keys and (row.label not in found or _RANK.index(row.state) <= _RANK.index(found[row.label].state)):
            found[row.label] = row
    return found
