"""The client: its life, and a line for each operation."""

from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from copy import copy
from os import PathLike
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, overload

import aiohttp

from dryapi_async import operations as ops
from dryapi_async.calls import InstantCall, JobCall, ModelList
from dryapi_async.config import DEFAULT_TIMEOUT, Limits, Retry, Settings, Timeouts
from dryapi_async.engine import Engine
from dryapi_async.errors import (
    ConfigurationError,
    InputError,
    SubmissionUnknownError,
    show_value,
)
from dryapi_async.job import Job, as_completed, take_up
from dryapi_async.life import OwnLife, TenantLife
from dryapi_async.methods import instant_method, job_method
from dryapi_async.operations.base import InstantOperation, JobOperation
from dryapi_async.options import (
    TenantOptions,
    account_of,
    check_lanes,
    check_parts,
    check_push,
    load_parts,
    make_journal,
    make_teller,
    tenant_settings,
)
from dryapi_async.tracking.board import Poll

if TYPE_CHECKING:
    # What not every program uses is imported where it is used: these modules make a seventh of the package's own import.
    from dryapi_async.batch import Album, Batch, Money, Operations, Save, StopOn
    from dryapi_async.events import OnEvent
    from dryapi_async.io.journal import Journal
    from dryapi_async.protocol.signature import Headers, WebhookEvent
    from dryapi_async.shared import SharedState
    from dryapi_async.stats import Stats

R = TypeVar("R")


