"""Webhooks: signed deliveries with the documented retries, and their misbehaviour on request. Only loopback addresses are dialled."""

from __future__ import annotations

import asyncio
import hmac
import socket
import uuid
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, field

from dryapi_async.simulator.errors import write_json
from dryapi_async.simulator.models import DOCUMENT_WORDS
from dryapi_async.simulator.statuses import TEXTS, iso_time, results

if TYPE_CHECKING:
    import random
    import ssl as ssl_module
    from collections.abc import Coroutine

    from dryapi_async.simulator.account import Account
    from dryapi_async.simulator.agenda import Moment
    from dryapi_async.simulator.jobs import SimJob

Brand = Literal["dryapi", "deapi", "probe"]
# Seconds before each of the ten attempts, as documented.
BACKOFF: tuple[float, ...] = (0, 60, 120, 300, 600, 1800, 3600, 10_800, 21_600, 43_200)
_ANSWER_SECONDS = 10.0
_FAILURES_MOST = 10
_PREFIXES = {
    "dryapi": ("X-dryAPI", "dryAPI-Webhook/1.0"),
    "deapi": ("X-DeAPI", "DeAPI-Webhook/1.0"),
    "probe": ("X-DryAPI", "dryAPI-Webhook/1.0"),
}
_OK = range(200, 300)


@define(eq=False)
class Delivery:
    """One delivery with its attempts: each a loop time and the status answered, or the error's name."""

    delivery_id: str
    event: str
    url: str
    request_id: str | None
    body: bytes
    attempts: list[tuple[float, int | str]] = field(factory=list[tuple[float, "int | str"]])
    state: Literal["open", "delivered", "failed", "not sent"] = "open"


