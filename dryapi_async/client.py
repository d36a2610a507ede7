"""The client: its life, and a line for each operation."""

import asyncio
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from ssl import SSLContext
from types import MethodType, TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, cast, overload

import aiohttp

from dryapi_async import operations as ops
from dryapi_async.calls import InstantCall, JobCall, ModelList
from dryapi_async.config import DEFAULT_TIMEOUT, Retry, Settings, Timeouts
from dryapi_async.engine import Engine
from dryapi_async.errors import ClientClosedError, ClientLoopError, ConfigurationError, InputError
from dryapi_async.events import OnEvent
from dryapi_async.job import Job, read_ticket
from dryapi_async.operations import job_class
from dryapi_async.operations.base import InstantOperation, JobOperation

P = ParamSpec("P")
R = TypeVar("R")


class _Method(Generic[P, R]):
    """A client method made from a request class: its signature and its documentation are the class's."""

    def __init__(self, operation: Callable[P, Any]) -> None:
        self._operation = operation

    def __set_name__(self, owner: type, name: str) -> None:
        operation: Any = self._operation

        def method(client: "Client", **fields: Any) -> Any:
            return cast("Any", client).call(operation(**fields))

        described = signature(operation)
        me = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
        made = "JobCall" if issubclass(operation, JobOperation) else "InstantCall"
        method.__doc__, method.__module__ = operation.__doc__, owner.__module__
        method.__name__, method.__qualname__ = name, f"{owner.__name__}.{name}"
        vars(method)["__signature__"] = described.replace(parameters=[me, *described.parameters.values()], return_annotation=made)
        self._method = method


