"""Results on disk, whole or not at all; an expired link is renewed by one status read, a cut transfer goes on where it was."""

import asyncio
import errno
import os
import random
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeVar

import aiofiles
import aiohttp
from attrs import define, field
from yarl import URL

from dryapi_async.errors import DownloadError, LinkExpiredError, PoolTimeoutError
from dryapi_async.events import BytesReceived
from dryapi_async.io.exchange import Exchange
from dryapi_async.io.http import USER_AGENT, Http, PrivateAddressError
from dryapi_async.io.threads import FileThreads
from dryapi_async.protocol.links import Link, check_link, follow, mask
from dryapi_async.protocol.media import ending_for
from dryapi_async.protocol.retry import Again, Answered, Broke, decide
from dryapi_async.protocol.status import Update
from dryapi_async.protocol.wire import quote_id

T = TypeVar("T")

PIECE_BYTES: Final = 256 * 1024
MOST_REDIRECTS: Final = 5
_EXPIRED: Final = frozenset({400, 401, 403, 404, 410})
"""What storage hosts answer to a signed link that is over: S3 says 403, others what they like."""


@define
class Transfer:
    """How far one file has come."""

    link: Link
    url: str | None = field(repr=False)
    position: int = 0
    total: int | None = None
    validator: str | None = None
    """ETag or Last-Modified: what If-Range asks, so that two versions are never mixed."""
    content_type: str = ""
    attempt: int = 0
    renewed: bool = False


