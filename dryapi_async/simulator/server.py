"""The simulator: two ports, one account, a script of faults, a record of everything."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections import deque
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dryapi_async.simulator.account import Account
from dryapi_async.simulator.faults import Scripted, check_name
from dryapi_async.simulator.hosting import Host
from dryapi_async.simulator.jobs import Board, SimJob
from dryapi_async.simulator.limits import Limiter
from dryapi_async.simulator.media import Press
from dryapi_async.simulator.models import SimModel, stock_models
from dryapi_async.simulator.news import News
from dryapi_async.simulator.options import JOBS, check_options
from dryapi_async.simulator.push import Push
from dryapi_async.simulator.receive import Receiver
from dryapi_async.simulator.storage import Storage, make_secret
from dryapi_async.simulator.variants import check_variants

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections import Counter
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from dryapi_async.simulator.faults import Fault
    from dryapi_async.simulator.limits import LimitLike, Tier, Window
    from dryapi_async.simulator.received import Received
    from dryapi_async.simulator.webhooks import Webhooks
    from dryapi_async.simulator.wire import Connections

DEFAULT_KEY = "1|simulator-key"
DEFAULT_CLIENT_ID = "1001"
DEFAULT_WEBHOOK_SECRET = "whsec_simulator"  # noqa: S105 - a stand-in's, for everybody to know
MAX_UPLOAD = 10_485_760
FRONT_END_CAP = 78_643_200
_UNSTARTED = "the simulator isn't started: use `async with Simulator() as sim`"


class Simulator:
    """Serve the simulated API on one port and its result files on another, inside the running event loop.

    Use it as an async context manager, or ``await start()`` and ``await close()``. All time is the loop's.

    Args:
        key, client_id: the API key that is taken; what names the push channel.
        host, port, storage_port: where to listen; 0 takes free ports.
        tier, limits, shared, window: rate limits (see :class:`dryapi_async.simulator.limits.Limiter`); none by default.
        limit_headers: whether limited answers carry the X-RateLimit headers.
        speed, duration: divides every job's duration (infinite: done at the first read); fixed seconds in place of the drawn ones.
        durations: ``{slug: (median seconds, sigma)}`` of the lognormal distribution.
        fail, seed: the part of jobs that end in error, 0 to 1; makes ids, durations and chances repeatable.
        balance: dollars on the account.
        max_upload, max_body: bytes a file may have (sound for aud2video: at least 20 MiB), and a body before the front end answers 413.
        link_seconds: how long a result link is good.
        pictures, result_size: whether results are drawn with Pillow, else small valid files; pads these to so many bytes.
        keep_files: whether uploads are kept on disk while it runs; else they are only hashed.
        keepalive, drop_reused: idle seconds until a connection is closed; closes each on its second request, without an answer.
        models: in place of the stock list.
        record, most_records, most_jobs: what is remembered, and how much of it.
        epoch: the wall-clock time at the start, seconds since 1970; the real one by default.
        ssl: a server context for both ports.
        webhook_url, webhook_secret, webhook_ssl: of the account's webhooks, if the request names no address; loopback only is dialled.
    """

    def __init__(  # noqa: PLR0913 - every option stands alone
        self,
        *,
        key: str = DEFAULT_KEY,
        client_id: str = DEFAULT_CLIENT_ID,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        tier: Tier = "none",
        limits: Mapping[str, LimitLike] | None = None,
        shared: LimitLike | None = None,
        window: Window = "fixed",
        limit_headers: bool = True,
        speed: float = 1.0,
        duration: float | None = None,
        durations: Mapping[str, tuple[float, float]] | None = None,
        fail: float = 0.0,
        seed: int | None = None,
        balance: Decimal | int | str = Decimal(100_000),
        max_upload: int = MAX_UPLOAD,
        max_body: int | None = None,
        link_seconds: float = 86_400,
        pictures: bool = True,
        result_size: int | None = None,
        keep_files: bool = True,
        keepalive: float = 75.0,
        drop_reused: bool = False,
        models: Iterable[SimModel] | None = None,
        record: bool = True,
        most_records: int = 100_000,
        most_jobs: int = 1_000_000,
        epoch: float | None = None,
        ssl: ssl_module.SSLContext | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = DEFAULT_WEBHOOK_SECRET,
        webhook_ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        check_options(tier=tier, window=window, limits=limits, shared=shared, durations=durations, pictures=pictures)
        self.host = host
        self.requests: deque[Received] = deque(maxlen=most_records)
        self.storage_requests: deque[Received] = deque(maxlen=most_records)
        self._ports = {"api": port, "storage": storage_port}
        self._ssl = ssl
        self._keepalive = keepalive
        self._drop_reused = drop_reused
        self._record = record
        self._epoch = time.time() if epoch is None else epoch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = 0.0
        self._random = random.Random(seed)
        self._scripts: list[Scripted] = []
        self._listening: list[asyncio.Server] = []
        self._folder: Path | None = None
        self._files = (max_upload, max_body or max(FRONT_END_CAP, 4 * max_upload), pictures, result_size, keep_files, link_seconds)
        self._limiter = Limiter(tier, limits, shared=shared, window=window)
        self._limit_headers = limit_headers
        self._board = Board(
            self._random, speed=speed, duration=duration, durations=durations or {}, fail=fail, most=most_jobs, now=self._clock
        )
        self._identity = (key, client_id, Decimal(balance), list(models) if models is not None else stock_models())
        self._account: Account | None = None
        self._host: Host | None = None
        self._hooks = (webhook_url, webhook_secret, webhook_ssl)
        self._news: News | None = None

    async def start(self) -> Self:
        """Listen on both ports."""
        loop = asyncio.get_running_loop()
        self._loop, self._started = loop, loop.time()
        self._folder = Path(tempfile.mkdtemp(prefix="dryapi-simulator-"))
        self._account = self._open_account(self._folder)
        self._news = News(self._account, self._random, loop, url=self._hooks[0], secret=self._hooks[1], ssl=self._hooks[2])
        try:
            await self.come_up()
        except BaseException:
            await self.close()
            raise
        return self

    def _open_account(self, folder: Path) -> Account:
        key, client_id, balance, models = self._identity
        max_upload, max_body, pictures, result_size, keep_files, link_seconds = self._files
        for name in ("uploads", "results"):
            (folder / name).mkdir()
        press = Press(folder / "results", pictures=pictures, result_size=result_size)
        return Account(
            key=key,
            client_id=client_id,
            balance=balance,
            models=models,
            max_upload=max_upload,
            limiter=self._limiter,
            limit_headers=self._limit_headers,
            board=self._board,
            press=press,
            receiver=Receiver(folder / "uploads", keep_files=keep_files, most=max_body),
            storage=Storage(make_secret(key), link_seconds=link_seconds, now=self.now, render=press.render),
            push=Push(client_id, self._random, self._clock),
            digests=self._record,
            clock=self._clock,
            now=self.now,
        )

    async def come_up(self) -> None:
        """Listen, on the same ports as before if it had been up."""
        account = self._opened
        loop = asyncio.get_running_loop()
        host = Host(account, self._scripts, self._random, keepalive=self._keepalive, drop_reused=self._drop_reused)
        host.api_requests, host.storage_requests = self.requests, self.storage_requests
        self._host = host
        for name, connections in (("api", host.connections), ("storage", host.storage_connections)):
            listening = await loop.create_server(connections, self.host, self._ports[name], ssl=self._ssl, backlog=1024)
            self._listening.append(listening)
            self._ports[name] = listening.sockets[0].getsockname()[1]
        account.url, account.storage.url = self.url, self.storage_url

    async def go_down(self) -> None:
        """Stop listening and cut every connection; jobs go on. ``come_up()`` listens again."""
        listening, self._listening = self._listening, []
        for server in listening:
            server.close()
        if self._host is not None:
            self._opened.push.thaw()
            self._host.interrupt()
            await self._host.shut_down()
        for server in listening:
            await server.wait_closed()

    async def close(self) -> None:
        """End everything and remove its files; a second call does nothing."""
        await self.go_down()
        if self._news is not None:
            await self._news.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _clock(self) -> float:
        if self._loop is None:
            raise RuntimeError(_UNSTARTED)
        return self._loop.time()

    def now(self) -> float:
        """Give the wall-clock time it shows: its epoch plus the loop's time since the start."""
        return self._epoch + self._clock() - self._started

    @property
    def _opened(self) -> Account:
        if self._account is None:
            raise RuntimeError(_UNSTARTED)
        return self._account

    def _url_of(self, name: str) -> str:
        scheme = "https" if self._ssl is not None else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self._ports[name]}"

    @property
    def url(self) -> str:
        """The API host, without a path."""
        return self._url_of("api")

    @property
    def storage_url(self) -> str:
        """The storage host, without a path."""
        return self._url_of("storage")

    @property
    def key(self) -> str:
        """The API key it takes; may be changed."""
        return self._identity[0] if self._account is None else self._account.key

    @key.setter
    def key(self, key: str) -> None:
        self._opened.key = key

    def accept_key(self, key: str) -> None:
        """Take another key, too, with limits of its own; jobs and balance are the same account's."""
        self._opened.others[key] = self._limiter.fresh()

    @property
    def client_id(self) -> str:
        """The account's number on the push channel."""
        return self._identity[1]

    @property
    def balance(self) -> Decimal:
        """Dollars left; may be changed."""
        return self._opened.balance

    @balance.setter
    def balance(self, amount: Decimal) -> None:
        self._opened.balance = Decimal(amount)

    @property
    def suspended(self) -> bool:
        """Whether the account is suspended (403); may be changed."""
        return self._opened.suspended

    @suspended.setter
    def suspended(self, value: bool) -> None:
        self._opened.suspended = value

    @property
    def models(self) -> list[SimModel]:
        """The models on offer; the list may be changed."""
        return self._opened.models

    @property
    def jobs(self) -> dict[str, SimJob]:
        """All jobs by request_id, oldest first."""
        return self._board.jobs

    @property
    def billed(self) -> Counter[str]:
        """How often each request (by digest) was charged; empty where recording is off."""
        return self._board.billed

    @property
    def jobs_billed(self) -> int:
        """Charges in all: jobs and prompt tools."""
        return self._board.jobs_billed

    @property
    def board(self) -> Board:
        """The jobs' board: ``speed``, ``duration``, ``durations``, ``fail`` may be changed while it runs."""
        return self._board

    @property
    def push(self) -> Push:
        """The push channel, to steer it."""
        return self._opened.push

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks, to steer them; ``webhooks.deliveries`` lists what was sent."""
        if self._news is None:
            raise RuntimeError(_UNSTARTED)
        return self._news.webhooks

    @property
    def _serving(self) -> Host:
        if self._host is None:
            raise RuntimeError(_UNSTARTED)
        return self._host

    @property
    def connections(self) -> Connections:
        """The API port's connections: ``open``, ``total``, ``peak``, counted since it came up."""
        return self._serving.connections

    @property
    def storage_connections(self) -> Connections:
        """The storage port's connections."""
        return self._serving.storage_connections

    @property
    def drop_reused(self) -> bool:
        """Whether every connection is closed on its second request, unanswered; may be changed."""
        return self._drop_reused

    @drop_reused.setter
    def drop_reused(self, value: bool) -> None:
        self._drop_reused = value
        if self._host is not None:
            self._host.drop_reused = value

    def script(
        self,
        match: str | Callable[[Received], bool],
        *faults: Fault,
        times: float = 1,
        probability: float | None = None,
    ) -> Scripted:
        """Let matching requests meet faults, one each, in order.

        Args:
            match: a slug (``"img2img"``, ``"request-status"``, ``"txt2img/price-calculation"``), ``"*"`` for the whole API
                port, ``"storage"`` for the storage port, or a callable that is given the request before its body is read.
            faults: what they meet.
            times: how many requests meet each (``math.inf``: all).
            probability: in place of the order, each matching request meets one of the faults by chance, for ever.
        """
        scripted = Scripted(match, list(faults), times, probability)
        self._scripts.append(scripted)
        return scripted

    @property
    def scripted(self) -> list[Scripted]:
        """What `script` gave and isn't used up."""
        return list(self._scripts)

    def clear_script(self) -> None:
        """Take back all faults."""
        self._scripts.clear()

    def variants(self, *names: str) -> None:
        """Answer in other documented shapes from now on (:data:`dryapi_async.simulator.variants.VARIANTS`); none: the document's own."""
        self._opened.variants = check_variants(names)

    def hold(self, operation: str = "*", *, times: float = float("inf")) -> None:
        """Keep the next jobs of an operation in processing until ``finish()`` or ``fail()``."""
        check_name("operation", operation, JOBS)
        self._board.hold(operation, times)

    def release(self, operation: str = "*") -> None:
        """Hold no more, and finish what is held."""
        self._board.release(operation)

    def finish(self, request_id: str) -> SimJob:
        """End a job well, now."""
        return self._board.move(request_id, failing=False)

    def fail(self, request_id: str, code: str = "PROCESSING_ERROR", message: str = "Processing failed.") -> SimJob:
        """End a job in error, now."""
        return self._board.move(request_id, failing=True, code=code, message=message)

    def set_progress(self, request_id: str, progress: float) -> SimJob:
        """Pin a job's progress, 0 to 100."""
        return self._board.pin(request_id, progress)
