"""Webhooks: a delivery is the service's own and becomes an event, or it is refused with one error; whatever comes.

The signatures in tests/data/webhooks.jsonl were made with OpenSSL 3.0, for each line by::

    printf '%s.%s' "$timestamp" "$body" | openssl dgst -sha256 -hmac "$secret" -hex | sed 's/^.*= /sha256=/'
"""

import hashlib
import hmac
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from dryapi_async.errors import ConfigurationError, SignatureError
from dryapi_async.protocol.signature import Headers, WebhookEvent, sign, verify
from dryapi_async.protocol.status import JobState
from dryapi_async.testing import WebhookSigner

GOLDEN = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "webhooks.jsonl").read_text().splitlines()]
SECRET = "whsec_test"
NOW = 1_774_000_000.0
BODY = json.dumps(
    {
        "event": "job.completed",
        "delivery_id": "d-1",
        "timestamp": "2026-03-20T09:46:40Z",
        "data": {"job_request_id": "j-1", "status": "done", "result_url": "https://results.example/1.png"},
    }
).encode()


def headers_of(body: bytes = BODY, *, secret: str = SECRET, timestamp: str = "1774000000", brand: str = "X-dryAPI") -> dict[str, str]:
    """Sign a body by hand."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {f"{brand}-Signature": f"sha256={digest}", f"{brand}-Timestamp": timestamp}


def refusal(headers: Any, body: Any = BODY, secrets: Any = SECRET, now: float = NOW) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(headers, body, secrets, now)
    return str(caught.value)


def read(body: bytes) -> WebhookEvent:
    return verify(headers_of(body), body, SECRET, NOW)


def write(*, event: Any = "job.completed", delivery_id: Any = "d-1", timestamp: Any = None, **data: Any) -> bytes:
    return json.dumps({"event": event, "delivery_id": delivery_id, "timestamp": timestamp, "data": data}).encode()


@pytest.mark.parametrize("one", GOLDEN, ids=[one["id"] for one in GOLDEN])
def test_p17_golden_deliveries_are_read(one: dict[str, Any]) -> None:
    headers = {f"{one['brand']}-Signature": one["signature"], f"{one['brand']}-Timestamp": one["timestamp"]}
    body = one["body"].encode()
    event = verify(headers, body, one["secret"], float(one["timestamp"]))
    update = event.update
    assert one["event"] == {
        "event": event.event,
        "delivery_id": event.delivery_id,
        "request_id": event.request_id,
        "job_type": event.job_type,
        "sent_at": event.sent_at,
        "state": update and update.state,
        "word": update and update.word,
        "url": update and update.url,
        "text": update and update.text,
        "code": update and update.code,
        "reason": update and update.reason,
    }
    assert update is None or update.source == "webhook"
    assert event.data == (json.loads(body)["data"] or {})
    assert not event.duplicate
    assert "changed" in refusal(headers, body + b" ", one["secret"], float(one["timestamp"]))


@pytest.mark.parametrize("one", GOLDEN, ids=[one["id"] for one in GOLDEN])
def test_the_signer_signs_as_openssl_does(one: dict[str, Any]) -> None:
    headers, body = WebhookSigner(one["secret"]).sign(one["body"].encode(), at=float(one["timestamp"]))
    assert (headers["X-dryAPI-Signature"], headers["X-dryAPI-Timestamp"]) == (one["signature"], one["timestamp"])
    assert (headers["X-dryAPI-Event"], headers["X-dryAPI-Delivery-Id"]) == (one["event"]["event"], one["event"]["delivery_id"])
    assert body == one["body"].encode()
    assert sign(one["secret"].encode(), one["timestamp"].encode(), body).decode() == one["signature"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl isn't on this machine")
@pytest.mark.parametrize("one", [GOLDEN[1], GOLDEN[-1]], ids=[GOLDEN[1]["id"], GOLDEN[-1]["id"]])
def test_openssl_says_the_same_today(one: dict[str, Any]) -> None:
    command = ["openssl", "dgst", "-sha256", "-hmac", one["secret"], "-hex"]
    done = subprocess.run(command, input=f"{one['timestamp']}.{one['body']}".encode(), capture_output=True, check=True)
    assert "sha256=" + done.stdout.decode().strip().rpartition("= ")[2] == one["signature"]


@pytest.mark.parametrize("brand", ["dryapi", "deapi"])
def test_the_signer_wraps_what_an_event_says(brand: Any) -> None:
    signer = WebhookSigner(SECRET, brand=brand)
    headers, body = signer.sign({"job_request_id": "j", "result_url": "https://r.example/1.png"}, event="job.completed", at=NOW + 0.9)
    event = verify(headers, body, SECRET, NOW)
    assert (event.event, event.request_id, event.sent_at) == ("job.completed", "j", NOW)
    assert event.update is not None
    assert (event.update.state, event.update.url) == (JobState.DONE, "https://r.example/1.png")
    assert b"https:\\/\\/" in body
    prefix = {"dryapi": "X-dryAPI", "deapi": "X-DeAPI"}[brand]
    assert headers[f"{prefix}-Event"] == "job.completed"
    assert headers[f"{prefix}-Delivery-Id"] == event.delivery_id
    again, other = signer.sign(json.loads(body), at=NOW)
    assert verify(again, other, SECRET, NOW) == event


SPELLINGS: list[Callable[[dict[str, str]], Headers]] = [
    lambda signed: signed,
    lambda signed: {name.upper(): value for name, value in signed.items()},
    lambda signed: {name.lower(): f"  {value}\t" for name, value in signed.items()},
    CIMultiDict,
    lambda signed: {name.encode(): value.encode() for name, value in signed.items()},
    lambda signed: [(b"host", b"me"), *((name.lower().encode(), value.encode()) for name, value in signed.items())],
    lambda signed: iter([*signed.items(), *signed.items(), ("Cookie", "a"), ("Cookie", "b")]),
]


@pytest.mark.parametrize("brand", ["X-dryAPI", "X-DryAPI", "X-DeAPI"])
@pytest.mark.parametrize("spell", SPELLINGS)
def test_p17_headers_in_any_spelling_and_shape(brand: str, spell: Callable[[dict[str, str]], Headers]) -> None:
    assert verify(spell(headers_of(brand=brand)), BODY, SECRET, NOW).request_id == "j-1"
    assert verify(spell(headers_of(brand=brand)), bytearray(BODY), SECRET, NOW).request_id == "j-1"


def test_p17_a_brand_is_judged_by_itself() -> None:
    ours, theirs = headers_of(), headers_of(brand="X-DeAPI")
    wrong = headers_of(secret="another", brand="X-DeAPI")
    assert verify(ours | wrong, BODY, SECRET, NOW).event == "job.completed"
    assert verify({"X-dryAPI-Signature": "", "X-dryAPI-Timestamp": ""} | theirs, BODY, SECRET, NOW).event == "job.completed"
    crossed = {"X-dryAPI-Signature": ours["X-dryAPI-Signature"], "X-DeAPI-Timestamp": theirs["X-DeAPI-Timestamp"]}
    assert "isn't signed" in refusal(crossed)


def test_p17_several_secrets_while_one_is_replaced() -> None:
    old, new = headers_of(secret="old"), headers_of(secret="new")
    for signed in (old, new):
        assert verify(signed, BODY, ["new", "old"], NOW).request_id == "j-1"
        assert verify(signed, BODY, ("old", "new"), NOW).request_id == "j-1"
    assert "another secret" in refusal(old, secrets=["new"])
    assert "another secret" in refusal(old, secrets="new")


@pytest.mark.parametrize(
    "secrets",
    ["", "  \n", [], (), ["good", ""], ["", "good"], [" "], None, b"whsec_test", [b"whsec_test"], 7, ["good", None], "\ud800", {"a": 1}],
)
def test_p17_an_empty_secret_is_refused_before_anything_is_read(secrets: Any) -> None:
    with pytest.raises(ConfigurationError):
        verify(headers_of(secret="good"), BODY, secrets, NOW)
    with pytest.raises(ConfigurationError):
        verify({}, b"", secrets, NOW)


def test_a_secret_of_other_bytes_comes_from_the_environment() -> None:
    digest = hmac.new(b"\xff\xfe", b"1774000000." + BODY, hashlib.sha256).hexdigest()
    headers = {"X-dryAPI-Signature": f"sha256={digest}", "X-dryAPI-Timestamp": "1774000000"}
    assert verify(headers, BODY, b"\xff\xfe".decode(errors="surrogateescape"), NOW).request_id == "j-1"


@pytest.mark.parametrize("seconds", [0, 299.5, 300, -300])
def test_p17_within_the_window(seconds: float) -> None:
    assert verify(headers_of(), BODY, SECRET, NOW + seconds).request_id == "j-1"


@pytest.mark.parametrize("now", [NOW + 300.001, NOW - 300.001, 0.0, -NOW, math.nan, math.inf, -math.inf])
def test_p17_outside_the_window(now: float) -> None:
    assert "300 seconds" in refusal(headers_of(), now=now)


TIMESTAMPS = ["", "soon", "nan", "inf", "-1774000000", "+1774000000", "1774000000.0", "1_774_000_000", "0x69bd1780", "1774000000 1"]
TIMESTAMPS += ["\uff11\uff17\uff17\uff14", "9" * 400, "9" * 5000, "1e9", "1774000000\n1", "1774000000\x00", "2026-03-20T09:46:40Z"]


@pytest.mark.parametrize("timestamp", TIMESTAMPS, ids=range(len(TIMESTAMPS)))
def test_p17_a_timestamp_is_decimal_seconds_even_where_it_is_signed(timestamp: str) -> None:
    assert "Webhook refused" in refusal(headers_of(timestamp=timestamp))


GOOD = headers_of()
FITTING = GOOD["X-dryAPI-Signature"]
SIGNATURES = [
    FITTING.upper(),
    FITTING.replace("sha256=", "SHA256="),
    FITTING.removeprefix("sha256="),
    FITTING.replace("sha256=", "sha1="),
    FITTING[:-1],
    FITTING + "0",
    FITTING + ", " + FITTING,
    "sha256=",
    "=" * 71,
    "é" * 71,
    "\udcff" * 71,
    "\ud800",
    "sha256=" + "0" * 64,
    "a" * 100_000,
]


@pytest.mark.parametrize("signature", SIGNATURES, ids=range(len(SIGNATURES)))
def test_p17_any_other_signature_is_refused(signature: str) -> None:
    assert "signature is wrong" in refusal(GOOD | {"X-dryAPI-Signature": signature})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        [],
        None,
        7,
        "text",
        b"text",
        [()],
        [("a",)],
        [("a", "b", "c")],
        [None],
        {"X-dryAPI-Signature": None},
        {None: None},
        [[1, 2]],
        object(),
    ],
)
def test_p17_headers_that_are_none(headers: Any) -> None:
    assert "isn't signed" in refusal(headers)


@pytest.mark.parametrize("missing", ["X-dryAPI-Signature", "X-dryAPI-Timestamp"])
def test_p17_an_unsigned_delivery_is_refused(missing: str) -> None:
    rest = {name: value for name, value in GOOD.items() if name != missing}
    assert "isn't signed" in refusal(rest)
    assert "isn't signed" in refusal(rest | {missing: " "})
    assert "isn't signed" in refusal(rest | {missing: cast("str", None)})


def test_p17_two_values_of_one_header_are_refused() -> None:
    for name in GOOD:
        for pairs in ([*GOOD.items(), (name.lower(), "other")], [(name.upper(), "other"), *GOOD.items()]):
            assert "twice" in refusal(pairs)


@pytest.mark.parametrize(
    "body", [BODY + b" ", BODY[:-1], BODY.replace(b"j-1", b"j-2"), b"", json.dumps(json.loads(BODY), indent=1).encode()]
)
def test_p17_raw_bytes_are_signed(body: bytes) -> None:
    assert "signature is wrong" in refusal(GOOD, body)


@pytest.mark.parametrize("body", [BODY.decode(), json.loads(BODY), None])
def test_p17_a_body_that_is_no_bytes_is_told_so(body: Any) -> None:
    assert "raw bytes" in refusal(GOOD, body)


UNREADABLE = [
    b"",
    b"\xff\xfe{}",
    BODY.decode().encode("utf-16"),
    b"\xed\xa0\x80",
    b"[]",
    b"null",
    b'"text"',
    b"7",
    b"{",
    b"{}{}",
    b"{'event': 1}",
    b"{}",
    b'{"event": null}',
    b'{"event": ""}',
    b'{"event": 7, "data": {"job_request_id": "j", "status": "done"}}',
    b'{"event": "job.completed", "x": ' + b"9" * 5000 + b"}",
    b'{"event": "job.completed", "data": ' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}",
    b'{"event": "job.completed", "data": ' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"event": "job.completed", "data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    b"[" * 200_000,
]


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_p17_a_signed_body_that_says_nothing_is_refused(body: bytes) -> None:
    assert "its body" in refusal(headers_of(body), body)


def test_p17_the_unsigned_headers_decide_nothing() -> None:
    """Of the same delivery sent again with another id, event or type, nothing is believed."""
    forged = GOOD | {"X-dryAPI-Delivery-Id": "d-2", "X-dryAPI-Event": "job.failed", "Content-Type": "text/html"}
    assert verify(forged, BODY, SECRET, NOW) == verify(GOOD, BODY, SECRET, NOW)
    nameless = write(delivery_id=None, job_request_id="j")
    ids = {verify(headers_of(nameless) | {"X-dryAPI-Delivery-Id": each}, nameless, SECRET, NOW).delivery_id for each in "ab"}
    assert ids == {hashlib.sha256(nameless).hexdigest()}


@pytest.mark.parametrize("delivery_id", [None, "", [], {}, True, 1.5, "x" * 256, "a\nb", "\ud800", "\x00"])
def test_a_delivery_without_a_usable_id_is_named_by_its_body(delivery_id: Any) -> None:
    body = write(delivery_id=delivery_id)
    assert read(body).delivery_id == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("request_id", [None, "", [], {}, False, "x" * 256, "a\nb", "\ud800"])
def test_without_a_usable_job_there_is_no_news(request_id: Any) -> None:
    event = read(write(job_request_id=request_id, status="done"))
    assert (event.request_id, event.update) == (None, None)


@pytest.mark.parametrize(
    ("event", "status", "state"),
    [
        ("job.completed", "done", "done"),
        ("job.completed", "something new", "done"),
        ("job.completed", None, "done"),
        ("job.completed", ["done"], "done"),
        ("job.processing", "done", "processing"),
        ("job.processing", "IN_PROGRESS", "processing"),
        ("job.failed", "TIMED_OUT", "error"),
        ("job.failed", 7, "error"),
        ("job.cancelled", "CANCELLED", "error"),
        ("job.updated", "COMPLETED", "done"),
        ("job.updated", "something new", "processing"),
        ("job.updated", None, None),
    ],
)
def test_the_event_decides_the_state_where_it_is_known(event: str, status: Any, state: str | None) -> None:
    update = read(write(event=event, job_request_id="j", status=status)).update
    assert (update and update.state) == state


def test_what_a_delivery_says_is_kept() -> None:
    event = read(write(job_request_id="j", status="done", previous_status="processing", data={"status": "error"}, processing_time_ms=4))
    assert event.update is not None
    assert (event.update.state, event.update.extra["processing_time_ms"], event.data["previous_status"]) == (JobState.DONE, 4, "processing")
    assert read(b'{"event": "job.completed", "data": {"job_request_id": "j", "progress": NaN}}').data["progress"] is None
    assert "X-Amz" not in repr(read(write(job_request_id="j", result_url="https://r.example/?X-Amz-Signature=1")))


@pytest.mark.parametrize(
    ("timestamp", "sent_at"),
    [
        ("2026-03-20T09:46:40.000Z", NOW),
        ("2026-03-20T09:46:40+00:00", NOW),
        ("2026-03-20T11:46:40.500+02:00", NOW + 0.5),
        ("2026-03-20T09:46:40", NOW),
        (1_774_000_000, NOW),
        (1_774_000_000.25, NOW + 0.25),
        ("0001-01-01T00:00:00+23:59", -62135683140.0),
        ("soon", None),
        ("", None),
        (None, None),
        (True, None),
        ([], None),
        (10**400, None),
        ("9" * 1000, None),
    ],
)
def test_when_it_was_sent(timestamp: Any, sent_at: float | None) -> None:
    assert read(write(timestamp=timestamp)).sent_at == sent_at


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"Infinity", b"NaN"])
def test_a_time_is_finite(number: bytes) -> None:
    assert read(b'{"event": "job.updated", "timestamp": ' + number + b"}").sent_at is None


def test_p17_every_secret_is_compared_in_constant_time() -> None:
    compared: list[int] = []

    def watch(frame: object, happened: str, function: object) -> None:
        if happened == "c_call" and function is hmac.compare_digest:
            compared.append(1)

    sys.setprofile(watch)
    try:
        verify(GOOD, BODY, [SECRET, "second", "third"], NOW)
    finally:
        sys.setprofile(None)
    assert len(compared) == 3
