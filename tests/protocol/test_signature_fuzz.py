"""P17 by chance: a hundred thousand deliveries, most of them spoilt somewhere, give an event or one kind of error."""

import hmac
import json
import random
from typing import Any

from dryapi_async.errors import SignatureError
from dryapi_async.protocol.signature import WebhookEvent, verify

NOW = 1_774_000_000.0
SCRAPS: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    "",
    "done",
    "error",
    "x" * 300,
    "\ud800",
    "🦊",
    [],
    {},
    [[]],
    {"data": {}},
    [None] * 3,
]
WORDS = ["job.processing", "job.completed", "job.failed", "webhook.validation", "job.", "", None, 3]
FIELDS = [
    "event",
    "delivery_id",
    "timestamp",
    "data",
    "job_request_id",
    "status",
    "result_url",
    "result",
    "error",
    "error_code",
    "progress",
]
BYTES = [b"", b"\xff", b"\x00", "é".encode(), b"nan", b"1e400", b"9" * 30, b"1774000000", b"sha256=", b"sha256=" + b"0" * 64]


def digest_of(secret: str, timestamp: bytes, body: bytes) -> bytes:
    return b"sha256=" + hmac.digest(secret.encode(), timestamp + b"." + body, "sha256").hex().encode()


class Fuzz:
    """Deliveries that are signed, then perhaps spoilt; and what may be said of each."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  no secret
        self.secrets = ["one", "two-ü", "three"]

    def scrap(self, depth: int = 0) -> Any:
        chance = self.chance
        if depth < 3 and chance.random() < 0.2:
            return {chance.choice(FIELDS): self.scrap(depth + 1) for _ in range(3)}
        return chance.choice(SCRAPS)

    def body(self) -> bytes:
        chance = self.chance
        data: Any = {"job_request_id": f"j-{chance.randrange(99)}", "status": "done"}
        while chance.random() < 0.4:
            data[chance.choice(FIELDS)] = self.scrap()
        whole: Any = {"event": chance.choice(WORDS), "delivery_id": "d", "timestamp": 1, "data": data}
        if chance.random() < 0.3:
            whole[chance.choice(FIELDS)] = self.scrap()
        if chance.random() < 0.05:
            whole = self.scrap()
        body = json.dumps(whole, ensure_ascii=chance.random() < 0.8).encode(errors="surrogatepass")
        return self.spoil(body) if chance.random() < 0.2 else body

    def spoil(self, content: bytes) -> bytes:
        chance = self.chance
        if not content or chance.random() < 0.3:
            return chance.choice(BYTES)
        at = chance.randrange(len(content))
        return (
            content[:at] + chance.choice([b"", bytes([chance.randrange(256)]), chance.choice(BYTES)]) + content[at + chance.randrange(3) :]
        )

    def delivery(self) -> tuple[dict[bytes, bytes], bytes]:
        chance = self.chance
        body = self.body()
        brand = chance.choice([b"X-dryAPI-", b"x-deapi-"])
        timestamp = str(int(NOW) + chance.choice([0, 0, 0, 0, 300, -300, 301, -301, 10**9, -(10**9)])).encode()
        timestamp = self.spoil(timestamp) if chance.random() < 0.05 else timestamp
        secret = chance.choice([*self.secrets, "wrong"] if chance.random() < 0.3 else self.secrets)
        signature = digest_of(secret, timestamp, body)
        headers = {brand + b"Signature": signature, brand + b"Timestamp": timestamp, b"Host": b"me"}
        if chance.random() < 0.3:
            name = chance.choice(list(headers))
            headers[name] = self.spoil(headers[name])
        if chance.random() < 0.1:
            name = chance.choice(list(headers))
            headers[self.spoil(name)] = headers.pop(name)
        return headers, self.spoil(body) if chance.random() < 0.1 else body

    def given(self, headers: dict[bytes, bytes]) -> Any:
        """Give headers in one of the shapes that frameworks use."""
        shape = self.chance.randrange(3)
        if shape == 0:
            return headers
        if shape == 1:
            return list(headers.items())
        return {name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape") for name, value in headers.items()}

    def is_signed(self, headers: dict[bytes, bytes], body: bytes) -> bool:
        found = {name.lower(): value.strip() for name, value in headers.items()}
        for brand in (b"x-dryapi-", b"x-deapi-"):
            timestamp, signature = found.get(brand + b"timestamp", b""), found.get(brand + b"signature")
            near = timestamp.isdigit() and abs(int(timestamp) - NOW) <= 300
            if signature and near and any(signature == digest_of(secret, timestamp, body) for secret in self.secrets):
                return True
        return False


def judge(headers: Any, body: bytes, secrets: list[str]) -> tuple[WebhookEvent | None, str]:
    """Verify, and let through whatever isn't the one error that is promised."""
    try:
        return verify(headers, body, secrets, NOW), ""
    except SignatureError as error:
        return None, str(error)


def test_p17_a_hundred_thousand_deliveries_give_an_event_or_a_signature_error() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  to see the same again
    fuzz = Fuzz(seed)
    taken = refused = unreadable = 0
    for _ in range(100_000):
        headers, body = fuzz.delivery()
        signed = fuzz.is_signed(headers, body)
        event, reason = judge(fuzz.given(headers), body, fuzz.secrets)
        if event is None:
            refused += 1
            unreadable += signed
            assert not signed or "its body" in reason, (seed, headers, body)
        else:
            taken += 1
            assert signed, (seed, headers, body)
            assert event.event == json.loads(body)["event"]
            assert event.event
            assert 0 < len(event.delivery_id) <= 255
    assert min(taken, refused, unreadable) > 5_000, (taken, refused, unreadable)
