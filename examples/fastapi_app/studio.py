"""What the application does, in no framework's words: take a photo in, have it redrawn, keep the picture, by whichever worker lives."""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final, Self

from dryapi_async import (
    AlreadySubmittedError,
    Client,
    DryAPIError,
    Image,
    Img2Img,
    InputError,
    Job,
    JobFailedError,
    RateLimitError,
    ServerError,
    StatusError,
    SubmissionUnknownError,
)
from examples.fastapi_app.table import ENDED, Photo, Table
from examples.fastapi_app.uploads import receive

BEAT_SECONDS: Final = 2.0
"""So often a worker says which photos it has in hand, and looks for those that nobody has."""
HELD_SECONDS: Final = 10.0
"""A worker that hasn't said so for this long is taken for dead, unless PHOTO_HELD_SECONDS says otherwise."""
LOOK_SECONDS: Final = 0.25
QUIET_SECONDS: Final = 15.0
UNKNOWN: Final = (
    "It was sent, and the answer was lost: it may have been paid for. It isn't sent again by itself; upload it again if you accept that."
)

_log = logging.getLogger(__name__)


class Studio:
    """Photos in the hands of one worker, in a folder and a table that all workers share."""

    def __init__(self, client: Client, folder: Path, *, model: str, most_bytes: int, held_seconds: float = HELD_SECONDS) -> None:
        self.client = client
        self.most_bytes = most_bytes
        self._held_seconds = held_seconds
        self._folder = folder
        self._model = model
        self._table = Table(folder / "photos.db")
        self._bringing: dict[str, asyncio.Task[None]] = {}
        self._beat = asyncio.Event()
        self._open = AsyncExitStack()

    @classmethod
    def from_environment(cls) -> Self:
        """Make it of DRYAPI_* and PHOTO_*; nothing is opened yet, so it may be made before a fork."""
        folder = Path(os.environ.get("PHOTO_FOLDER", "photo-data"))
        for part in ("photos", "pictures"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        public = os.environ.get("PHOTO_PUBLIC_URL")
        client = Client(
            journal=folder / "journal.db",  # one for all workers: a killed worker's job is never paid twice
            webhook_url=public and f"{public}/hook/{{key}}",
            shared=os.environ.get("REDIS_URL") or None,  # limits kept together, webhooks handed on; right without it, too
        )
        return cls(
            client,
            folder,
            model=os.environ.get("PHOTO_MODEL", "QwenImageEdit_Plus_NF4"),
            most_bytes=int(os.environ.get("PHOTO_MOST_BYTES", str(10 * 2**20))),
            held_seconds=float(os.environ.get("PHOTO_HELD_SECONDS", str(HELD_SECONDS))),
        )

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self.client)
        await self._table.open()
        self._open.push_async_callback(self._table.close)
        self._sweep_uploads()
        beating = asyncio.create_task(self._beat_on())
        self._open.push_async_callback(self._let_go, beating)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    def _sweep_uploads(self) -> None:
        """Remove what was half received when a worker died."""
        for part in self._folder.glob("photos/*.part"):
            with suppress(FileNotFoundError):  # another worker has just received it whole
                if time.time() - part.stat().st_mtime > 3600:  # noqa: PLR2004  an hour
                    part.unlink()

    async def receive(self, prompt: str, chunks: AsyncIterable[bytes]) -> Photo:
        """Take a photo in: from the socket to the disk, piece by piece.

        Raises:
            RefusedError: It is too large, or no picture.
        """
        photo_id = secrets.token_hex(12)
        kind = await receive(chunks, self.original(photo_id), most_bytes=self.most_bytes)
        photo = Photo(id=photo_id, prompt=prompt, kind=kind)
        await self._table.insert(photo)
        self._beat.set()
        return photo

    def original(self, photo_id: str) -> Path:
        """Say where an uploaded photo lies."""
        return self._folder / "photos" / photo_id

    async def find(self, photo_id: str) -> Photo | None:
        """Find a photo, whichever worker took it in."""
        return await self._table.find(photo_id)

    async def picture(self, photo: Photo) -> Path | None:
        """Find the finished picture; where the file is gone, it is fetched again by the ticket."""
        path = self._folder / "pictures" / f"{photo.id}.png"
        if photo.state == "done" and photo.ticket and not path.exists():
            await self.client.job(photo.ticket, Img2Img).save(path, timeout=60)
        return path if path.exists() else None

    async def watch(self, photo: Photo) -> AsyncGenerator[Photo]:
        """Give a photo's news until it has ended, and at least every 15 s; the table has them, whichever worker waits for the job."""
        if photo.state == "unknown":
            await self._table.reopen(photo.id)  # evidence may have come since: nothing is sent
        shown, shown_at = None, 0.0
        while (now := await self._table.find(photo.id)) is not None:
            if now != shown or time.monotonic() - shown_at >= QUIET_SECONDS:
                yield now
                shown, shown_at = now, time.monotonic()
            if now.state in ENDED:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _beat_on(self) -> None:
        """Keep what this worker has, and take up what nobody has: new photos, and those of workers that died."""
        while True:
            self._beat.clear()
            try:
                await self._table.hold(self._bringing, self._held_seconds)
                for photo in await self._table.take(self._held_seconds):
                    if photo.id not in self._bringing:
                        self._bringing[photo.id] = asyncio.create_task(self._bring(photo))
            except Exception:  # noqa: BLE001  whatever it is (a full disk), the next beat may do better
                _log.exception("no photo could be taken up")
            try:
                await asyncio.wait_for(self._beat.wait(), BEAT_SECONDS)
            except TimeoutError:
                continue

    async def _let_go(self, beating: "asyncio.Task[None]") -> None:
        """Stop, and leave what isn't finished to the other workers at once."""
        ours, tasks = list(self._bringing), [beating, *self._bringing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._table.hold(ours, 0)

    async def _bring(self, photo: Photo) -> None:
        """Bring one photo to its end. What this worker can't finish, some worker tries again when its time in hand is over."""
        try:
            if (job := await self._take_up(photo)) is not None:
                await self._redraw(photo, job)
        except (AlreadySubmittedError, SubmissionUnknownError):
            await self._table.write(photo.id, "unknown", error=UNKNOWN)
        except JobFailedError as error:
            await self._table.write(photo.id, "failed", error=error.reason or "The service gives no reason.")
        except DryAPIError as error:
            _log.warning("photo %s waits: %s", photo.id, error)
        except Exception:  # noqa: BLE001  a task that nobody awaits: say it
            _log.exception("photo %s", photo.id)
        finally:
            del self._bringing[photo.id]

    async def _take_up(self, photo: Photo) -> Job[Image] | None:
        """Go on with the job that is paid for, else submit it. Only a submit can be refused with nothing paid: that ends the photo."""
        if photo.ticket:
            return self.client.job(photo.ticket, Img2Img)
        try:
            return await self._submit(photo)
        except (AlreadySubmittedError, RateLimitError, ServerError):
            raise
        except (StatusError, InputError) as error:
            await self._table.write(photo.id, "failed", error=str(error))
            return None

    async def _redraw(self, photo: Photo, job: Job[Image]) -> None:
        await self._table.write(photo.id, "pending", ticket=job.ticket)
        async for update in job.updates(timeout=None):
            state = "saving" if update.finished else update.state.value
            await self._table.write(photo.id, state, progress=update.progress, preview=update.preview)
        await job.save(self._folder / "pictures" / f"{photo.id}.png")
        await self._table.write(photo.id, "done", progress=100)

    async def _submit(self, photo: Photo) -> Job[Image]:
        """Submit it once, by however many workers: the journal knows whether one of them has, may have, or is about to.

        Raises:
            AlreadySubmittedError: A worker died while it was on its way: it may be paid for.
            SubmissionUnknownError: The answer was lost.
        """
        request = Img2Img(prompt=photo.prompt, image=self.original(photo.id), model=self._model, steps=20, seed=-1)
        while True:
            try:
                return await self.client.call(request, label=photo.id, once=True)
            except AlreadySubmittedError as error:
                if error.ticket is not None:
                    return self.client.job(error.ticket, Img2Img)
                if error.state == "unknown":
                    raise
            await self.client.unfinished()  # what dead workers had on its way is unknown from now on
            await asyncio.sleep(1)
