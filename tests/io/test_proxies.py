"""Which proxy a request takes."""

import pytest
from yarl import URL

from dryapi_async.io.proxies import Proxies

API, STORAGE = URL("https://api.example/x"), URL("http://storage.example/y")


def test_without_any_there_is_none() -> None:
    assert Proxies(None).find(API) is None
    assert list(Proxies(None).urls) == []


def test_the_environments_are_found_by_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:1")
    monkeypatch.setenv("all_proxy", "http://rest:2")
    monkeypatch.setenv("no_proxy", "storage.example")
    proxies = Proxies(None)
    assert proxies.find(API) == "http://secure:1"
    assert proxies.find(STORAGE) is None
    assert proxies.find(URL("http://other.example")) == "http://rest:2"


def test_an_exception_may_name_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://plain:1")
    monkeypatch.setenv("no_proxy", "local.example:8000")
    proxies = Proxies(None)
    assert proxies.find(URL("http://local.example:8000")) is None
    assert proxies.find(URL("http://local.example:8001")) == proxies.find(URL("http://local.example")) == "http://plain:1"


def test_the_users_own_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:1")
    monkeypatch.setenv("no_proxy", "*")
    proxies = Proxies("http://mine:3")
    assert proxies.find(API) == proxies.find(STORAGE) == "http://mine:3"
    assert list(proxies.urls) == ["http://mine:3"]


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = Proxies(None)
    monkeypatch.setenv("HTTPS_PROXY", "http://late:1")
    assert proxies.find(API) is None