class Client:
    """An async client of the dryAPI / deAPI inference service.

    It opens at its first use, in ``async with`` or without, and belongs to the event loop of that use: one client per thread. A client
    made at import time serves one ``asyncio.run`` after another.

    Args:
        api_key: The account's key; else DRYAPI_API_KEY.
        base_url: The service's host; else DRYAPI_BASE_URL, else `DRYAPI_URL`. Plain http is refused but for loopback or ``allow_http``.
        limits: The account's limits by lane; else DRYAPI_LIMITS, else ``Limits.auto()``: guesses, and what the service tells.
        max_in_flight: Transfers (submits, downloads) at once; status reads and waits take no slot.
        timeouts: Seconds for each part of a request.
        retry: What may be sent again, and how often.
        journal: A file (sqlite, on a local disk) that knows each paid call before it is sent and each job before you do, so that a killed
            process loses none: ``unfinished()`` gives them back.
        expect100: Ask before each upload whether the service takes it (``Expect: 100-continue``): a refusal comes before the body is sent.
        pool_size: Connections; raised to ``max_in_flight`` if smaller. Of a given connector its own limit counts.
        poll: Seconds between status reads of a job; None is the learned cadence.
        webhook_url: A default for all submits.
        webhook_secret: What webhooks are signed with (several while one is rotated out); else DRYAPI_WEBHOOK_SECRET.
        client_id: The account's id on the websocket, which turns push on; else DRYAPI_CLIENT_ID.
        push_url: The websocket's whole URL with its key, where it isn't the service's own; else DRYAPI_PUSH_URL.
        storage_hosts: Hosts whose results are taken over http or from private addresses.
        allow_http: Send the key over plain http to a host that isn't this machine.
        check: Compare each request with its model's limits before it is submitted (one read of the models), and refuse with InputError.
        proxy: A proxy's URL; else the environment's.
        ssl: A context of your own, for private CAs.
        session: Its connector and trace configs are used; it isn't closed.
        connector: Used, and not closed.
        on_event: Told typed events (``dryapi_async.events``); what it raises is logged and breaks nothing.
        shared: A Redis, by its URL or as ``dryapi_async.shared.RedisState``, in which the account's processes share limits and webhooks.

    Raises:
        ConfigurationError: No key, a bad URL, an option out of range.
    """

    def __init__(  # noqa: PLR0913  each is an option that a user may need
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        limits: Limits | None = None,
        max_in_flight: int = 16,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        pool_size: int = 100,
        poll: float | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | Sequence[str] | None = None,
        client_id: str | None = None,
        push_url: str | None = None,
        storage_hosts: Sequence[str] = (),
        allow_http: bool = False,
        check: bool = False,
        journal: str | PathLike[str] | None = None,
        expect100: bool = False,
        proxy: str | None = None,
        ssl: SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
        connector: aiohttp.BaseConnector | None = None,
        on_event: "OnEvent | None" = None,
        shared: "SharedState | str | None" = None,
    ) -> None:
        self.settings: Settings = Settings.load(
            api_key=api_key,
            base_url=base_url,
            limits=limits,
            max_in_flight=max_in_flight,
            timeouts=timeouts,
            retry=retry,
            pool_size=pool_size,
            poll=poll,
            webhook_url=webhook_url,
            webhook_secret=webhook_secret,
            client_id=client_id,
            push_url=push_url,
            storage_hosts=storage_hosts,
            allow_http=allow_http,
            check=check,
            expect100=expect100,
            proxy=proxy,
            shared=shared,
        )
        check_lanes(self.settings.limits)
        check_push(self.settings)
        load_parts(self.settings)
        check_parts(ssl=ssl, session=session, connector=connector, on_event=on_event)
        self._teller = make_teller(on_event)
        self._journal = None if journal is None else make_journal(journal, self.settings)
        self._life: OwnLife | TenantLife = OwnLife(
            self.settings, session=session, connector=connector, ssl=ssl, teller=self._teller, journal=self._journal
        )

    txt2img: Final = job_method(ops.Txt2Img)
    img2img: Final = job_method(ops.Img2Img)
    img_upscale: Final = job_method(ops.ImgUpscale)
    img_rmbg: Final = job_method(ops.ImgRmbg)
    img2txt: Final = job_method(ops.Img2Txt)
    txt2video: Final = job_method(ops.Txt2Video)
    img2video: Final = job_method(ops.Img2Video)
    aud2video: Final = job_method(ops.Aud2Video)
    vid_upscale: Final = job_method(ops.VidUpscale)
    vid_rmbg: Final = job_method(ops.VidRmbg)
    txt2audio: Final = job_method(ops.Txt2Audio)
    txt2music: Final = job_method(ops.Txt2Music)
    vid2txt: Final = job_method(ops.Vid2Txt)
    videofile2txt: Final = job_method(ops.VideoFile2Txt)
    aud2txt: Final = job_method(ops.Aud2Txt)
    audiofile2txt: Final = job_method(ops.AudioFile2Txt)
    txt2embedding: Final = job_method(ops.Txt2Embedding)

    prompt_image: Final = instant_method(ops.PromptImage)
    prompt_video: Final = instant_method(ops.PromptVideo)
    prompt_speech: Final = instant_method(ops.PromptSpeech)
    prompt_image2image: Final = instant_method(ops.PromptImage2Image)
    prompt_samples: Final = instant_method(ops.PromptSamples)

    balance: Final = instant_method(ops.ReadBalance)

    def models(self, type: str | None = None) -> ModelList:  # noqa: A002  the service's word
        """Read the models that the account may use: await it for a tuple of all, or iterate (``async for``) page by page. Free.

        ``type`` keeps those that serve one operation, in any of the words seen for it (``img2img``, ``img_upscale``, ``video2text``).
        """
        if not isinstance(type, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            raise InputError(f"models(type) takes a word such as 'img2img', not {show_value(type)}.")
        return ModelList(self._engine, type)

    @overload
    def call(
        self,
        operation: JobOperation[R],
        *,
        timeout: float | None = ...,
        resubmit: bool = ...,
        label: str = ...,
        once: bool = ...,
        again: Collection[str] = ...,
    ) -> JobCall[R]: ...
    @overload
    def call(
        self,
        operation: InstantOperation[R],
        *,
        timeout: float | None = ...,
        resubmit: bool = ...,
        label: str = ...,
        once: bool = ...,
        again: Collection[str] = ...,
    ) -> InstantCall[R]: ...
    def call(
        self,
        operation: JobOperation[R] | InstantOperation[R],
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        resubmit: bool = False,
        label: str = "",
        once: bool = False,
        again: Collection[str] = (),
    ) -> JobCall[R] | InstantCall[R]:
        """Make a call from a request: nothing is sent until it is finished (``await``, ``.result()``, ``.save()``).

        ``timeout`` is seconds over the submit with its retries and waits, for ``await``; None is no deadline. ``resubmit=True`` sends it
        again where its answer was lost, up to ``Retry.attempts`` times: each of these may have been accepted, so it may be paid for as
        often (at 15 % lost answers, about one job in ten). ``label`` is your own word for it, kept in the journal; with ``once=True`` it
        is sent only if no call of that label was made by whatever process on this journal, else AlreadySubmittedError. ``again`` names
        those of the states ``unknown`` and ``failed`` in which it may be: that pays once more, for what is so when the call is first
        finished. What another process loses while it waits isn't sent again.
        """
        if isinstance(operation, JobOperation):
            return JobCall(operation, self._life.engine, timeout=timeout, resubmit=resubmit, label=label, once=once, again=again)
        if isinstance(operation, InstantOperation):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            return InstantCall(operation, self._life.engine, timeout=timeout, resubmit=resubmit, label=label, once=once, again=again)
        raise InputError(f"call() takes a request such as Txt2Img(...), not {type(operation).__name__}.")

    def batch(  # noqa: PLR0913  each is an option that a user may need
        self,
        operations: "Operations[R]",
        *,
        at_once: int = 16,
        ordered: bool = False,
        save: "Save | None" = None,
        stop_on: "StopOn | None" = None,
        budget: "Money | None" = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        poll: Poll = None,
        once: bool = False,
        again: Collection[str] = (),
        sheet: "Album | None" = None,
    ) -> "Batch[R]":
        """Make many requests, ``at_once`` at a time, and iterate over their outcomes as they come; `Batch` says what each option is."""
        from dryapi_async.batch import Batch  # noqa: PLC0415

        return Batch(operations, self._engine, at_once, ordered, save, stop_on, budget, timeout, poll, once, again, sheet)

    async def check(self, operation: JobOperation[Any]) -> tuple[str, ...]:
        """List what the service would refuse in a request, by its model's limits and its files' sizes; nothing is uploaded.

        The models are read once and kept. Empty means that nothing is known against it: the service judges.
        """
        if not isinstance(operation, JobOperation):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            raise InputError(f"check() takes a request such as Txt2Img(...), not {show_value(operation)}.")
        return await self._engine().find_problems(operation)

    @overload
    def job(self, ticket: str, operation: type[JobOperation[R]]) -> Job[R]: ...
    @overload
    def job(self, ticket: str, operation: None = None) -> Job[Any]: ...
    def job(self, ticket: str, operation: type[JobOperation[R]] | None = None) -> Job[R] | Job[Any]:
        """Take a job up again by its ticket; nothing is sent. Without its class, the class is found by the ticket's slug.

        Raises:
            InputError: No ticket, one of another operation, or of none that is known.
        """
        return take_up(ticket, operation, self._engine)

    def as_completed(
        self, jobs: Iterable[Job[R]], *, timeout: float | None = DEFAULT_TIMEOUT, poll: Poll = None
    ) -> AsyncGenerator[Job[R], None]:
        """Iterate over jobs in the order in which they end, failed ones, too; leaving the loop cancels nothing but the waiting.

        ``await job.result()`` then gives the result, or raises JobFailedError, without waiting. Arguments as in ``Job.result``.

        Raises:
            JobTimeoutError: The time was over for one of them; all go on.
            PollingFailedError: Too many reads of one of them failed in a row.
        """
        return as_completed(jobs, timeout=timeout, poll=poll)

    def with_options(self, **options: Unpack[TenantOptions]) -> "Client":
        """Give a client of another account (``api_key=``), or of this one with other options, on this one's connections and threads.

        Each key has its own lanes, journal rows and push channel, however many clients are made of it. This client closes for all.
        Options: ``api_key limits timeouts retry poll webhook_url webhook_secret client_id check on_event``.

        Raises:
            ConfigurationError: An option that belongs to the connections, or is out of range.
        """
        home = self._life.home if isinstance(self._life, TenantLife) else self._life
        settings, teller = tenant_settings(self.settings, options), self._teller
        if "on_event" in options:
            check_parts(ssl=None, session=None, connector=None, on_event=options["on_event"])
            teller = make_teller(options["on_event"])
        journal = None if self._journal is None else self._journal.for_account(account_of(settings))
        life = TenantLife(home, settings, teller=teller, journal=journal)
        tenant = copy(self)
        vars(tenant).update(settings=settings, _teller=teller, _journal=journal, _life=life)
        return tenant

    def stats(self) -> "Stats":
        """Take a snapshot of what this client did so far and does now; it sends nothing and takes microseconds."""
        from dryapi_async.stats import read_stats  # noqa: PLC0415

        return read_stats(self._life.current)

    @property
    def orphans(self) -> tuple[Job[Any], ...]:
        """Jobs that are paid for and that nobody waits for any more. Bounded to the newest 1,000.

        Their submit was cancelled on its way and accepted all the same, or ``.result()`` or ``.save()`` of a call was cancelled behind it.
        """
        engine = self._life.current
        return () if engine is None else tuple(engine.orphans)

    @property
    def journal(self) -> "Journal":
        """The journal of this client's paid calls: list, find, prune.

        Raises:
            ConfigurationError: The client was made without one.
        """
        if self._journal is None:
            raise ConfigurationError("This client keeps no journal: give Client(journal='jobs.db').")
        return self._journal

    async def unfinished(self) -> tuple[Job[Any], ...]:
        """Take over the jobs that dead processes left in the journal, oldest first: paid for, and not saved yet. Nothing is sent.

        Each is given to one caller only. A call whose answer a dead process didn't live to see is no job: look at
        ``client.journal.list("unknown")``.

        Raises:
            ConfigurationError: The client was made without a journal.
            JournalError: It can't be read.
        """
        from dryapi_async.evidence import find_unfinished  # noqa: PLC0415

        return await find_unfinished(self.journal, self._engine)

    async def deliver(self, headers: "Headers", body: bytes, *, key: str | None = None) -> "WebhookEvent":
        """Take a webhook's delivery: verify it, and hand it to whoever waits for its job. Give the raw body as it came.

        ``key`` is what stood in the place of ``{key}`` in the address that was called, where the ``webhook_url`` has one: it tells the
        job of a submit whose answer was lost. A repeat comes back with ``duplicate=True`` and changes nothing.

        Raises:
            SignatureError: The service didn't sign it: answer 401.
            ConfigurationError: The client has no ``webhook_secret``.
            SharedStateError: The shared store is away, and it was said to raise then: answer 503.
        """
        from dryapi_async.protocol.signature import verify  # noqa: PLC0415

        engine = self._engine()
        event = await engine.deliver(verify(headers, body, self.settings.webhook_secrets, engine.exchange.wall()))
        if key and event.request_id is not None:
            from dryapi_async.evidence import settle_by_key  # noqa: PLC0415

            await settle_by_key(engine, self._engine, key, event.request_id)
        return event

    async def settle(self, error: SubmissionUnknownError) -> Job[Any] | None:
        """Look for evidence of what became of a submit whose answer was lost; None says that nothing is known.

        Looked at are a late answer (one that is still on its way is waited for, up to ``Timeouts.orphan``), the journal, and webhooks
        that came to an address with the call's ``{key}``. Nothing is sent. No evidence proves nothing: whether to pay again is a
        person's decision.
        """
        from dryapi_async.evidence import settle  # noqa: PLC0415

        return await settle(self._engine, error)

    def _engine(self) -> Engine:
        """Find what serves the running loop, or open it.

        Raises:
            ClientClosedError: The client was closed.
            ClientLoopError: It serves another loop that still runs.
        """
        return self._life.engine()

    async def __aenter__(self) -> Self:
        self._engine()
        if self._journal is not None:
            await self._journal.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client: waits end in ClientClosedError, submits on the wire are listened to for ``Timeouts.orphan`` seconds.

        It doesn't wait for jobs: they go on at the service. Closing again is harmless.
        """
        await self._life.close()

    def __repr__(self) -> str:
        return f"<Client {self.settings.base_url}{' closed' if self._life.closed else ''}>"
