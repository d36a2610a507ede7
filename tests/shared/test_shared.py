"""The plain part of what processes share: the options, the rule for an outage, what news looks like."""

import json
import subprocess
import sys
from typing import Any

import pytest

from dryapi_async import Client, ConfigurationError
from dryapi_async.io.shared_news import read_news, write_news
from dryapi_async.protocol.signature import WebhookEvent
from dryapi_async.protocol.status import JobState, Update
from dryapi_async.shared import RedisState, share_of


@pytest.mark.parametrize(
    ("limit", "seconds", "processes", "share"),
    [
        (50, 2.0, 8, (6, 2.0)),
        (300, 60.0, 8, (37, 60.0)),
        (8, 60.0, 8, (1, 60.0)),
        (300, 60.0, 1, (300, 60.0)),
        (1, 60.0, 1, (1, 60.0)),
        # Fewer than processes: each less often, not none.
        (3, 60.0, 8, (1, 160.0)),
        (1, 60.0, 8, (1, 480.0)),
        (15, 86_400.0, 16, (1, 92_160.0)),
    ],
)
def test_each_process_keeps_to_its_part(limit: int, seconds: float, processes: int, share: tuple[int, float]) -> None:
    found = share_of(limit, seconds, processes)
    assert found == share
    assert processes * found[0] / found[1] <= limit / seconds * (1 + 1e-9)


@pytest.mark.parametrize(
    "given",
    ["", "http://127.0.0.1", "redis:", "a-secret-password", 7, object(), "redis://:a-secret-password@[::1"],
)
def test_what_is_no_store_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="shared must be") as caught:
        Client("key", shared=given)
    assert "a-secret-password" not in str(caught.value)


@pytest.mark.parametrize("options", [{"processes": 0}, {"processes": True}, {"connections": 0}, {"when_away": "hope"}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"RedisState\.{next(iter(options))} must be"):
        RedisState("redis://127.0.0.1", **options)


def test_the_password_is_in_no_repr() -> None:
    client = Client("key", shared="rediss://user:a-secret-password@example.org:6380/3?ssl_cert_reqs=none")
    assert "a-secret-password" not in repr(client.settings)
    assert "rediss://example.org:6380/3" in repr(client.settings)


def test_redis_is_imported_only_by_who_opens_it() -> None:
    code = (
        "import sys, dryapi_async; client = dryapi_async.Client('key', shared='redis://127.0.0.1:9'); "
        "print('redis' in sys.modules, 'dryapi_async.shared.redis' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["False", "False"], "")


def test_news_come_back_as_they_were_but_for_previews() -> None:
    update = Update(
        state=JobState.DONE,
        word="done",
        progress=100.0,
        url="https://x/y",
        alternatives={"jpg": "https://x/z"},
        source="webhook",
        preview="A",
    )
    found = read_news(write_news(WebhookEvent(event="job.completed", delivery_id="1", request_id="2", update=update), "me"))
    assert found is not None
    assert found[:2] == ("me", "2")
    assert found[2] == Update(
        state=JobState.DONE, word="done", progress=100.0, url="https://x/y", alternatives={"jpg": "https://x/z"}, source="webhook"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"update": {"state": "done"}}',
        json.dumps({"origin": "a", "request_id": "b", "update": {"state": "?"}}).encode(),
    ],
)
def test_other_things_are_no_news(content: bytes) -> None:
    assert read_news(content) is None


def test_news_of_a_later_version_are_read_as_far_as_they_are_known() -> None:
    body = {"origin": "a", "request_id": "b", "update": {"state": "error", "word": "failed", "new": 1}}
    found = read_news(json.dumps(body).encode())
    assert found is not None
    assert found[2].state is JobState.ERROR
