"""Results on disk, whole or not at all; an expired link is renewed by one status read, a cut transfer goes on where it was."""

import asyncio
import logging
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from attrs import define, field
from yarl import URL

from dryapi_async.errors import DownloadError, DryAPIError, LinkExpiredError
from dryapi_async.io.connector import expect
from dryapi_async.io.exchange import Exchange
from dryapi_async.io.guard import PrivateAddressError
from dryapi_async.io.http import Http
from dryapi_async.io.targets import check_target, safe_name
from dryapi_async.io.threads import FileThreads
from dryapi_async.io.writing import Writer, open_writer, see_through
from dryapi_async.protocol.links import Link, check_link, follow, mask, private_address
from dryapi_async.protocol.media import ending_for, fits_name, sniff
from dryapi_async.protocol.replies import read_limit_kind, read_retry_after
from dryapi_async.protocol.retry import Again, Answered, Broke, decide
from dryapi_async.protocol.status import Update
from dryapi_async.protocol.unpack import Unpacker, read_coding

logger: logging.Logger = logging.getLogger("dryapi_async")

PIECE_BYTES: Final = 256 * 1024
MOST_REDIRECTS: Final = 5
_FILE: Final = frozenset({200, 203, 206})
"""Answers that bring a file. Other successes, such as 204, bring none."""
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml", "application/json", "application/xml", "text/xml"})
"""What error pages are, whatever their status says."""
_EXPIRED: Final = frozenset({400, 401, 403, 404, 410})
"""What storage hosts answer to a signed link that is over: S3 says 403, others what they like."""


@define(eq=False, repr=False)
class Transfer:
    """How far one file has come."""

    link: Link
    url: str | None = field(repr=False)
    position: int = 0
    received: int = 0
    """Bytes that the last answer brought."""
    began_at: float | None = None
    """Unix time of the last request."""
    skip: int = 0
    """Bytes that an answer brings again."""
    total: int | None = None
    validator: str | None = None
    """ETag or Last-Modified: what If-Range asks, so that two versions are never mixed."""
    content_type: str = ""
    attempt: int = 0
    renewed: bool = False
    most: int | None = None
    """Bytes: a longer file is refused."""
    coding: str | None = None
    """How the host packed the body. A packed one isn't resumed by Range, whose numbers count packed bytes: it is read again and skipped."""


