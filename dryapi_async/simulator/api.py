"""The API host: from a request to its answer, by the contract's table."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from dryapi_async.simulator import errors
from dryapi_async.simulator.contract import OPERATIONS, Operation
from dryapi_async.simulator.errors import Answer, RefusedError, answer_json
from dryapi_async.simulator.models import list_models
from dryapi_async.simulator.prices import price, write_price
from dryapi_async.simulator.prompts import enhance, sample
from dryapi_async.simulator.receive import Form
from dryapi_async.simulator.statuses import describe
from dryapi_async.simulator.validate import Checked, validate

if TYPE_CHECKING:
    from decimal import Decimal

    from aiohttp import web

    from dryapi_async.simulator.account import Account
    from dryapi_async.simulator.faults import Fault
    from dryapi_async.simulator.received import Received

PREFIX = "/api/v1/client/"
AUTH = "broadcasting/auth"
_STATUS = "request-status/"


def find_operation(path: str) -> str:
    """Name the operation of a path: a slug of the table, ``push`` for the websocket, or the path itself."""
    if not path.startswith(PREFIX):
        return "push" if path.startswith("/app/") else path.strip("/")
    rest = path[len(PREFIX) :]
    return "request-status" if rest.startswith(_STATUS) else rest


class Api:
    """Answers requests of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def answer(self, request: web.BaseRequest, received: Received, fault: Fault | None) -> Answer:
        """Handle a request whole: refuse early what can be, read the body, validate, act."""
        if received.operation == AUTH and received.method == "POST":
            return self._account.push.authorize(await self.read(request, received), known=self._knows(received))
        try:
            row = self._route(received)
            self._authorize(received)
            headers = self._limit(row, received)
        except RefusedError as refused:
            return refused.answer
        try:
            form = await self.read(request, received)
            answer = self._act(row, form, received, fault)
        except RefusedError as refused:
            answer = refused.answer
        answer.headers.update(headers)
        return answer

    def _route(self, received: Received) -> Operation:
        account = self._account
        row = OPERATIONS.get(received.operation)
        path = received.path.strip("/")
        if row is None or (row.action == "status" and not path.removeprefix((PREFIX + _STATUS).strip("/"))):
            raise RefusedError(errors.not_found(f"The route {path} could not be found.", account.variants))
        allowed = {"GET", "HEAD"} if row.method == "GET" else {"POST"}
        if received.method not in allowed:
            words = f"The {received.method} method is not supported for route {path}. Supported methods: {', '.join(sorted(allowed))}."
            raise RefusedError(answer_json(405, {"message": words}, {"Allow": ", ".join(sorted(allowed))}))
        return row

    def _authorize(self, received: Received) -> None:
        if not self._knows(received):
            raise RefusedError(errors.unauthorized(self._account.variants))
        if self._account.suspended:
            raise RefusedError(errors.suspended())

    def _knows(self, received: Received) -> bool:
        key = _key_of(received)
        return key == self._account.key or key in self._account.others

    def _limit(self, row: Operation, received: Received) -> dict[str, str]:
        account = self._account
        pot = account.others.get(_key_of(received), account.limiter).pot(row.slug)
        if pot is None:
            return {}
        verdict = pot.take(account.clock(), account.now())
        headers = verdict.headers if account.limit_headers else {}
        if "limit-headers-few" in account.variants and headers:
            kept = {name: headers[name] for name in ("X-RateLimit-Limit", "X-RateLimit-Remaining")}
            headers = {**kept, "X-RateLimit-Source": "account"}
        if verdict.refused is not None:
            answer = errors.too_many(verdict.refused, verdict.retry_after, account.variants, verdict.counts)
            answer.headers.update(headers)
            raise RefusedError(answer)
        return headers

    async def read(self, request: web.BaseRequest, received: Received) -> Form:
        """Read the body, or the query of a GET, and record it."""
        if received.method != "POST":
            return Form(dict(parse_qsl(received.query, keep_blank_values=True)))
        receiver = self._account.receiver
        if (request.content_length or 0) > receiver.most:
            raise RefusedError(errors.too_large())
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        form = await receiver.read(request, hashed=self._account.digests)
        received.fields, received.files = form.fields, form.files
        received.body_size, received.body_sha256 = form.size, form.sha256
        return form

    def _act(self, row: Operation, form: Form, received: Received, fault: Fault | None) -> Answer:
        account = self._account
        match row.action:
            case "balance":
                return self._balance()
            case "models":
                return answer_json(200, list_models(account.models, form.fields, account.variants, account.url + received.path))
            case "status":
                return self._status(received)
            case _:
                pass
        if row.slug.startswith("prompt") and "prompts-gone" in account.variants:
            return errors.gone()
        checked, found = validate(row, form, account.models, max_upload=account.max_upload)
        if found:
            raise RefusedError(errors.invalid(found, account.variants, listed=row.slug.startswith("prompt")))
        cost = price(row, checked)
        if row.action == "price":
            return self._price(row, cost, priced_blind=not (checked.files or "duration" in checked.values))
        digest = self._charge(row, checked, cost)
        return self._submit(row, checked, received, fault, cost, digest) if row.action == "job" else self._prompt(row, checked)

    def _balance(self) -> Answer:
        amount, variants = write_price(self._account.balance), self._account.variants
        if "balance-string" in variants:
            amount = f'"{amount}"'
        text = f'{{"balance":{amount}}}'
        if "balance-both" in variants:
            text = f'{{"data":{{"balance":{amount}}},"balance":{amount},"credits":{amount},"currency":"USD"}}'
        elif "balance-data" in variants:
            text = f'{{"data":{{"balance":{amount}}}}}'
        return Answer(200, text.encode())

    def _status(self, received: Received) -> Answer:
        account = self._account
        request_id = unquote(received.path.removeprefix(PREFIX + _STATUS))
        received.request_id = request_id
        job = account.board.jobs.get(request_id)
        if job is None:
            return errors.not_found(f"No query results for model [JobRequest] {request_id}", account.variants)
        return answer_json(200, describe(account, job))

    def _price(self, row: Operation, cost: Decimal, *, priced_blind: bool) -> Answer:
        variants = self._account.variants
        amount = write_price(cost)
        if "price-string" in variants:
            amount = f'"{amount}"'
        elif "price-null" in variants:
            amount = "null"
        elif "price-zero" in variants and row.job_slug == "vid-upscale" and priced_blind:
            amount = "0"
        top = ("price-top" in variants or row.slug.startswith("prompt")) and "price-data" not in variants
        if "price-request-id" in variants and row.job_slug == "audiofile2txt":
            text = '{"data":{"request_id":"c08a339c-73e5-4d67-a4d5-231302fbff9a"}}'
        elif "price-estimated" in variants:
            text = f'{{"data":{{"estimated_price":{amount},"currency":"USD"}}}}'
        else:
            text = f'{{"price":{amount}}}' if top else f'{{"data":{{"price":{amount}}}}}'
        return Answer(200, text.encode())

    def _charge(self, row: Operation, checked: Checked, cost: Decimal) -> str:
        account = self._account
        if account.balance < cost:
            if "402-balance" in account.variants:
                error = {"code": "insufficient_credits", "message": "Not enough balance.", "detail": f"{write_price(cost)} needed"}
                raise RefusedError(answer_json(402, {"error": error}))
            listed = row.slug.startswith("prompt")
            raise RefusedError(errors.invalid({"balance": ["Not enough balance."]}, account.variants, listed=listed))
        account.balance -= cost
        digest = request_digest(row.slug, checked) if account.digests else ""
        account.board.bill(digest)
        return digest

    def _submit(self, row: Operation, checked: Checked, received: Received, fault: Fault | None, cost: Decimal, digest: str) -> Answer:
        variants = self._account.variants
        number = "request-id-number" in variants
        error = (fault.code, fault.message) if fault is not None and fault.kind == "job_error" else None
        job = self._account.board.add(row, checked.values, checked.files, price=cost, digest=digest, number=number, error=error)
        received.request_id = job.request_id
        body: dict[str, Any] = {"data": {"request_id": int(job.request_id) if number else job.request_id}}
        if "submit-extra" in variants:
            body = {"data": {**body["data"], "result": None}, "message": "ok", "statusCode": 200}
        return answer_json(202 if "submit-202" in variants else 200, body)

    def _prompt(self, row: Operation, checked: Checked) -> Answer:
        body = sample(checked) if row.action == "sample" else enhance(row, checked)
        return answer_json(200, {"data": body} if "prompts-data" in self._account.variants and "data" not in body else body)


def request_digest(slug: str, checked: Checked) -> str:
    """Digest a request: its operation, its fields in order of name, the SHA-256 of its files."""
    files = [(name, file.sha256) for name, given in sorted(checked.files.items()) for file in given]
    return hashlib.sha256(json.dumps([slug, checked.values, files], sort_keys=True).encode()).hexdigest()


def _key_of(received: Received) -> str:
    scheme, _, key = received.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
