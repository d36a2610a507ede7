"""Answers in every variant become values or typed errors."""

import json
import math
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dryapi_async import DryAPIError, GoneError, InsufficientBalanceError, RateLimitError, ResponseError, StatusError, ValidationError
from dryapi_async.protocol.replies import (
    decode_json,
    next_midnight,
    read_error,
    read_field_errors,
    read_limit_kind,
    read_money,
    read_request_id,
    read_retry_after,
)

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC


def refuse(status: int, body: Any = None, **headers: str) -> StatusError:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return read_error(status, named, content, request="POST txt2img", now=NOW)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("Mon, 21 Sep 2026 14:13:50 GMT", 30.0),
        ("Mon, 21 Sep 2026 14:13:00 GMT", 0.0),
        ("Mon, 21 Sep 2026 16:13:50 +0200", 30.0),
        ("Mon, 21 Sep 2026 14:13:50 +9999", None),
        ("Mon, 21 Sep 2026 14:13:50 -0000", 30.0),
        ("Mon, 21 Sep 2026 14:13:50 NOWHERE", 30.0),
        ("Mon, 21 Sep 2026 14:13:50", 30.0),
        ("Mon, 21 Sep 99999 14:13:50 GMT", None),
        ("junk", None),
        ("-5", None),
        ("86400", 86400.0),
        ("inf", None),
        ("nan", None),
        ("9" * 400, None),
        ("", None),
        ("   ", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_p08_retry_after_in_every_form(given: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine in another zone: what a date says doesn't hang on where it is read.
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert read_retry_after({"retry-after": given}, now=NOW) == seconds
        assert read_retry_after({"retry-after": given}, {"retry_after": 7}, now=NOW) == (7.0 if seconds is None else seconds)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(2, 2.0), ("7", 7.0), (1.5, 1.5), (0, 0.0), (-5, None), ("junk", None), (True, None), (None, None), ([2], None), (10**400, None)],
    ids=lambda value: str(value)[:10],
)
def test_p08_retry_after_in_the_body(given: Any, seconds: float | None) -> None:
    assert read_retry_after({}, {"retry_after": given}, now=NOW) == seconds


@given(st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,9} [0-9:]{1,9} [A-Z+-][0-9A-Z]{0,5}"))
def test_p08_whatever_retry_after_says_it_is_seconds_or_nothing(given: str) -> None:
    seconds = read_retry_after({"retry-after": given}, now=NOW)
    assert seconds is None or 0 <= seconds < math.inf


def test_p08_the_header_goes_before_the_body() -> None:
    assert read_retry_after({"retry-after": "3"}, {"retry_after": 7}, now=NOW) == 3.0


@pytest.mark.parametrize(
    ("headers", "body", "kind"),
    [
        ({"x-ratelimit-type": "daily"}, None, "daily"),
        ({"x-ratelimit-type": "Minute", "x-ratelimit-daily-remaining": "0"}, None, "minute"),
        ({}, {"exceeded": "daily"}, "daily"),
        ({}, {"exceeded": "minute"}, "minute"),
        ({"x-ratelimit-daily-remaining": "0"}, None, "daily"),
        ({"retry-after": "86400"}, None, "daily"),
        ({"retry-after": "60"}, None, "minute"),
        ({}, [], "minute"),
    ],
)
def test_which_limit_a_429_is_about(headers: dict[str, str], body: Any, kind: str) -> None:
    assert read_limit_kind(headers, body, now=NOW) == kind


def test_the_day_ends_at_midnight_utc() -> None:
    assert next_midnight(NOW) == 1_790_035_200.0
    error = refuse(429, {"exceeded": "daily"})
    assert isinstance(error, RateLimitError)
    assert (error.kind, error.retry_after, error.resets_at) == ("daily", None, 1_790_035_200.0)


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"errors": {"width": ["a", "b"]}}, {"width": ("a", "b")}),
        ({"errors": {"width": "a"}}, {"width": ("a",)}),
        ({"errors": [{"field": "width", "messages": ["a"]}, {"field": "width", "messages": ["b"]}]}, {"width": ("a", "b")}),
        ({"errors": ["a", None, 3]}, {"request": ("a",)}),
        ({"errors": [None]}, {}),
        ({"errors": []}, {}),
        ({"errors": None}, {}),
        ({}, {}),
        ([], {}),
        ("text", {}),
    ],
)
def test_field_errors_in_every_shape(body: Any, errors: dict[str, tuple[str, ...]]) -> None:
    assert read_field_errors(body) == errors


@pytest.mark.parametrize(
    "body",
    [
        {"message": "Not enough balance.", "errors": {"balance": ["Not enough balance."]}},
        {"message": "insufficient GHX balance"},
        {"error": {"code": "x", "message": "Insufficient credits"}},
    ],
)
def test_a_poor_account(body: Any) -> None:
    assert isinstance(refuse(422, body), InsufficientBalanceError)


def test_words_about_balance_elsewhere_are_no_poor_account() -> None:
    assert type(refuse(422, {"message": "The white balance field is required.", "errors": {"white_balance": ["x"]}})) is ValidationError


