"""The push channel's words, without a socket: frames, addresses, and what comes after a connection."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dryapi_async import ConfigurationError, JobState
from dryapi_async.protocol.pusher import (
    BACKOFF_CAP,
    MOST_REFUSALS,
    STEADY_SECONDS,
    Ended,
    Established,
    Grant,
    JobNews,
    Ping,
    Pong,
    Reconnect,
    Reconnection,
    Stop,
    Subscribed,
    SubscriptionFailed,
    Trouble,
    backoff,
    channel_name,
    make_ping,
    make_pong,
    make_subscribe,
    push_url,
    read_authorisation,
    read_frame,
)

CHANNEL = "private-client.1001"
JOB = {"request_id": "a1", "status": "in_progress", "progress": "45.50", "preview": "data:image/png;base64,iVBO"}


def frame(event: object, data: object = None, **more: object) -> str:
    return json.dumps({"event": event, "data": data, **more})


def read(event: object, data: object = None, **more: object) -> Any:
    return read_frame(frame(event, data, **more), CHANNEL)


@pytest.mark.parametrize("event", ["request.status.updated", ".request.status.updated"])
@pytest.mark.parametrize("data", [JOB, json.dumps(JOB), {"data": JOB}, json.dumps(JOB).replace("/", "\\/")])
def test_p22_job_events_are_read_in_all_their_spellings(event: str, data: object) -> None:
    news = read(event, data, channel=CHANNEL)
    assert isinstance(news, JobNews)
    assert news.request_id == "a1"
    update = news.update
    assert (update.state, update.word, update.progress, update.source) == (JobState.PROCESSING, "in_progress", 45.5, "push")
    assert update.preview == "data:image/png;base64,iVBO"
    assert update.extra == {}


def test_p22_a_done_job_brings_its_link() -> None:
    news = read(
        "request.status.updated", {"request_id": 17, "status": "done", "result_url": "https://a.example/r.png?s=1", "progress": "100.00"}
    )
    assert (news.request_id, news.update.state, news.update.url) == ("17", JobState.DONE, "https://a.example/r.png?s=1")


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "x",
        [],
        {},
        {"status": "done"},
        {"request_id": "a"},
        {"request_id": "", "status": "done"},
        {"request_id": True, "status": "done"},
    ],
)
def test_p22_job_events_without_id_or_word_say_nothing(data: object) -> None:
    assert read("request.status.updated", data) is None
    assert read("request.status.updated", json.dumps(data)) is None


def test_events_of_other_channels_and_unknown_ones_say_nothing() -> None:
    assert read("request.status.updated", JOB, channel="private-client.2") is None
    assert read("request.status.updated", JOB, channel=["private-client.1001"]) is None
    assert read("balance.updated", JOB, channel=CHANNEL) is None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (10, 10.0),
        (30, 30.0),
        (120, 30.0),
        ("20", 20.0),
        (None, 30.0),
        (0, 30.0),
        (-5, 30.0),
        (True, 30.0),
        ("soon", 30.0),
        (1e999, 30.0),
        ([], 30.0),
    ],
)
def test_first_words_say_who_we_are_and_how_long_silence_may_last(given: object, seconds: float) -> None:
    data = {"socket_id": "1.2", "activity_timeout": given}
    assert read("pusher:connection_established", json.dumps(data)) == Established(socket_id="1.2", ping_seconds=seconds)
    assert read("pusher:connection_established", data) == Established(socket_id="1.2", ping_seconds=seconds)


@pytest.mark.parametrize("data", [None, "{", {}, {"socket_id": 5}, {"socket_id": ""}])
def test_first_words_without_an_id_say_nothing(data: object) -> None:
    assert read("pusher:connection_established", data) is None


def test_pings_and_what_we_say() -> None:
    assert read("pusher:ping", "{}") == Ping()
    assert read("pusher:pong") == Pong()
    assert json.loads(make_ping()) == {"event": "pusher:ping", "data": {}}
    assert json.loads(make_pong()) == {"event": "pusher:pong", "data": {}}
    assert json.loads(make_subscribe(CHANNEL, Grant(auth="k:s"))) == {
        "event": "pusher:subscribe",
        "data": {"channel": CHANNEL, "auth": "k:s"},
    }
    assert json.loads(make_subscribe(CHANNEL, Grant(auth="k:s", channel_data="{}")))["data"]["channel_data"] == "{}"
    assert "k:s" not in repr(Grant(auth="k:s"))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"code": 4001, "message": "no app"}, 4001),
        ({"code": "4200"}, 4200),
        ({"code": 4299.0}, 4299),
        ({"code": 4301}, None),
        ({"code": None}, None),
        ("x", None),
    ],
)
def test_only_codes_that_close_are_trouble(data: object, code: int | None) -> None:
    found = read("pusher:error", data)
    assert (found.code if isinstance(found, Trouble) else found) == code


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        ({"type": "AuthError", "error": "The connection is unauthorized.", "status": 401}, True),
        ({"type": "AuthError", "status": 500}, True),
        (403, True),
        (None, True),
        ({"type": "LimitReached", "error": "too many", "status": 4100}, False),
        ({"status": 503}, False),
    ],
)
def test_a_subscription_may_be_refused_or_fail(data: object, refused: bool) -> None:
    found = read("pusher:subscription_error", data, channel=CHANNEL)
    assert isinstance(found, SubscriptionFailed)
    assert found.refused is refused
    assert read("pusher_internal:subscription_succeeded", "{}", channel=CHANNEL) == Subscribed()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["done", "4001", "{}", "[1]", '"x"', "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["event", "data", "channel", "request_id", "status", "progress", "code", "socket_id", "activity_timeout", "error"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
events = st.sampled_from(
    [
        "request.status.updated",
        ".request.status.updated",
        "pusher:error",
        "pusher:connection_established",
        "pusher:subscription_error",
        "pusher:ping",
        "..",
    ]
)


@given(anything, events, st.sampled_from([None, CHANNEL, "news", [CHANNEL], {}]))
def test_p22_no_message_raises(data: object, event: str, channel: object) -> None:
    for one in (data, json.dumps(data)):
        read_frame(json.dumps({"event": event, "data": one, "channel": channel}), CHANNEL)
    read_frame(json.dumps(data), CHANNEL)


@given(st.text(st.characters(codec=None)))
def test_p22_no_text_raises(text: str) -> None:
    assert read_frame(text, CHANNEL) is None
    assert isinstance(authorise(200, text.encode(errors="surrogatepass")), Ended)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"event": "request.status.updated", "data": "\\ud800"}',
        "[" * 100_000,
        '{"event":' * 50_000,
        "9" * 10_000,
        '{"event":"request.status.updated","data":"' + "[" * 9000 + '"}',
    ],
)
def test_p22_hostile_texts_say_nothing(text: str) -> None:
    assert read_frame(text, CHANNEL) is None


def authorise(status: int, body: bytes, **headers: str) -> Grant | Ended:
    return read_authorisation(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, now=0.0)


@pytest.mark.parametrize(
    ("body", "grant"),
    [
        (b'{"auth": "k:s"}', Grant(auth="k:s")),
        (b'{"auth": "k:s", "channel_data": "{}"}', Grant(auth="k:s", channel_data="{}")),
        (b'{"data": {"auth": "k:s"}}', Grant(auth="k:s")),
    ],
)
def test_the_signature_is_found(body: bytes, grant: Grant) -> None:
    assert authorise(200, body) == grant
    assert isinstance(authorise(403, body), Ended)


@pytest.mark.parametrize("body", [b"<html>", b"true", b'{"auth": 5}', b'{"auth": ""}', b"", b"\xff", b"[" * 5000])
def test_an_answer_without_a_signature_is_no_refusal(body: bytes) -> None:
    assert authorise(200, body) == Ended(why="the authorisation was answered 200")


@pytest.mark.parametrize(
    ("status", "refused"),
    [(401, True), (403, True), (404, True), (422, True), (408, False), (425, False), (429, False), (500, False), (302, False)],
)
def test_only_what_lasts_is_a_refusal(status: int, refused: bool) -> None:
    ended = authorise(status, b"<html>")
    assert isinstance(ended, Ended)
    assert ended.refused is refused


def test_p8_the_authorisation_keeps_to_retry_after() -> None:
    told = [
        authorise(429, b""),
        authorise(429, b"{}", retry_after="7"),
        authorise(429, b'{"retry_after": 9}'),
        authorise(503, b"", retry_after="5"),
        authorise(429, b"", retry_after="junk"),
        authorise(503, b""),
    ]
    assert [one.asked for one in told if isinstance(one, Ended)] == [60.0, 7.0, 9.0, 5.0, 60.0, None]


def where(base_url: str, given: str | None = None, *, allow_http: bool = False) -> str:
    address, _, query = push_url(base_url, given, allow_http=allow_http).partition("?")
    assert "protocol=7" in query.split("&")
    return address


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("https://api.dryapi.dev", "wss://soketi.dryapi.dev:443/app/depin-api-prod-key"),
        ("https://api.deapi.ai", "wss://soketi.deapi.ai:443/app/depin-api-prod-key"),
        ("https://API.deapi.ai:443", "wss://soketi.deapi.ai:443/app/depin-api-prod-key"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/app/depin-api-prod-key"),
        ("https://[::1]:8443/behind", "wss://[::1]:8443/app/depin-api-prod-key"),
        ("https://api.deapi.ai.example", "wss://api.deapi.ai.example/app/depin-api-prod-key"),
    ],
)
def test_the_address_follows_the_api(base_url: str, address: str) -> None:
    assert where(base_url) == address


def test_a_whole_address_overrides() -> None:
    assert where("https://api.deapi.ai", " wss://push.example:6001/app/other-key ") == "wss://push.example:6001/app/other-key"
    assert push_url("https://api.deapi.ai", "wss://push.example/app/k?protocol=7&flash=false&client=mine&version=1") == (
        "wss://push.example/app/k?protocol=7&flash=false&client=mine&version=1"
    )
    assert "flash=false&protocol=7" in push_url("https://api.deapi.ai", "wss://push.example/app/k?flash=false")
    assert where("https://api.deapi.ai", "ws://localhost:6001/app/k") == "ws://localhost:6001/app/k"
    assert where("https://api.deapi.ai", "ws://push.example/app/k", allow_http=True) == "ws://push.example/app/k"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "push.example",
        "https://push.example/app/k",
        "wss:///app/k",
        "wss://push.example",
        "wss://u:p@push.example/app/k",
        "ws://push.example/app/k",
        "wss://[x/app/k",
        "wss://h:99999/app/k",
    ],
)
def test_no_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="push_url"):
        push_url("https://api.deapi.ai", given)


def test_the_channel_is_the_accounts() -> None:
    assert channel_name("1001") == CHANNEL
    for wrong in ("", "a b", "a/b", "x" * 200, "1\n"):
        with pytest.raises(ConfigurationError, match="client_id"):
            channel_name(wrong)


CHANCES = st.floats(0, 1, exclude_max=True)


@given(st.integers(4000, 4099), CHANCES)
def test_p22_4000_to_4099_stop(code: int, chance: float) -> None:
    step = Reconnection().after(Ended(why="no app", code=code), chance=chance)
    assert isinstance(step, Stop)
    assert f"{code} (no app)" in step.reason


@given(st.integers(4100, 4199), CHANCES, st.integers(1, 40))
def test_p22_4100_to_4199_back_off_by_a_second_or_more(code: int, chance: float, times: int) -> None:
    reconnection = Reconnection()
    for _ in range(times):
        step = reconnection.after(Ended(why="", code=code), chance=chance)
        assert isinstance(step, Reconnect)
        assert 1.0 <= step.seconds <= 1.0 + BACKOFF_CAP


@given(st.integers(4200, 4299), CHANCES)
def test_p22_4200_to_4299_come_back_at_once_but_not_in_a_row(code: int, chance: float) -> None:
    reconnection = Reconnection()
    ended = Ended(why="", code=code, lived=1.0)
    assert reconnection.after(ended, chance=chance) == Reconnect(0.0)
    assert [reconnection.after(ended, chance=0.5) for _ in range(3)] == [Reconnect(1.0), Reconnect(2.0), Reconnect(4.0)]
    assert reconnection.after(Ended(why="", code=code, lived=STEADY_SECONDS), chance=chance) == Reconnect(0.0)


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1009, 3999, 4300, 4999])
def test_p22_all_else_backs_off_with_full_jitter_and_a_cap(code: int | None) -> None:
    reconnection = Reconnection()
    steps = [reconnection.after(Ended(why="", code=code), chance=0.5) for _ in range(40)]
    assert steps[:6] == [Reconnect(seconds) for seconds in (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)]
    assert steps[-1] == Reconnect(0.5 * BACKOFF_CAP)
    assert Reconnection().after(Ended(why="", code=code), chance=0.0) == Reconnect(0.0)


@given(st.integers(1, 10_000), CHANCES)
def test_p22_no_pause_is_over_the_cap(failures: int, chance: float) -> None:
    assert 0.0 <= backoff(failures, chance) <= BACKOFF_CAP


def test_p22_refusals_end_it_after_some_in_a_row() -> None:
    reconnection = Reconnection()
    refused = Ended(why="the authorisation was answered 403", refused=True)
    steps = [reconnection.after(refused, chance=0.5) for _ in range(MOST_REFUSALS - 1)]
    assert all(isinstance(step, Reconnect) for step in steps)
    assert isinstance(reconnection.after(Ended(why="away"), chance=0.5), Reconnect)
    step = reconnection.after(refused, chance=0.5)
    assert isinstance(step, Stop)
    assert "403" in step.reason
    assert "client_id" in step.reason


def test_p22_a_subscription_forgets_refusals() -> None:
    reconnection = Reconnection(failures=5, refusals=MOST_REFUSALS - 1)
    assert isinstance(reconnection.after(Ended(why="", lived=0.5), chance=0.5), Reconnect)
    assert isinstance(reconnection.after(Ended(why="", refused=True), chance=0.5), Reconnect)


@given(CHANCES, st.integers(0, 20))
def test_p8_retry_after_is_never_early_and_spread(chance: float, failures: int) -> None:
    step = Reconnection(failures=failures).after(Ended(why="", asked=40.0), chance=chance)
    assert step == Reconnect(40.0 + chance * 4.25)
    assert Reconnection(failures=9).after(Ended(why="", asked=2.0), chance=0.5) == Reconnect(15.0)