class _Loopback(AbstractResolver):
    """Knows one name, so that no resolver thread is started."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        del family
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST)]

    async def close(self) -> None:
        return


class Webhooks:
    """The account's webhooks.

    Attributes that may be changed: ``url`` (for jobs without their own), ``secret`` (None: unsigned), ``enabled``,
    ``brand`` (header spelling: dryapi, deapi, probe), ``backoff`` (seconds before each attempt), ``delay`` and ``jitter``
    (seconds added to a delivery, fixed and by chance: jitter reorders), ``reordered`` (processing comes after the end),
    ``copies`` (how often each is sent), ``lost`` (the part that is never sent), ``tampered`` (the body is changed after
    signing), ``same_id`` (retries keep the delivery id), ``skew`` (seconds added to the timestamp).
    """

    def __init__(
        self, account: Account, rng: random.Random, *, url: str | None, secret: str | None, ssl: ssl_module.SSLContext | None
    ) -> None:
        self.url = url
        self.secret = secret
        self.enabled: bool = True
        self.brand: Brand = "dryapi"
        self.backoff = BACKOFF
        self.delay: float = 0.0
        self.jitter: float = 0.0
        self.reordered = False
        self.copies = 1
        self.lost: float = 0.0
        self.tampered = False
        self.same_id = True
        self.skew: float = 0.0
        self.deliveries: list[Delivery] = []
        self.failures: int = 0
        self._account = account
        self._rng = rng
        self._ssl = ssl
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: dict[str, SimJob] = {}

    def wants(self, job: SimJob) -> bool:
        """Whether anything is sent for a job."""
        return bool(job.webhook_url or self.url)

    def tell(self, job: SimJob, moment: Moment) -> None:
        """Send what a moment in a job's life calls for."""
        url = job.webhook_url or self.url
        if url is None or moment == "progress":
            return
        if moment == "started":
            if self.reordered:
                self._late[job.request_id] = job
            else:
                self._spawn(self._deliver(self._prepare(job, "job.processing", url)))
            return
        event = "job.failed" if job.failing else "job.completed"
        chain = [self._prepare(job, event, url)]
        if self._late.pop(job.request_id, None) is not None:
            chain.append(self._prepare(job, "job.processing", url))
        self._spawn(self._deliver(*chain))

    async def probe(self, url: str) -> Delivery:
        """Send the dashboard's validation event, once."""
        data = {
            "webhook_id": 1,
            "webhook_name": "simulator",
            "endpoint_url": url,
            "checked_at": iso_time(self._account.now()),
            "validation": True,
        }
        delivery = self._compose("webhook.validation", url, None, data)
        await self._attempt(delivery)
        return delivery

    async def close(self) -> None:
        """End all deliveries."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _prepare(self, job: SimJob, event: str, url: str) -> Delivery:
        account = self._account
        shift = account.now() - account.clock()
        live = "webhook-live-words" in account.variants
        kind = job.row.model_type if live else DOCUMENT_WORDS.get(job.row.model_type, job.row.model_type)
        states = {
            "job.processing": ("processing", "pending"),
            "job.completed": ("done", "processing"),
            "job.failed": ("error", "processing"),
        }
        status, previous = states[event]
        data: dict[str, Any] = {"job_request_id": job.request_id, "status": status, "previous_status": previous, "job_type": kind}
        if event == "job.processing":
            data["started_at"] = iso_time(shift + job.starts)
        elif event == "job.completed":
            data["completed_at"] = iso_time(shift + job.ends)
            if job.row.result not in TEXTS:
                data["result_url"] = results(account, job)["result_url"]
            data["processing_time_ms"] = round((job.ends - job.starts) * 1000)
        else:
            data |= {"failed_at": iso_time(shift + job.ends), "error_code": job.code, "error_message": job.message}
        return self._compose(event, url, job.request_id, data)

    def _compose(self, event: str, url: str, request_id: str | None, data: dict[str, Any]) -> Delivery:
        delivery_id = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        body = {"event": event, "delivery_id": delivery_id, "timestamp": iso_time(self._account.now()), "data": data}
        delivery = Delivery(delivery_id, event, url, request_id, write_json(body))
        self.deliveries.append(delivery)
        return delivery

    async def _deliver(self, *chain: Delivery) -> None:
        for delivery in chain:
            if not self.enabled or not is_loopback(delivery.url) or self._rng.random() < self.lost:
                delivery.state = "not sent"
                continue
            if wait := self.delay + self.jitter * self._rng.random():
                await asyncio.sleep(wait)
            await self._persist(delivery)

    async def _persist(self, delivery: Delivery) -> None:
        for wait in self.backoff:
            if wait:
                await asyncio.sleep(wait)
            if not self.enabled:
                break
            if delivery.attempts and not self.same_id:
                self._renew(delivery)
            for _ in range(self.copies):
                await self._attempt(delivery)
            if delivery.state == "delivered":
                self.failures = 0
                return
        delivery.state = "failed"
        self.failures += 1
        if self.failures >= _FAILURES_MOST:
            self.enabled = False  # as documented: off until somebody switches them on again

    def _renew(self, delivery: Delivery) -> None:
        renewed = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        delivery.body = delivery.body.replace(delivery.delivery_id.encode(), renewed.encode())
        delivery.delivery_id = renewed

    async def _attempt(self, delivery: Delivery) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Loopback(), limit=0, ssl=self._ssl or True))
        began = self._account.clock()
        body = delivery.body + b" " if self.tampered else delivery.body
        try:
            async with (
                asyncio.timeout(_ANSWER_SECONDS),
                self._session.post(delivery.url, data=body, headers=self._sign(delivery), allow_redirects=False) as answer,
            ):
                await answer.read()
                outcome: int | str = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            outcome = type(error).__name__
        delivery.attempts.append((began, outcome))
        if outcome in _OK:
            delivery.state = "delivered"

    def _sign(self, delivery: Delivery) -> dict[str, str]:
        prefix, agent = _PREFIXES[self.brand]
        timestamp = str(int(self._account.now() + self.skew))
        headers = {
            "User-Agent": agent,
            "Content-Type": "application/json",
            f"{prefix}-Timestamp": timestamp,
            f"{prefix}-Event": delivery.event,
            f"{prefix}-Delivery-Id": delivery.delivery_id,
        }
        if self.secret is not None:
            signature = hmac.digest(self.secret.encode(), timestamp.encode() + b"." + delivery.body, "sha256").hex()
            headers[f"{prefix}-Signature"] = f"sha256={signature}"
        return headers


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine: what isn't is never dialled."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
