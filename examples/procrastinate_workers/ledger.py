"""The table of pictures: who may work at one, and what is known about its payment."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, LiteralString

from attrs import frozen
from psycopg import AsyncConnection, OperationalError
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from dryapi_async import Image, Job

LOCKS: Final = 7011
"""The class of our advisory locks; the second number is the picture's id. Any number that nothing else in the database uses."""
logger = logging.getLogger(__name__)

Connection = AsyncConnection[tuple[Any, ...]]
Pool = AsyncConnectionPool[Connection]


class HeldError(Exception):
    """A living worker is at this picture."""


@frozen
class Picture:
    """A row, as it was when it was looked at."""

    id: int
    request: dict[str, Any]
    state: str
    ticket: str | None
    owner: str | None


class Ledger:
    """The table of pictures, as one worker sees it.

    Args:
        life: A connection of this worker's own, in autocommit. It holds an advisory lock for each picture that the worker is at, and the
            server frees them when the connection ends: that is how the others know, on whatever host, that a worker is dead. Intents are
            written over it, too, so that a worker without its locks can begin nothing.
        pool: For everything else. What is known of a payment can still be written when ``life`` is lost.
    """

    def __init__(self, life: Connection, pool: Pool) -> None:
        self._life = life
        self._pool = pool
        self._held: set[int] = set()
        self.owner: str = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"

    async def watch(self, *, every_seconds: float = 5.0) -> None:
        """Return never, but raise OperationalError once the connection with the locks is lost: then the worker must end."""
        while True:
            await self._life.execute("SELECT")
            await asyncio.sleep(every_seconds)

    @asynccontextmanager
    async def hold(self, picture: int) -> AsyncGenerator[Picture, None]:
        """Keep every other worker away from a picture, and give its row.

        Raises:
            HeldError: A living worker has it, this one or another.
        """
        if picture in self._held:  # a session is given its own lock as often as it asks
            raise HeldError(f"This worker is at picture {picture}.")
        self._held.add(picture)
        try:
            cursor = await self._life.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, picture))
            if await cursor.fetchone() != (True,):
                raise HeldError(f"Another worker is at picture {picture}.")
            try:
                yield await self._read(picture)
            finally:
                if not self._life.closed:
                    await self._life.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCKS, picture))
        finally:
            self._held.discard(picture)

    async def _read(self, picture: int) -> Picture:
        async with self._life.cursor(row_factory=class_row(Picture)) as cursor:
            await cursor.execute("SELECT id, request, state, ticket, owner FROM pictures WHERE id = %s", (picture,))
            row = await cursor.fetchone()
        if row is None:
            raise LookupError(f"There is no picture {picture}.")
        return row

    async def intend(self, picture: int) -> bool:
        """Commit that the request is about to leave; False if the picture isn't queued any more."""
        cursor = await self._life.execute(
            "UPDATE pictures SET state = 'intent', owner = %s, error = NULL, updated_at = now() WHERE id = %s AND state = 'queued'",
            (self.owner, picture),
        )
        return cursor.rowcount == 1

    async def keep(self, picture: int, job: Job[Image]) -> None:
        """Commit the ticket of a job that is paid for, however long the database is away: it exists nowhere else.

        A row that was called unknown meanwhile, since this worker lost its locks, is settled by it.
        """
        while True:
            try:
                await self._write(
                    "UPDATE pictures SET state = 'submitted', request_id = %s, ticket = %s, error = NULL, updated_at = now() "
                    "WHERE id = %s AND owner = %s AND state IN ('intent', 'unknown')",
                    (job.id, job.ticket, picture, self.owner),
                )
            except OperationalError as error:
                logger.warning("Picture %s is paid for, and its ticket %s can't be written yet: %s", picture, job.ticket, error)
                await asyncio.sleep(1)
            else:
                return

    async def give_back(self, picture: int, why: str) -> None:
        """Queue a picture again of which nothing was accepted."""
        await self._write(
            "UPDATE pictures SET state = 'queued', error = %s, updated_at = now() WHERE id = %s AND owner = %s AND state = 'intent'",
            (why, picture, self.owner),
        )

    async def give_up(self, picture: int, why: str) -> None:
        """Name a picture unknown: it may be paid for, and is never submitted again by itself."""
        await self._write(
            "UPDATE pictures SET state = 'unknown', error = %s, updated_at = now() WHERE id = %s AND state = 'intent'", (why, picture)
        )

    async def end(
        self, picture: int, state: Literal["done", "failed", "refused"], *, path: str | None = None, why: str | None = None
    ) -> None:
        """Write how it ended."""
        await self._write(
            "UPDATE pictures SET state = %s, path = %s, error = %s, owner = %s, updated_at = now() WHERE id = %s",
            (state, path, why, self.owner, picture),
        )

    async def _write(self, statement: LiteralString, values: tuple[object, ...]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(statement, values)
