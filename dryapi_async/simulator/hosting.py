"""Serve requests on both ports: record them, let them meet their faults, answer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from aiohttp import web
from attrs import evolve

from dryapi_async.simulator.api import Api, find_operation
from dryapi_async.simulator.faults import Fault, Scripted
from dryapi_async.simulator.received import Received
from dryapi_async.simulator.storage import http_date
from dryapi_async.simulator.wire import Connections, Saboteur, Severed, send

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from dryapi_async.simulator.account import Account
    from dryapi_async.simulator.errors import Answer

    Respond = Callable[[Fault | None], Awaitable[Answer]]
    Read = Callable[[], Awaitable[None]]


class Host:
    """The handlers of both ports, for one account."""

    def __init__(self, account: Account, scripts: list[Scripted], rng: random.Random, *, keepalive: float, drop_reused: bool) -> None:
        self.record: bool = account.digests
        self.drop_reused = drop_reused
        self.api_requests: deque[Received] = deque()
        self.storage_requests: deque[Received] = deque()
        self.connections: Connections = Connections(self._serve_api, keepalive_timeout=keepalive)
        self.storage_connections: Connections = Connections(self._serve_storage, keepalive_timeout=keepalive)
        self._account = account
        self._api = Api(account)
        self._scripts = scripts
        self._random = rng
        self._date = (-1, "")
        self._pausing: set[asyncio.Task[None]] = set()

    def interrupt(self) -> None:
        """Cut all connections and wake who pauses."""
        for task in list(self._pausing):
            task.cancel()
        for connections in (self.connections, self.storage_connections):
            connections.abort()

    async def shut_down(self) -> None:
        """Wait until every handler has ended."""
        for connections in (self.connections, self.storage_connections):
            await connections.shutdown(1.0)

    async def pause(self, seconds: float) -> None:
        """Sleep in the loop's time, ended by ``interrupt()``."""
        task = asyncio.current_task()
        if task is not None:
            self._pausing.add(task)
        try:
            await asyncio.sleep(seconds)
        finally:
            if task is not None:
                self._pausing.discard(task)

    def _show_date(self) -> str:
        second = int(self._account.now())
        if self._date[0] != second:
            self._date = (second, http_date(second))
        return self._date[1]

    def _note(self, request: web.BaseRequest, connections: Connections, log: deque[Received], operation: str | None) -> Received:
        path, _, query = request.raw_path.partition("?")
        peer = request.protocol.peername
        port = peer[1] if isinstance(peer, tuple) else 0
        count = connections.count(request.protocol)
        name = operation or find_operation(path)
        received = Received(name, request.method, path, query, request.headers, port, count, self._account.clock())
        if self.record:
            log.append(received)
        return received

    def _take_fault(self, received: Received) -> Fault | None:
        for scripted in self._scripts:
            fault = scripted.take(received, self._random)
            if fault is not None:
                if scripted.spent:
                    self._scripts.remove(scripted)
                received.fault = str(fault)
                return fault
        return None

    async def _serve_api(self, request: web.BaseRequest) -> web.StreamResponse:
        received = self._note(request, self.connections, self.api_requests, None)
        if received.operation == "push":
            return await self._serve_push(request, received)

        async def respond(fault: Fault | None) -> Answer:
            return await self._api.answer(request, received, fault)

        async def read() -> None:
            await self._api.read(request, received)

        return await self._serve(request, received, self.connections, respond, read)

    async def _serve_push(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        fault = self._take_fault(received) if self._scripts else None
        try:
            if fault is None:
                return await self._account.push.serve(request, received)
            if fault.kind == "status" and fault.answer is not None:
                return await self._send(request, received, evolve(fault.answer))
            return await Saboteur(request, self.connections, self._show_date()).strike_early(fault)
        except ConnectionError:
            return Severed()
        finally:
            received.ended = self._account.clock()

    async def _serve_storage(self, request: web.BaseRequest) -> web.StreamResponse:
        received = self._note(request, self.storage_connections, self.storage_requests, "storage")
        account = self._account

        async def respond(_: Fault | None) -> Answer:
            return account.storage.answer(request.method, received.path, received.query, request.headers, account.board.jobs)

        async def read() -> None:
            return None

        return await self._serve(request, received, self.storage_connections, respond, read)

    async def _serve(
        self, request: web.BaseRequest, received: Received, connections: Connections, respond: Respond, read: Read
    ) -> web.StreamResponse:
        fault = self._take_fault(received) if self._scripts else None
        if fault is None and self.drop_reused and received.reused:
            fault = Fault.close("before_body")
        try:
            if fault is None or fault.kind == "job_error":
                return await self._send(request, received, await respond(fault))
            saboteur = Saboteur(request, connections, self._show_date())
            if fault.kind == "status" and fault.answer is not None:
                if not fault.early:
                    await (respond(fault) if fault.billed else read())
                return await self._answer_instead(request, received, saboteur, fault, fault.answer)
            return await self._misbehave(request, received, saboteur, fault, respond)
        except (ConnectionError, web.RequestPayloadError):
            return Severed()  # the client went away in the middle of its body
        finally:
            received.ended = self._account.clock()

    async def _send(self, request: web.BaseRequest, received: Received, answer: Answer) -> web.StreamResponse:
        received.status = answer.status
        # An answer before the body was read ends the connection: what follows on it is body.
        return await send(request, answer, self._show_date(), close=not request.content.is_eof())

    async def _answer_instead(
        self, request: web.BaseRequest, received: Received, saboteur: Saboteur, fault: Fault, answer: Answer
    ) -> web.StreamResponse:
        if fault.abrupt:
            received.status = answer.status
            return await saboteur.cut_short(answer)
        return await self._send(request, received, evolve(answer))

    async def _misbehave(
        self, request: web.BaseRequest, received: Received, saboteur: Saboteur, fault: Fault, respond: Respond
    ) -> web.StreamResponse:
        if fault.before_answer:
            return await saboteur.strike_early(fault)
        right = await respond(fault)
        if fault.kind == "delay":
            await self.pause(fault.seconds)
            return await self._send(request, received, right)
        if fault.kind == "trickle":
            received.status = right.status
            return await saboteur.trickle(fault, right, self.pause)
        return await saboteur.strike(fault, right)
