"""P18, P35: which addresses may be asked for a result, and how they are shown: the rules as tables and properties."""

import sys
import time
from urllib.parse import urlsplit

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from dryapi_async import ConfigurationError, DownloadError, Settings
from dryapi_async.protocol.links import LinkRules, _judge_origin, check_link, follow, is_private, mask

pytestmark = pytest.mark.anyio
PUBLIC = LinkRules(local=False, hosts=())
NAMED = LinkRules(local=False, hosts=("storage.lan", "10.0.0.7", "::1"))
LOCAL = LinkRules(local=True, hosts=())
PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104  it is refused
    "0.1.2.3",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456:789a::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:a00:1",
    # Addresses that carry another one, which a gateway on the way would take out.
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:a00:1::",
    "fec0::1",
    "feff:ffff::1",
    "::ffff:0:10.0.0.1",
    "::ffff:0:8.8.8.8",
    "3fff::1",
    "3fff:fff:ffff::1",
    "5f00::1",
    "5f00:ffff::1",
]
GLOBAL = ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "192.167.1.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]


def url_of(address: str, scheme: str = "https") -> str:
    return f"{scheme}://[{address}]/a.png?s=1" if ":" in address else f"{scheme}://{address}/a.png?s=1"


@pytest.mark.parametrize("address", PRIVATE)
def test_p18_private_addresses_are_refused(address: str) -> None:
    assert is_private(address)
    for scheme in ("https", "http"):
        with pytest.raises(DownloadError, match="refused, unless Client"):
            check_link(url_of(address, scheme), PUBLIC)
    assert check_link(url_of(address, "http"), LOCAL) == url_of(address, "http")


@pytest.mark.parametrize("address", GLOBAL)
def test_p18_public_addresses_are_taken_over_https_only(address: str) -> None:
    assert not is_private(address)
    assert check_link(url_of(address), PUBLIC) == url_of(address)
    with pytest.raises(DownloadError, match="unencrypted"):
        check_link(url_of(address, "http"), PUBLIC)


@pytest.mark.parametrize(
    "url",
    [
        "https://results.deapi.ai/a/b.png?X-Amz-Signature=abc%2Fdef&x=1",
        "https://results.deapi.ai:8443/a",
        "HTTPS://RESULTS.DEAPI.AI/a",
        "https://xn--fchse-kva.example/a",
    ],
)
def test_p18_names_over_https_are_taken_as_they_are(url: str) -> None:
    assert check_link(url, PUBLIC) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.png",
        "/results/a.png",
        "//results.deapi.ai/a.png",
        "https://",
        "https:///a.png",
        "https:a.png",
        "ftp://results.deapi.ai/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "https://user@results.deapi.ai/a.png",
        "https://user:word@results.deapi.ai/a.png",
        "https://@results.deapi.ai/a.png",
        "https://results.deapi.ai@127.0.0.1/a.png",
        "https://results.deapi.ai\\@127.0.0.1/a.png",
        "https://[::1/a.png",
        "https://[not an address]/a.png",
        "https://results.deapi.ai:port/a.png",
        "https://results.deapi.ai:99999/a.png",
    ],
)
@pytest.mark.parametrize("rules", [PUBLIC, NAMED, LOCAL], ids=["public", "named", "local"])
def test_p18_what_is_no_plain_address_is_refused_everywhere(url: str, rules: LinkRules) -> None:
    with pytest.raises(DownloadError, match="no plain http"):
        check_link(url, rules)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://storage.lan/a", True),
        ("http://STORAGE.lan:9000/a", True),
        ("https://10.0.0.7/a", True),
        ("http://10.0.0.7/a", True),
        ("http://[::1]/a", True),
        ("https://10.0.0.8/a", False),
        ("http://other.lan/a", False),
        ("http://storage.lan.example/a", False),
        ("http://sub.storage.lan/a", False),
        ("http://storage.lan.@127.0.0.1/a", False),
    ],
)
def test_p18_a_host_that_the_user_named_is_taken_and_no_other(url: str, taken: bool) -> None:
    if taken:
        assert check_link(url, NAMED) == url
    else:
        with pytest.raises(DownloadError):
            check_link(url, NAMED)


