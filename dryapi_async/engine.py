"""What a client owns while it is bound to one event loop: connections, threads, the watcher, the submits that are out."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine
from contextlib import suppress
from functools import partial
from hashlib import sha256
from math import inf
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from attrs import evolve

from dryapi_async.config import Settings, is_finite_number
from dryapi_async.errors import ConfigurationError, JournalError, NotFoundError, SourceError, show_value
from dryapi_async.io.downloads import Downloads
from dryapi_async.io.exchange import Exchange
from dryapi_async.io.http import Http
from dryapi_async.io.pacing import Pacing
from dryapi_async.io.sources import Reader
from dryapi_async.io.threads import FileThreads
from dryapi_async.io.trail import Trail
from dryapi_async.io.uploads import call_reader
from dryapi_async.io.waits import Deadlines
from dryapi_async.operations.account import ListModels, Model, ReadStatus, read_models
from dryapi_async.operations.base import JobOperation
from dryapi_async.protocol.endpoint import STATUS_LANE
from dryapi_async.protocol.status import Update, read_update
from dryapi_async.protocol.wire import WireCall, encode, encode_reading
from dryapi_async.tracking.deliveries import Deliveries, EarlyNews
from dryapi_async.tracking.just_made import NOT_FOUND_GRACE, JustMade
from dryapi_async.tracking.watcher import Watcher

if TYPE_CHECKING:
    # Imported only where they are used; `options` does that when a client is made, so that its first call imports nothing.
    from dryapi_async.io.journal import Journal
    from dryapi_async.io.push import Push
    from dryapi_async.io.shared_news import SharedNews
    from dryapi_async.protocol.signature import WebhookEvent
    from dryapi_async.shared import Store
    from dryapi_async.teller import Teller

logger: logging.Logger = logging.getLogger("dryapi_async")
T = TypeVar("T")

_open: Final[set[Http]] = set()
"""Connections that are open. A client that is dropped unclosed is closed by its loop a moment later, and they must live until then."""
PAGE_SIZE: Final = 50
"""The most models that the live service gives at once."""
MOST_PAGES: Final = 1000
MOST_ORPHANS: Final = 1000
"""Jobs whose submitter went away that are kept for who asks."""


class Engine:
    """One life of a client: from its first use on a loop to ``close()``, or to that loop's end."""

    def __init__(  # noqa: PLR0913  all that a client was given
        self,
        settings: Settings,
        *,
        session: aiohttp.ClientSession | None,
        connector: aiohttp.BaseConnector | None,
        ssl: SSLContext | None,
        teller: "Teller | None",
        journal: "Journal | None" = None,
        before: "Engine | None" = None,
        home: "Engine | None" = None,
        pacing: Pacing | None = None,
    ) -> None:
        """Open it; ``before`` is the client's life on a loop that has ended: its limits and what it found go on.

        With ``home`` it serves another account, or the same with other options, on that engine's connections and threads; ``pacing`` are
        the limits of its account, where these are kept already.
        """
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.settings: Settings = settings
        self.ssl: SSLContext | None = ssl
        self.teller: Teller | None = teller
        self.threads: FileThreads = FileThreads() if home is None else home.threads
        self.http: Http = Http(settings, session=session, connector=connector, ssl=ssl) if home is None else home.http.for_account(settings)
        self.journal: Journal | None = journal
        self.exchange: Exchange = Exchange(
            self.http, self.threads, settings, teller, before=None if before is None else before.exchange, pacing=pacing
        )
        self.deadlines: Deadlines = Deadlines()
        self.watcher: Watcher = self._make_watcher()
        saved = partial(self.note, state="saved")
        self.downloads: Downloads = Downloads(self.http, self.threads, self.exchange, self.read_status, fetched=saved)
        self._work: dict[asyncio.Task[Any], Trail] = {}
        self._adopted: dict[asyncio.Task[Any], bool] = {}
        self._models: tuple[Model, ...] | None = None
        self._one_attempt = evolve(settings.retry, attempts=1)
        self._made = JustMade()
        self.orphans: deque[Any] = deque(maxlen=MOST_ORPHANS) if before is None else before.orphans
        self.answers: dict[str, Any] = {} if before is None else before.answers
        self.lost: dict[str, str] = {} if before is None else before.lost
        self.deliveries: Deliveries = Deliveries() if before is None else before.deliveries
        self.early: EarlyNews = EarlyNews() if before is None else before.early
        self.store: Store | None = self._open_store() if home is None else home.store
        self.news: SharedNews | None = self._share(new_lanes=pacing is None)
        self._keepers: list[AsyncGenerator[None, None]] = []
        if home is None:
            self._keepers.append(_keep(self.http, self.threads, journal, self.store))
        self.push: Push | None = None if settings.client_id is None else self._make_push(settings.client_id, shared=home is not None)
        for keeper in self._keepers:
            # Its first step doesn't wait, so it can be taken here: it registers the generator with the loop, which closes it at its end.
            with suppress(StopIteration):
                keeper.__anext__().send(None)

    def _make_watcher(self) -> Watcher:
        budget = partial(self.exchange.pacing.budget, STATUS_LANE)
        return Watcher(self.settings, self.read_status_once, self.teller, budget=budget)

    def _open_store(self) -> "Store | None":
        return None if self.settings.shared is None else self.settings.shared.open()

    def _share(self, *, new_lanes: bool) -> "SharedNews | None":
        """Share the account's limits and its jobs' news with other processes, where a store for them was given."""
        state = self.settings.shared
        if self.store is None or state is None:
            return None
        from dryapi_async.io.shared_lanes import SharedLanes  # noqa: PLC0415
        from dryapi_async.io.shared_news import SharedNews  # noqa: PLC0415

        account = sha256(f"{self.settings.base_url}\n{self.settings.api_key}".encode()).hexdigest()[:32]
        if new_lanes:
            self.exchange.pacing.shared = SharedLanes(
                self.store.limiter(account),
                processes=state.processes,
                when_away=state.when_away,
                tell=self.exchange.tell_wait,
                wall=self.exchange.wall,
            )
        return SharedNews(self.store.bus(account), when_away=state.when_away, hear=self.hear)

    def _make_push(self, client_id: str, *, shared: bool) -> "Push":
        from dryapi_async.io.push import Push  # noqa: PLC0415
        from dryapi_async.protocol.pusher import push_url  # noqa: PLC0415

        settings, watcher, http = self.settings, self.watcher, self.http
        if shared:
            # A session of its own: a socket is held for good, and must take none of the connections that accounts share.
            http = Http(settings, ssl=self.ssl)
            self._keepers.append(_keep(http, FileThreads(), None, None))
        return Push(
            settings,
            http,
            client_id=client_id,
            url=push_url(settings.base_url, settings.push_url, allow_http=settings.allow_http),
            hear=self.hear,
            up=watcher.push_is_up,
            down=watcher.push_is_down,
            stopped=lambda _: watcher.push_is_down(),
        )

    def listen(self) -> None:
        """Listen to the account's channel, and to other processes, from the first wait on, where there are any."""
        if self.news is not None:
            self.news.start()
        if self.push is not None:
            self.push.start()

    def start(self, work: Coroutine[Any, Any, T], trail: Trail) -> asyncio.Task[T]:
        """Run a call in a task of the engine's own: who waits for it may be cancelled, the payment isn't."""
        task = self.loop.create_task(work)
        self._work[task] = trail
        task.add_done_callback(self._forget)
        return task

    def adopt(self, task: asyncio.Task[Any], *, job: bool) -> None:
        """Tell what becomes of a billed call that nobody waits for any more, and keep its job if it makes one."""
        self._adopted[task] = job
        if task not in self._work:
            self._settle(task, None if task.cancelled() else task.exception())

    def give_back(self, task: asyncio.Task[Any]) -> None:
        """Let go of a call that somebody waits for again."""
        self._adopted.pop(task, None)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        trail = self._work.pop(task)
        trail.wake()
        error = trail.lost if task.cancelled() else task.exception()
        if trail.told_unknown:
            self.exchange.note_unknown(trail)
        answered = error is None and not task.cancelled()
        if answered and trail.told_unknown:
            _keep_newest(self.answers, trail.key, task.result())
        elif answered:
            # A webhook may have told it first.
            self.answers.pop(trail.key, None)
        if trail.call is not None:
            # The webhooks of what is lost may still come.
            for key in (*trail.earlier, trail.key) if trail.told_unknown and not answered else trail.earlier:
                _keep_newest(self.lost, key, trail.call.slug)
        if task in self._adopted:
            self._settle(task, error)

    async def find_answer(self, key: str | None) -> Any:
        """Find the late answer of a call whose fate was told as unknown: one that is still on its way is waited for. None is no news."""
        for task, trail in self._work.items():
            if trail.key == key:
                await asyncio.wait([task])
                break
        return self.answers.get(key or "")

    def find_slug(self, key: str) -> str | None:
        """Find the operation of a call that was lost, or is on its way."""
        under_way = next((trail.call for trail in self._work.values() if key in {trail.key, *trail.earlier}), None)
        return self.lost.get(key) if under_way is None else under_way.slug

    def hear(self, request_id: str, update: Update) -> None:
        """Take news that came by itself; what nobody waits for is kept a while."""
        if not self.watcher.hear(request_id, update):
            self.early.keep(request_id, update, self.loop.time())

    def take_early(self, request_id: str) -> Update | None:
        """Give the news that came before anybody waited for a job."""
        return self.early.take(request_id, self.loop.time())

    async def deliver(self, event: "WebhookEvent") -> "WebhookEvent":
        """Hand a verified webhook over, and then remember it; a repeat is marked and not handed over again."""
        now = self.exchange.wall()
        if self.deliveries.seen(event, now):
            return evolve(event, duplicate=True)
        if event.request_id is not None and event.update is not None:
            self.hear(event.request_id, event.update)
        if self.news is not None and not await self.news.publish(event):
            event = evolve(event, duplicate=True)
        self.deliveries.remember(event, now)
        return event

    def find(self, key: str, job: Any) -> None:
        """Keep the job of a submit whose answer was lost, for ``client.settle``."""
        _keep_newest(self.answers, key, job)

    async def keep(self, request_id: str, slug: str, trail: Trail) -> None:
        """Keep the id of a job that was just made: in the journal, before anybody else has it, and for the grace of a 404."""
        self._made.add(request_id, self.loop.time())
        try:
            await trail.record("submitted", request_id=request_id)
        except asyncio.CancelledError:
            # A closing client cuts its own task here: the id is in hand and its row is being written, so the job goes to who waits.
            logger.debug("the client was closed while %s:%s was written to the journal", slug, request_id)
        except JournalError as error:
            # The job is made and paid for: its id must not get lost over a full disk.
            logger.error("%s; the job goes on, its ticket is %s:%s", error, slug, request_id)  # noqa: TRY400  the words are enough

    def made_at(self, request_id: str) -> float | None:
        """Say when this client made a job, in loop time, where that is a few seconds ago; else None."""
        return self._made.when(request_id)

    def note(self, request_id: str, state: str) -> None:
        """Tell the journal what became of a job."""
        if self.journal is not None:
            self.journal.note(request_id, state)

    def _settle(self, task: asyncio.Task[Any], error: BaseException | None) -> None:
        job = self._adopted.pop(task)
        if error is not None:
            logger.warning("a cancelled submit ended with %s: %s", type(error).__name__, error)
        elif job and not task.cancelled():
            self.orphans.append(task.result())
            logger.warning("a cancelled submit was accepted: %r is kept in client.orphans", task.result())

    def keep_orphan(self, job: Any) -> None:
        """Keep a job whose waiting was cancelled in the same sentence that submitted it."""
        if job not in self.orphans:
            self.orphans.append(job)
            logger.warning("a call was cancelled after its submit: %r goes on and is kept in client.orphans", job)

    async def read_status(self, request_id: str) -> Update:
        """Read a job's status, repeated as any reading is; a 404 of a job that was just made here isn't believed yet."""
        while True:
            try:
                return await self.exchange.call(_status_call(request_id), read_update)
            except NotFoundError:
                made_at = self.made_at(request_id)
                if made_at is None or self.loop.time() - made_at >= NOT_FOUND_GRACE:
                    raise
                await asyncio.sleep(1)

    def read_status_once(self, request_id: str) -> Awaitable[Update]:
        """Read a job's status with one request: the watcher repeats by its own rule."""
        return self.exchange.call(_status_call(request_id), read_update, retry=self._one_attempt)

    async def list_models(self) -> AsyncIterator[Model]:
        """Read the models page by page; a page without paging, or one that comes back unchanged, is the last."""
        for number in range(1, MOST_PAGES + 1):
            # The document's word for the page size and the live service's: each ignores the other.
            request = ListModels(page=number, per_page=PAGE_SIZE, limit=PAGE_SIZE)
            page = await self.exchange.call(encode(request), read_models)
            for model in page.models:
                yield model
            if page.page is None or page.page != number or page.last_page is None or number >= page.last_page:
                return

    async def find_problems(self, request: JobOperation[Any]) -> tuple[str, ...]:
        """List what the service would refuse in a request: its model's limits, and the sizes of its files. The models are read once."""
        from dryapi_async.operations.limits import check_size, file_fields, find_problems  # noqa: PLC0415

        if self._models is None:
            self._models = tuple([model async for model in self.list_models()])
        problems = list(find_problems(request, request.endpoint.slug, self._models))
        for name, kind, source in file_fields(request):
            reader = Reader(source)
            try:
                looked = await call_reader(self.threads, reader, self.settings.timeouts.idle, reader.open)
                problems += check_size(name, kind, reader.label, looked.size)
            except SourceError as error:
                problems.append(f"{name}: {error}")
            finally:
                self.threads.begin_in(reader.thread, reader.close)
                if reader.thread is not None:
                    reader.thread.shutdown()
        return tuple(problems)

    async def end_work(self) -> None:
        """Send nothing more, end all waits, and let submits that are on the wire finish for ``Timeouts.orphan`` seconds; then cut them."""
        for task, trail in self._work.items():
            trail.abandoned = True
            if not trail.may_be_billed:
                if trail.body is not None:
                    # It may be written before the cancellation gets there.
                    trail.body.revoked = True
                task.cancel()
        await self.watcher.close()
        if self.push is not None:
            await self.push.close()
        work = list(self._work)
        if work:
            _, late = await asyncio.wait(work, timeout=self.settings.timeouts.orphan)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def close(self) -> None:
        """Let go of everything, after `end_work`."""
        # Not before its queues are empty: each call that leaves one sets the timer for the next.
        self.exchange.pacing.close()
        if self.news is not None:
            await self.news.close()
        if self.exchange.pacing.shared is not None:
            await self.exchange.pacing.shared.close()
        for keeper in self._keepers:
            await keeper.aclose()

    def is_idle(self, seconds: float) -> bool:
        """Say whether nothing is under way here, and nothing was for so many seconds: then it may be forgotten."""
        listens = self.news is not None and self.news.listens
        return (
            not (self._work or self.watcher.tickets or self._keepers or listens)
            and self.loop.time() - self.exchange.pacing.last_seen > seconds
        )


def _keep_newest(kept: dict[str, T], key: str, value: T) -> None:
    """Keep something under a key, and forget the oldest where that is too much."""
    kept[key] = value
    while len(kept) > MOST_ORPHANS:
        del kept[next(iter(kept))]


def _status_call(request_id: str) -> WireCall:
    return encode_reading(ReadStatus.endpoint, request_id)


async def _keep(http: Http, threads: FileThreads, journal: "Journal | None", store: "Store | None") -> AsyncGenerator[None, None]:
    """Hold connections, threads, the journal and the shared store; a loop that ends closes its generators, and so these."""
    _open.add(http)
    try:
        yield
    finally:
        threads.close()
        await http.close()
        _open.discard(http)
        if store is not None:
            await store.aclose()
        if journal is not None:
            await journal.close()


def deadline_after(seconds: float | None) -> float:
    """Turn a user's timeout into loop time; None, which must be written out, is no deadline.

    Raises:
        ConfigurationError: It is no number of seconds.
    """
    if seconds is None:
        return inf
    if not is_finite_number(seconds) or seconds < 0:
        raise ConfigurationError(f"timeout must be a number of seconds, or None for no deadline, not {show_value(seconds)}.")
    return asyncio.get_running_loop().time() + seconds