class job_method(_Method[P, R]):  # noqa: N801  it is written as a decorator is
    """A method whose call makes a paid job."""

    def __init__(self, operation: Callable[P, JobOperation[R]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, JobCall[R]]: ...
    def __get__(self, client: "Client | None", owner: type) -> "Self | Callable[P, JobCall[R]]":
        return cast("Any", self._method) if client is None else cast("Callable[P, JobCall[R]]", MethodType(self._method, client))


class instant_method(_Method[P, R]):  # noqa: N801  it is written as a decorator is
    """A method whose call is answered at once."""

    def __init__(self, operation: Callable[P, InstantOperation[R]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, InstantCall[R]]: ...
    def __get__(self, client: "Client | None", owner: type) -> "Self | Callable[P, InstantCall[R]]":
        return cast("Any", self._method) if client is None else cast("Callable[P, InstantCall[R]]", MethodType(self._method, client))


class Client:
    """An async client of the dryAPI / deAPI inference service.

    It opens at its first use, in ``async with`` or without, and belongs to the event loop of that use: one client per thread. A client
    made at import time serves one ``asyncio.run`` after another.

    Args:
        api_key: The account's key; else DRYAPI_API_KEY.
        base_url: The service's host; else DRYAPI_BASE_URL, else `DRYAPI_URL`. Plain http is refused but for loopback or ``allow_http``.
        max_in_flight: Transfers (submits, downloads) at once; status reads and waits take no slot.
        timeouts: Seconds for each part of a request.
        retry: What may be sent again, and how often.
        pool_size: Connections; raised to ``max_in_flight`` if smaller. Of a given connector its own limit counts.
        poll: Seconds between status reads of a job; None is the learned cadence.
        webhook_url: A default for all submits.
        storage_hosts: Hosts whose results are taken over http or from private addresses.
        allow_http: Send the key over plain http to a host that isn't this machine.
        check: Compare each request with its model's limits before it is submitted (one read of the models), and refuse with InputError.
        proxy: A proxy's URL; else the environment's.
        ssl: A context of your own, for private CAs.
        session: Its connector and trace configs are used; it isn't closed.
        connector: Used, and not closed.
        on_event: Told typed events (``dryapi_async.events``); what it raises is logged and breaks nothing.

    Raises:
        ConfigurationError: No key, a bad URL, an option out of range.
    """

    def __init__(  # noqa: PLR0913  each is an option that a user may need
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        max_in_flight: int = 16,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        pool_size: int = 100,
        poll: float | None = None,
        webhook_url: str | None = None,
        storage_hosts: Sequence[str] = (),
        allow_http: bool = False,
        check: bool = False,
        proxy: str | None = None,
        ssl: SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
        connector: aiohttp.BaseConnector | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.settings: Settings = Settings.load(
            api_key=api_key,
            base_url=base_url,
            max_in_flight=max_in_flight,
            timeouts=timeouts,
            retry=retry,
            pool_size=pool_size,
            poll=poll,
            webhook_url=webhook_url,
            storage_hosts=storage_hosts,
            allow_http=allow_http,
            check=check,
            proxy=proxy,
        )
        if session is not None and connector is not None:
            raise ConfigurationError("Give a session or a connector, not both: of a session only the connector is used.")
        self._ssl = ssl
        self._session = session
        self._connector = connector
        self._on_event = on_event
        self._bound: Engine | None = None
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

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
        return ModelList(self._engine, type)

    @overload
    def call(self, operation: JobOperation[R], *, timeout: float | None = DEFAULT_TIMEOUT) -> JobCall[R]: ...
    @overload
    def call(self, operation: InstantOperation[R], *, timeout: float | None = DEFAULT_TIMEOUT) -> InstantCall[R]: ...
    def call(
        self, operation: JobOperation[R] | InstantOperation[R], *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> JobCall[R] | InstantCall[R]:
        """Make a call from a request: nothing is sent until it is finished (``await``, ``.result()``, ``.save()``).

        ``timeout`` is seconds over the submit with its retries and waits, for ``await``; None is no deadline.
        """
        if isinstance(operation, JobOperation):
            return JobCall(operation, self._engine, timeout=timeout)
        if isinstance(operation, InstantOperation):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            return InstantCall(operation, self._engine, timeout=timeout)
        raise InputError(f"call() takes a request such as Txt2Img(...), not {type(operation).__name__}.")

    async def check(self, operation: JobOperation[Any]) -> tuple[str, ...]:
        """List what the service would refuse in a request, by its model's limits and its files' sizes; nothing is uploaded.

        The models are read once and kept. Empty means that nothing is known against it: the service judges.
        """
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
        slug, request_id = read_ticket(ticket)
        found = operation or job_class(slug)
        if found is None:
            raise InputError(f"{ticket!r} is a ticket of no operation known here ({slug!r}).")
        if found.endpoint.slug != slug:
            raise InputError(f"{ticket!r} is a ticket of {slug!r}, not of {found.__name__}.")
        return Job(request_id, found, self._engine)

    @property
    def orphans(self) -> tuple[Job[Any], ...]:
        """Jobs whose submit was cancelled on its way and accepted all the same: they are paid for. Bounded to the newest 1,000."""
        return () if self._bound is None else tuple(self._bound.orphans)

    def _engine(self) -> Engine:
        """Find what serves the running loop, or open it.

        Raises:
            ClientClosedError: The client was closed.
            ClientLoopError: It serves another loop that still runs.
        """
        if self._closed:
            raise ClientClosedError("The client is closed: make a new one. Jobs go on at the service; their tickets stay good.")
        loop = asyncio.get_running_loop()
        if self._bound is not None:
            if self._bound.loop is loop:
                return self._bound
            if not self._bound.loop.is_closed():
                raise ClientLoopError("The client belongs to another event loop that isn't closed: make one client per loop and thread.")
        self._bound = Engine(self.settings, session=self._session, connector=self._connector, ssl=self._ssl, on_event=self._on_event)
        return self._bound

    async def __aenter__(self) -> Self:
        self._engine()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client: waits end in ClientClosedError, submits on the wire are listened to for ``Timeouts.orphan`` seconds.

        It doesn't wait for jobs: they go on at the service. Closing again is harmless.
        """
        self._closed = True
        engine = self._bound
        if engine is None or engine.loop is not asyncio.get_running_loop():
            return
        if self._closing is None:
            self._closing = engine.loop.create_task(engine.close())
        await asyncio.shield(self._closing)

    def __repr__(self) -> str:
        return f"<Client {self.settings.base_url}{' closed' if self._closed else ''}>"