def test_p18_hosts_are_named_in_any_case() -> None:
    assert Settings(api_key="k", storage_hosts=("Storage.LAN",)).storage_hosts == ("storage.lan",)


@pytest.mark.parametrize(
    "given", ["minio.local:9000", "https://minio.local", "minio.local/", "//minio.local", "[::1]", "10.0.0.7:80", "[::1]:9"]
)
def test_p18_what_would_match_no_links_host_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"storage_hosts must be bare host names such as 'minio\.local'"):
        Settings(api_key="k", storage_hosts=("storage.lan", given))


@pytest.mark.parametrize("host", ["minio.local", "10.0.0.7", "::1", "fd00::7"])
def test_p18_a_named_host_is_taken_at_any_port(host: str) -> None:
    rules = LinkRules(local=False, hosts=Settings(api_key="k", storage_hosts=(host,)).storage_hosts)
    url = url_of(host, "http").replace("/a.png", ":9000/a.png")
    assert check_link(url, rules) == url


@pytest.mark.parametrize(
    ("base", "local"),
    [
        ("http://127.0.0.1:80", True),
        ("http://localhost:80", True),
        ("https://[::1]", True),
        ("http://sim.localhost", True),
        ("https://api.dryapi.dev", False),
        ("https://localhost.example.org", False),
        ("https://127.0.0.1.example.org", False),
        ("https://10.0.0.1", False),
    ],
)
def test_p18_only_a_base_url_on_this_machine_makes_all_hosts_good(base: str, local: bool) -> None:
    assert Settings(api_key="k", base_url=base).is_local is local


@pytest.mark.parametrize(
    ("url", "location", "leads"),
    [
        ("https://a.example/x/y?s=1", "z", "https://a.example/x/z"),
        ("https://a.example/x?s=1", "/z?t=2", "https://a.example/z?t=2"),
        ("https://a.example/x", "//b.example/z", "https://b.example/z"),
        ("https://a.example/x", "http://127.0.0.1/z", "http://127.0.0.1/z"),
        ("https://a.example/x", "file:///etc/passwd", "file:///etc/passwd"),
    ],
)
def test_p18_a_redirect_leads_where_it_says(url: str, location: str, leads: str) -> None:
    assert follow(url, location) == leads


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://a.example/x?X-Amz-Signature=abc&y=2 it broke", "at https://a.example/x?… it broke"),
        ("url='https://a.example/x?s=1'", "url='https://a.example/x?…'"),
        ("two: http://a/x?s=1 and http://b/y?s=2.", "two: http://a/x?… and http://b/y?…"),
        ("https://a.example/x", "https://a.example/x"),
        ("(https://a.example/x?s=1)", "(https://a.example/x?…)"),
        ("HTTPS://A.EXAMPLE/x?s=1", "HTTPS://A.EXAMPLE/x?…"),
        ("https://a.example/a b 'c'.png?s=1 it broke", "https://a.example/a b 'c'.png?… it broke"),
        (r'{"url":"https:\/\/a.example\/x?s=1"}', r'{"url":"https:\/\/a.example\/x?…"}'),
        ("https://user:word@a.example/x", "https://…@a.example/x"),
        ("https://a.example/?next=https://u:w@b.example/y&s=1", "https://a.example/?…"),
        ("no address? no", "no address? no"),
    ],
)
def test_p35_the_query_of_every_url_is_hidden(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        (" https://a.example/x ", "https://a.example/x"),
        ("https://a.example/a b?x=c d", "https://a.example/a%20b?x=c%20d"),
        ("https://a.example/\u00e9?x=%2F\u00e9", "https://a.example/%C3%A9?x=%2F%C3%A9"),
        ("https://a.example/\udcff", "https://a.example/%FF"),
    ],
)
def test_p18_what_isnt_ascii_is_encoded_and_nothing_else(url: str, sent: str) -> None:
    assert check_link(url, PUBLIC) == sent