class Downloads:
    """The door of every result: opens, saves and renews links. No request here carries the API key."""

    def __init__(self, http: Http, threads: FileThreads, exchange: Exchange, read_status: Callable[[str], Awaitable[Update]]) -> None:
        self._http = http
        self._threads = threads
        self._exchange = exchange
        self._read_status = read_status

    async def renew(self, request_id: str) -> Update:
        """Read the status once more."""
        return await self._read_status(request_id)

    async def decode(self, text: str) -> Any:
        """Decode JSON, off the loop where it is long."""
        return await self._exchange.decode(text.encode())

    async def open(self, link: Link) -> AsyncIterator[bytes]:
        """Stream a file in pieces, its length checked."""
        async with self._exchange.slots, aclosing(self._pieces(Transfer(link, link.url))) as pieces:
            async for piece in pieces:
                yield piece

    async def save(self, link: Link, target: Path, *, ending: str = "") -> Path:
        """Save a file whole or not at all; a directory as target takes the id and the type's ending."""
        return await _settle(self._save(link, target, ending))

    async def _save(self, link: Link, target: Path, ending: str) -> Path:
        transfer = Transfer(link, link.url)
        folder, name = await self._threads.start(_split_target, target)
        part = folder / f".{name or safe_name(link.request_id)}.{secrets.token_hex(4)}.part"

        def final() -> Path:
            return folder / (name or safe_name(link.request_id) + (ending_for(transfer.content_type) or ending))

        async with self._exchange.slots:
            return await self._write(part, self._pieces(transfer), final)

    async def write(self, request_id: str, text: str, target: Path, *, ending: str) -> Path:
        """Save a text whole or not at all."""
        folder, name = await self._threads.start(_split_target, target)
        part = folder / f".{name or safe_name(request_id)}.{secrets.token_hex(4)}.part"
        final = folder / (name or safe_name(request_id) + ending)
        return await _settle(self._write(part, _one(text.encode()), lambda: final))

    async def _write(self, part: Path, pieces: AsyncGenerator[bytes, None], final: Callable[[], Path]) -> Path:
        """Write pieces to a temporary file and give it its name; it is gone again if that ends in any other way than whole."""
        try:
            async with aclosing(pieces):
                file = await self._open_part(part)
                try:
                    async for piece in pieces:
                        await file.write(piece)
                finally:
                    await _see_through(file.close())
            return await self._threads.start(_rename, part, final())
        except BaseException:
            await self._threads.start(part.unlink, missing_ok=True)
            raise

    async def _open_part(self, part: Path) -> Any:
        """Open the temporary file; cancelled in the middle, it is closed before the cancellation goes on."""
        opening = asyncio.ensure_future(_open(part, self._threads))
        try:
            return await _see_through(opening)
        except asyncio.CancelledError:
            if opening.exception() is None:
                await opening.result().close()
            raise

    async def _pieces(self, transfer: Transfer) -> AsyncGenerator[bytes, None]:
        """Fetch a file: retried where it breaks, from where it broke; a link that expired is renewed once."""
        if transfer.url is None:
            await self._renew(transfer)
        while True:
            self._http.check_open()
            transfer.attempt += 1
            response: aiohttp.ClientResponse | None = None
            failure: Exception | None = None
            try:
                async with self._http.gate:
                    response = await self._request(transfer)
                    async with response:
                        if response.status < 300:  # noqa: PLR2004  success
                            with self._http.reading(response):
                                async for piece in self._body(transfer, response):
                                    yield piece
                            return
            except (aiohttp.ClientError, TimeoutError) as error:
                if isinstance(error, PoolTimeoutError):
                    raise
                failure = error
            await self._recover(transfer, response, failure)

    async def _request(self, transfer: Transfer) -> aiohttp.ClientResponse:
        """Ask for the file, or for the rest of it, and follow redirects with the rules checked at each."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if transfer.position and transfer.validator:
            headers |= {"Range": f"bytes={transfer.position}-", "If-Range": transfer.validator}
        url = transfer.url or ""
        for _ in range(MOST_REDIRECTS + 1):
            check_link(url, self._http.rules)
            try:
                response = await self._http.fetch(URL(url, encoded=True), headers)
            except (aiohttp.ClientConnectorError, PrivateAddressError) as error:
                found = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
                if isinstance(found, PrivateAddressError):
                    raise DownloadError(f"The result link leads into a private network ({found}): refused.") from error
                raise
            location = response.headers.get("Location")
            if response.status not in {301, 302, 303, 307, 308} or not location:
                return response
            response.release()
            url = follow(url, location)
        raise DownloadError(f"The result link of job {transfer.link.request_id} redirects without end. Save it again later.")

    async def _body(self, transfer: Transfer, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Read one answer's body from where the transfer stands."""
        skip = self._begin(transfer, response)
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            rest = piece[skip:] if skip else piece
            skip -= len(piece) - len(rest)
            if rest:
                transfer.position += len(rest)
                yield rest
                self._exchange.tell(
                    BytesReceived(request_id=transfer.link.request_id, bytes_received=transfer.position, bytes_total=transfer.total)
                )
        if transfer.total is not None and transfer.position != transfer.total:
            raise aiohttp.ClientPayloadError(f"{transfer.position} of {transfer.total} bytes came")

    @staticmethod
    def _begin(transfer: Transfer, response: aiohttp.ClientResponse) -> int:
        """Note what an answer's headers say, and how many of its bytes are here already; two versions are never mixed."""
        validator, position = _validator(response), transfer.position
        resumed = response.status == 206  # noqa: PLR2004  Partial Content
        start, total = _read_range(response.headers.get("Content-Range", "")) if resumed else (0, response.content_length)
        same = transfer.validator is not None and validator in ({None, transfer.validator} if resumed else {transfer.validator})
        other_length = None not in {total, transfer.total} and total != transfer.total
        if resumed and (start != position or not position):
            raise DownloadError(
                f"The storage host gave another part of job {transfer.link.request_id}'s file than asked for. Save it again."
            )
        if position and (not same or other_length):
            raise DownloadError(f"The result of job {transfer.link.request_id} changed while it was fetched. Save it again.")
        transfer.validator, transfer.content_type = validator or transfer.validator, response.content_type
        transfer.total = transfer.total if total is None else total
        return 0 if resumed else position

    async def _recover(self, transfer: Transfer, response: aiohttp.ClientResponse | None, failure: Exception | None) -> None:
        """Get ready for another attempt, or raise what became of the transfer."""
        self._http.check_open()
        job = transfer.link.request_id
        if failure is None and response is not None and response.status in _EXPIRED:
            if transfer.renewed:
                raise LinkExpiredError(
                    f"The link to job {job}'s file was refused with {response.status}, and so was a fresh one. Save it again later."
                )
            await self._renew(transfer)
            return
        happened = Broke(sent=True) if failure is not None or response is None else Answered(status=response.status)
        chance = random.random()  # noqa: S311  jitter, no secret
        verdict = decide(happened, billed=False, attempt=transfer.attempt, retry=self._http.retry, chance=chance)
        if isinstance(verdict, Again) and (transfer.position == 0 or transfer.validator is not None):
            await asyncio.sleep(verdict.seconds)
            return
        told = f"{type(failure).__name__}: {failure}" if failure is not None else f"status {response.status if response else 0}"
        cause = mask(told)
        raise DownloadError(
            f"The file of job {job} couldn't be fetched ({cause}) after {transfer.attempt} attempts; nothing is left on disk. "
            "Save it again later."
        ) from (failure if told == cause else None)  # aiohttp's words name the signed link: it stays out of tracebacks, too

    async def _renew(self, transfer: Transfer) -> None:
        """Take a fresh link from one status read."""
        update = await self._read_status(transfer.link.request_id)
        url = update.link(transfer.link.format)
        if url is None:
            has = ", ".join(sorted(update.alternatives)) or "none"
            wanted = transfer.link.format or "file"
            raise DownloadError(f"Job {transfer.link.request_id} has no {wanted} link (other formats: {has}). Save it without that format.")
        transfer.url, transfer.renewed = url, True


async def _see_through(work: Awaitable[T]) -> T:
    """Wait for what must come to its end; a cancellation goes on after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _settle(work: Coroutine[Any, Any, Path]) -> Path:
    """Do work that cleans up behind itself; cancelled once, that is waited for, and cancelled again, it still goes on to its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise


async def _one(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


async def _open(part: Path, threads: FileThreads) -> Any:
    return await aiofiles.open(part, "wb", executor=threads.executor)


def _read_range(given: str) -> tuple[int | None, int | None]:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given.strip())
    return (None, None) if found is None else (int(found[1]), None if found[2] == "*" else int(found[2]))


def _validator(response: aiohttp.ClientResponse) -> str | None:
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _split_target(target: Path) -> tuple[Path, str]:
    """Split a target into its folder and name; a directory has no name yet. A device or a pipe isn't a target: it would be replaced."""
    if target.is_dir():
        return target, ""
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "it is there and is no plain file, so it isn't replaced", str(target))
    return target.parent, target.name


def _rename(part: Path, final: Path) -> Path:
    try:
        os.replace(part, final)  # noqa: PTH105  the same, and atomic by its documentation
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return final


def safe_name(request_id: str) -> str:
    """Make a file name of an id: what came from the network can't leave the folder, nor hide."""
    return quote_id(request_id).replace("%", "_").lstrip(".")[:128] or "job"
