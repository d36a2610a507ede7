"""Which proxy a request takes."""

import pytest
from yarl import URL

from dryapi_async import ConfigurationError
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


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("//proxy.example:3128", "http://proxy.example:3128"),
        ("fox:s@now@proxy.example:3128", "http://fox:s@now@proxy.example:3128"),
        ("[::1]:3128", "http://[::1]:3128"),
        ("proxy.example", "http://proxy.example"),
        ("HTTPS://proxy.example", "HTTPS://proxy.example"),
        (" http://proxy.example:1 ", "http://proxy.example:1"),
    ],
)
def test_the_environment_may_leave_the_scheme_out(given: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", given)
    proxies = Proxies(None)
    assert (proxies.find(API), list(proxies.urls)) == (taken, [taken])


UNUSABLE = [
    "socks5://fox:snow@proxy.example:1080",
    "socks5h://fox:snow@proxy.example",
    "http://fox:snow@proxy.example:99999",
    "http://fox:snow@proxy.example:0",
    "http://fox:snow@[proxy.example",
    "fox:snow@proxy.example:port",
    "http://fox:snow@",
    "fox snow",
    " ",
]


@pytest.mark.parametrize("given", UNUSABLE)
@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"])
def test_a_proxy_that_cant_be_used_is_named_by_its_variable_alone(variable: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, given)
    proxies = Proxies(None)
    with pytest.raises(ConfigurationError, match=rf"environment's {variable} is no address.+Unset it.+Client\(proxy=\.\.\.\)") as caught:
        proxies.find(API)
    assert not any(word in str(caught.value) for word in ("fox", "snow", "proxy.example", "1080"))
    assert list(proxies.urls) == [], "nor is its host one that the user named"


@pytest.mark.parametrize("given", UNUSABLE)
def test_a_proxy_that_cant_be_used_harms_no_address_that_doesnt_need_it(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", given)
    monkeypatch.setenv("FTP_PROXY", given)
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:1")
    proxies = Proxies(None)
    assert proxies.find(API) == "http://secure:1"
    with pytest.raises(ConfigurationError, match="ALL_PROXY"):
        proxies.find(STORAGE)
    monkeypatch.setenv("no_proxy", "storage.example")
    assert Proxies(None).find(STORAGE) is None
    assert Proxies("http://mine:3").find(STORAGE) == "http://mine:3"


def test_what_is_excepted_is_no_proxys_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://plain:1")
    monkeypatch.setenv("no_proxy", "local.example")
    assert list(Proxies(None).urls) == ["http://plain:1"]