ODD = st.text(alphabet="ab.:/\\?#@[]%1 \t\r\n\udcff\u00e9-_", max_size=14)


@given(start=st.sampled_from(["https://", "http://", "HTTPS://", " https://", "https:/", ""]), middle=ODD, end=st.text(max_size=6))
@hypothesis.settings(max_examples=500, deadline=None)
def test_p18_what_is_judged_is_what_is_dialled(start: str, middle: str, end: str) -> None:
    """Two readers of URLs that disagree about the host are the classic way around such a check."""
    try:
        taken = check_link(start + middle + end, LOCAL)
    except DownloadError:
        return
    dialled = URL(taken, encoded=True)
    assert (dialled.host or "").lower() == urlsplit((start + middle + end).strip(" ")).hostname
    assert dialled.scheme in {"http", "https"}
    assert dialled.user is None
    assert dialled.raw_path_qs.isascii()


SECRET = "S1gnatur3"
SPACELESS = st.text(st.characters(exclude_categories=["Z", "C"]), max_size=8)


@given(
    before=st.text(max_size=12),
    scheme=st.sampled_from(["https://", "HTTP://", "ftp://", "wss://", "https:\\/\\/", "https%3A%2F%2F"]),
    path=st.text(max_size=20),
    query=SPACELESS,
    after=st.text(max_size=12),
    mark=st.sampled_from(["?", "%3F", "%3f"]),
)
@hypothesis.settings(max_examples=500, deadline=None)
def test_p35_no_query_survives_whatever_stands_around(before: str, scheme: str, path: str, query: str, after: str, mark: str) -> None:
    assert SECRET not in mask(f"{before}{scheme}a.example/{path}{mark}{query}{SECRET}{after}")
    assert SECRET not in mask(f"{before}{scheme}a.example/{path}{mark}x={query} &sig={SECRET}{after}")


USER = SPACELESS.map(lambda text: text.translate({ord(one): "x" for one in "/?#"}))


@given(before=st.text(max_size=12), user=USER, after=st.text(max_size=12))
@hypothesis.settings(max_examples=300, deadline=None)
def test_p35_no_user_survives_whatever_stands_around(before: str, user: str, after: str) -> None:
    assert SECRET not in mask(f"{before}https://{user}{SECRET}@a.example/x {after}")
    assert SECRET not in mask(f"{before}https:\\/\\/{user}:{SECRET}@a.example\\/x {after}")


@pytest.mark.parametrize("start", ["https:", "https:/", "x", "https:?a=//b/"])
def test_p13_nothing_is_kept_of_a_link_that_is_none(start: str) -> None:
    """What is judged is remembered by its origin: never a whole link, which may be long, and gives access."""
    link = f"{start}{'s' * 5000}"
    before = sys.getrefcount(link)
    with pytest.raises(DownloadError):
        check_link(link, PUBLIC)
    assert sys.getrefcount(link) == before


def test_links_of_one_origin_are_judged_once() -> None:
    before = _judge_origin.cache_info().misses
    for number in range(3):
        check_link(f"https://once.example/{number}//a.png?next=https://b.example/{number}#//{number}", PUBLIC)
        check_link(f"https://once.example?sig={number}", PUBLIC)
        check_link(f"https://once.example#{number}", PUBLIC)
    assert _judge_origin.cache_info().misses == before + 1


def test_p35_long_texts_are_masked_in_linear_time() -> None:
    """Of answers that are no JSON an excerpt is shown, and they may be long: base64, or made to be slow."""
    started = time.process_time()
    for text in ("a" * 2_000_000, "x://" * 200_000, "x://" + "?" * 500_000 + ")" * 500_000, "x://" + "&" * 500_000, "x://" + "@" * 500_000):
        mask(text)
    assert time.process_time() - started < 5