def test_the_order_of_messages() -> None:
    assert refuse(500, {"message": "m", "error": "e", "errors": {"a": ["f"]}}).message == "m"
    assert refuse(500, {"error": {"message": "e"}, "errors": {"a": ["f"]}}).message == "e"
    assert refuse(500, {"error": "e", "errors": {"a": ["f"]}}).message == "e"
    assert refuse(500, {"errors": {"a": ["f"]}}).message == "f"
    assert refuse(503).message == "Service Unavailable"
    assert refuse(599).message == "no reason given"


def test_a_refused_model_points_at_the_list() -> None:
    for field in ("model", "loras", "loras.0.name"):
        assert "client.models()" in str(refuse(422, {"message": "m", "errors": {field: ["unknown"]}}))


def test_a_field_is_named_though_its_words_are_the_message() -> None:
    said = "This value is required."
    error = refuse(422, {"message": said, "errors": {"width": [said]}})
    assert str(error).startswith("POST txt2img was refused with 422: width: This value is required. Mend the named fields")
    assert "width: This" in str(refuse(422, {"errors": {"width": [said]}}))
    assert "width, height: This" in str(refuse(422, {"message": said, "errors": {"width": [said], "height": [said]}}))
    assert "422: This value" in str(refuse(422, {"message": said, "errors": [said]}))
    assert "422: Two. width: One; height: Three" in str(refuse(422, {"message": "Two.", "errors": {"width": ["One"], "height": ["Three"]}}))


def test_p26_the_services_words_are_one_line_of_bounded_length() -> None:
    long = "lines\r\nof a page\u2028that goes on, " * 100_000
    error = refuse(422, {"message": long, "errors": {f"field {number}\n": [long, "and\nmore"] for number in range(50)}})
    assert len(str(error).splitlines()) == 1
    assert "lines of a page that goes on" in str(error)
    assert 1000 < len(str(error)) < 1200
    assert str(error).endswith("nothing was billed.")
    assert error.message == long
    assert len(error.errors) == 50


def test_p26_what_steers_a_terminal_is_shown_as_nothing() -> None:
    error = refuse(500, b'{"message": "\\u001b[2Jgone\\ud800\\u0007"}')
    assert "\ufffd[2Jgone\ufffd\ufffd" in str(error)
    assert str(error).encode().decode() == str(error)


def test_p26_a_retired_operation_names_its_successor() -> None:
    error = refuse(410, {"message": "Gone."}, link='<https://api.example.org/api/v2/prompts>; rel="successor-version"')
    assert isinstance(error, GoneError)
    assert error.successor == "https://api.example.org/api/v2/prompts"
    assert str(error).endswith("Its successor is https://api.example.org/api/v2/prompts.")
    assert "successor" not in str(refuse(410, {"message": "Gone."}))


def test_p35_signed_links_in_a_refusal_are_masked() -> None:
    link = "https://storage.example.org/a.png?X-Amz-Signature=stolen"
    error = refuse(422, {"message": f"No {link}", "errors": {"image": [f"bad {link}"]}}, location=link, set_cookie="session=stolen")
    assert "storage.example.org" in str(error)
    assert "stolen" not in str(error) + repr(vars(error))


@given(
    st.integers(400, 599), st.binary(max_size=300) | st.sampled_from([b"[" * 200_000, b"[" * 300 + b"]" * 300, b"<html>", b"x" * 1_000_000])
)
def test_any_refusal_with_any_body_is_a_typed_error(status: int, content: bytes) -> None:
    error = read_error(status, {}, content, request="GET balance", now=NOW)
    assert isinstance(error, StatusError)
    assert error.status == status
    assert len(str(error)) < 1300
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"  ", b"<html>hi</html>", b"{", b"\xff\xfe\x00", b"[" * 200_000, b"[" * 150 + b"]" * 150, b'{"a":' * 120 + b"1" + b"}" * 120],
)
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(ResponseError):
        decode_json(content)


def test_long_flat_answers_are_no_deep_ones() -> None:
    rows = [[0.5, 1.0]] * 5000
    assert decode_json(json.dumps({"data": rows}).encode()) == {"data": rows}


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**6))
def test_money_is_exact(amount: Decimal) -> None:
    text = format(amount, "f")
    for body in (f'{{"data":{{"price":{text}}}}}', f'{{"price":"{text}"}}', f'{{"data":{{"estimated_price":{text}}}}}'):
        assert read_money(decode_json(body.encode(), exact=True), "price", "estimated_price") == amount


@pytest.mark.parametrize(
    "body", [{}, [], None, {"data": {"price": None}}, {"data": {"request_id": "x"}}, {"price": True}, {"price": "NaN"}, {"price": "x"}]
)
def test_no_money_is_an_error(body: Any) -> None:
    with pytest.raises(ResponseError):
        read_money(body, "price")


@pytest.mark.parametrize(
    ("body", "found"), [({"data": {"request_id": 12345}}, "12345"), ({"request_id": "a"}, "a"), ({"data": {"request_id": 0}}, "0")]
)
def test_ids(body: Any, found: str) -> None:
    assert read_request_id(body) == found


@pytest.mark.parametrize(
    "body", [{}, {"data": {}}, {"data": {"request_id": None}}, {"data": {"request_id": True}}, {"data": {"request_id": ""}}, []]
)
def test_no_id_is_an_error(body: Any) -> None:
    with pytest.raises(DryAPIError):
        read_request_id(body)