class Downloads:
    """The door of every result: opens, saves and renews links. No request here carries the API key."""

    def __init__(
        self,
        http: Http,
        threads: FileThreads,
        exchange: Exchange,
        read_status: Callable[[str], Awaitable[Update]],
        *,
        fetched: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._http = http
        self._threads = threads
        self._exchange = exchange
        self._read_status = read_status
        self._fetched = fetched

    async def renew(self, request_id: str) -> Update:
        """Read the status once more."""
        return await self._read_status(request_id)

    async def decode(self, text: str) -> Any:
        """Decode JSON, off the loop where it is long."""
        return await self._exchange.decode(text.encode())

    async def check_target(self, target: Path) -> None:
        """Find out whether a target can be written, before anything is paid for.

        Raises:
            OSError: It can't: the same error that saving would meet.
        """
        await self._threads.start(check_target, target)

    def open(self, link: Link, *, max_bytes: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream a file in pieces, its length checked."""
        pieces = self._pieces(Transfer(link, link.url, most=max_bytes), self._fetched)
        return self._tell_steps(link.request_id, pieces) if self._exchange.teller is not None else pieces

    async def _tell_steps(self, request_id: str, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Tell when a stream begins and ends."""
        with self._exchange.step("download", "", request_id):
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece

    async def save(self, link: Link, target: Path, *, ending: str = "", max_bytes: int | None = None) -> Path:
        """Save a file whole or not at all; a directory as target takes the id and the type's ending."""
        transfer = Transfer(link, link.url, most=max_bytes)
        name = safe_name(link.request_id)
        content = self._pieces(transfer)
        with self._exchange.step("download", "", link.request_id):
            path = await _settle(self._save(link.request_id, content, target, lambda: name + (ending_for(transfer.content_type) or ending)))
        if not fits_name(path.name, transfer.content_type):
            # It is paid for, so it is kept; who opens it by its name should know.
            logger.warning("%s holds %s, which its name doesn't say", path, transfer.content_type)
        return path

    async def write(self, request_id: str, text: str, target: Path, *, ending: str, max_bytes: int | None = None) -> Path:
        """Save a text whole or not at all."""
        content = text.encode(errors="replace")  # JSON can hold half of a surrogate pair
        if max_bytes is not None and len(content) > max_bytes:
            raise _too_long(request_id, len(content), max_bytes)
        return await _settle(self._save(request_id, _one(content), target, lambda: safe_name(request_id) + ending))

    async def _save(self, request_id: str, pieces: AsyncGenerator[bytes, None], target: Path, name: Callable[[], str]) -> Path:
        """Write pieces to a temporary file and give it its name; it is gone again if that ends in any other way than whole."""
        async with aclosing(pieces):
            writer = await open_writer(self._threads, target)
            try:
                async for piece in pieces:
                    await writer.write(piece)
                return await see_through(self._finish(request_id, writer, name))
            except BaseException:
                await see_through(writer.discard())
                raise

    async def _finish(self, request_id: str, writer: Writer, name: Callable[[], str]) -> Path:
        path = await writer.finish(name)
        self._fetched(request_id)
        return path

    async def _pieces(self, transfer: Transfer, ended: Callable[[str], None] = lambda _: None) -> AsyncGenerator[bytes, None]:
        """Fetch a file: retried where it breaks, from where it broke; a link that expired is renewed once."""
        if transfer.url is None:
            await self._renew(transfer)
        while True:
            transfer.attempt += 1
            response: aiohttp.ClientResponse | None = None
            failure: Exception | None = None
            try:
                # The slot is held while bytes move: a download that waits for its next attempt blocks no submit.
                async with self._exchange.slots, self._http.gate:
                    self._http.check_open()
                    response = await self._request(transfer)
                    with self._http.reading(response):
                        if response.status in _FILE:
                            self._begin(transfer, response)
                            expect(response, transfer.total)
                            async for piece in self._read(transfer, response):
                                if rest := self._take(transfer, response, piece):
                                    yield rest
                                    self._tell_received(transfer)
                                if transfer.position == transfer.total:
                                    # All that was announced is here; to ask for the end costs as much as another piece.
                                    break
                            self._check_whole(transfer)
                            self._exchange.quota.put()
                            self._note_attempt(transfer, response, None, whole=True)
                            ended(transfer.link.request_id)
                            return
            except (aiohttp.ClientError, OSError, ValueError, DryAPIError) as error:
                failure = error
                if isinstance(error, DryAPIError):
                    raise
            finally:
                self._note_attempt(transfer, response, failure)
            await self._recover(transfer, response, failure)

    def _note_attempt(
        self, transfer: Transfer, response: aiohttp.ClientResponse | None, failure: Exception | None, *, whole: bool = False
    ) -> None:
        """Count one request for a file, and tell it: once, and only if it began."""
        received, began = transfer.received, transfer.began_at
        if began is None:
            return
        transfer.received, transfer.began_at = 0, None
        self._exchange.counts.add_download(None if response is None else response.status, received)
        if (teller := self._exchange.teller) is not None:
            answered = failure is None and response is not None and (whole or response.status not in _FILE)
            teller.attempt(
                "GET result",
                transfer.attempt,
                self._exchange.wall() - began,
                status=response.status if response is not None and answered else None,
                error=None if answered else "CancelledError" if failure is None else mask(f"{type(failure).__name__}: {failure}"),
                host=(urlsplit(transfer.url or "").netloc if response is None else response.url.authority).rpartition("@")[2],
                bytes_received=received,
                request_id=transfer.link.request_id,
            )

    async def _request(self, transfer: Transfer) -> aiohttp.ClientResponse:
        """Ask for the file, or for the rest of it, and follow redirects with the rules checked at each."""
        part: Mapping[str, str] | None = None
        if transfer.position and transfer.validator and transfer.coding is None:
            part = {"Range": f"bytes={transfer.position}-", "If-Range": transfer.validator}
        url = transfer.url or ""
        for _ in range(MOST_REDIRECTS + 1):
            url = check_link(url, self._http.rules)
            transfer.began_at = transfer.began_at or self._exchange.wall()
            try:
                response = await self._http.fetch(URL(url, encoded=True), part)
            except PrivateAddressError as error:
                raise private_address(error.host, error.address) from error
            location = response.headers.get("Location")
            if response.status not in {301, 302, 303, 307, 308} or not location:
                return response
            response.release()
            url = follow(url, location)
        raise DownloadError(f"The result link of job {transfer.link.request_id} redirects without end. Save it again later.")

    def _read(self, transfer: Transfer, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Read one answer's body as it comes, unpacked."""
        plain = response.content.iter_chunked(PIECE_BYTES)
        return plain if transfer.coding is None else self._unpack(plain, Unpacker(transfer.coding))

    @staticmethod
    def _take(transfer: Transfer, response: aiohttp.ClientResponse, piece: bytes) -> bytes:
        """Count what of a piece isn't here already, and give it."""
        transfer.received += len(piece)
        if transfer.skip:
            skipped = min(transfer.skip, len(piece))
            transfer.skip -= skipped
            piece = piece[skipped:]
        if piece:
            if not transfer.position:
                _refuse_page(transfer.link, response, piece)
            transfer.position += len(piece)
            if transfer.most is not None and transfer.position > transfer.most:
                raise _too_long(transfer.link.request_id, transfer.position, transfer.most)
        return piece

    def _tell_received(self, transfer: Transfer) -> None:
        if (teller := self._exchange.teller) is not None:
            teller.bytes_received(transfer.link.request_id, transfer.position, transfer.total)

    @staticmethod
    def _check_whole(transfer: Transfer) -> None:
        """Refuse a body that ended before its time, or that was none."""
        if transfer.total is not None and transfer.position != transfer.total:
            raise aiohttp.ClientPayloadError(f"{transfer.position} of {transfer.total} bytes came")
        if not transfer.position and not transfer.link.is_text:
            raise DownloadError(
                f"The file of job {transfer.link.request_id} is empty (0 bytes): nothing is left on disk. Save it again later."
            )

    async def _unpack(self, packed: AsyncIterator[bytes], unpacker: Unpacker) -> AsyncIterator[bytes]:
        """Turn a packed body back in a thread, a bounded piece at a time."""
        async for piece in packed:
            unpacked = await self._threads.start(unpacker.feed, piece)
            while unpacked:
                yield unpacked
                unpacked = await self._threads.start(unpacker.feed, b"")
        if not unpacker.whole:
            raise aiohttp.ClientPayloadError("the packed body ended early")

    @staticmethod
    def _begin(transfer: Transfer, response: aiohttp.ClientResponse) -> None:
        """Note what an answer's headers say, and how many of its bytes are here already; two versions are never mixed."""
        job, position, validator = transfer.link.request_id, transfer.position, _validator(response)
        coding = _coding(job, response)
        resumed = response.status == 206  # noqa: PLR2004  Partial Content
        whole = response.content_length if coding is None else None
        start, total = _read_range(response.headers.get("Content-Range", "")) if resumed else (0, whole)
        if resumed and (coding or start != position or not position):
            raise DownloadError(f"The storage host gave another part of job {job}'s file than asked for. Save it again.")
        if position:
            same = transfer.validator is not None and validator in ({None, transfer.validator} if resumed else {transfer.validator})
            other_length = None not in {total, transfer.total} and total != transfer.total
            if not same or other_length:
                raise DownloadError(f"The result of job {job} changed while it was fetched. Save it again.")
        if transfer.most is not None and total is not None and total > transfer.most:
            raise _too_long(job, total, transfer.most)
        transfer.validator, transfer.content_type, transfer.coding = validator or transfer.validator, response.content_type, coding
        transfer.total = transfer.total if total is None else total
        transfer.skip = 0 if resumed else position

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
        happened = Broke(sent=True) if failure is not None or response is None else self._read_refusal(response)
        chance = random.random()  # noqa: S311  jitter, no secret
        verdict = decide(happened, billed=False, attempt=transfer.attempt, retry=self._http.retry, chance=chance)
        can_go_on = transfer.position == 0 or transfer.validator is not None
        if isinstance(verdict, Again) and can_go_on and self._exchange.quota.take():
            await asyncio.sleep(verdict.seconds)
            return
        told = f"{type(failure).__name__}: {failure}" if failure is not None else f"status {response.status if response else 0}"
        cause = mask(told)
        raise DownloadError(
            f"The file of job {job} couldn't be fetched ({cause}) after {transfer.attempt} attempts; nothing is left on disk. "
            "Save it again later."
        ) from (failure if _is_clean(failure) else None)  # aiohttp's words may name the signed link: it stays out of tracebacks, too

    def _read_refusal(self, response: aiohttp.ClientResponse) -> Answered:
        """Say what a storage host answered in the table's words: a 429's time counts here as it does for the API."""
        headers, now = {name.lower(): value for name, value in response.headers.items()}, self._exchange.wall()
        retry_after, kind = read_retry_after(headers, None, now=now), read_limit_kind(headers, None, now=now)
        return Answered(status=response.status, retry_after=retry_after, daily=kind == "daily")

    async def _renew(self, transfer: Transfer) -> None:
        """Take a fresh link from one status read."""
        update = await self._read_status(transfer.link.request_id)
        url = update.link(transfer.link.format)
        if url is None:
            has = ", ".join(sorted(update.alternatives)) or "none"
            wanted = transfer.link.format or "file"
            raise DownloadError(f"Job {transfer.link.request_id} has no {wanted} link (other formats: {has}). Save it without that format.")
        transfer.url, transfer.renewed = url, True


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


def _read_range(given: str) -> tuple[int | None, int | None]:
    # 18 digits are more than any file has, and Python refuses to read more than 4,300.
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", given.strip())
    return (None, None) if found is None else (int(found[1]), None if found[2] == "*" else int(found[2]))


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """Find what says that two answers bring the same file. It is sent back, so it must be what can be sent."""
    etag = response.headers.get("ETag", "")
    found = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    return found if found and found.isascii() and found.isprintable() else None


def _coding(job: str, response: aiohttp.ClientResponse) -> str | None:
    if "Content-Encoding" not in response.headers:
        return None
    try:
        return read_coding(", ".join(response.headers.getall("Content-Encoding", [])))
    except ValueError as error:
        raise DownloadError(
            f"The storage host packed job {job}'s file ({mask(str(error))}) although it was asked not to. Save it again later."
        ) from None


def _refuse_page(link: Link, response: aiohttp.ClientResponse, head: bytes) -> None:
    """Refuse a page in place of a file, such as a proxy's or a login's: a success by its status alone."""
    if not link.is_text and response.content_type in _PAGES and sniff(head) is None:
        raise DownloadError(
            f"The storage host answered a page ({response.content_type}) for job {link.request_id}'s file. Save it again later."
        )


def _too_long(job: str, count: int, most: int) -> DownloadError:
    return DownloadError(f"The file of job {job} has {count} bytes or more, max_bytes is {most}: refused, and nothing is left on disk.")


def _is_clean(error: BaseException | None) -> bool:
    """Say whether nothing in an error, or in what it came from, names a signed link."""
    while error is not None:
        shown = f"{error} {error!r}"
        if mask(shown) != shown:
            return False
        error = error.__cause__ or error.__context__
    return True
