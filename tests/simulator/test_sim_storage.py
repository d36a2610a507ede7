"""The storage host: signed links that expire, ranges, validators."""

from uuid import UUID

import aiohttp
import pytest
from yarl import URL

from dryapi_async.simulator import Simulator
from dryapi_async.simulator.blobs import PaddedBlob

from .conftest import Talk, open_talk

pytestmark = pytest.mark.anyio


async def make_link(talk: Talk) -> str:
    link: str = (await talk.status(await talk.submit()))["result_url"]
    return link


async def test_a_link_gives_the_file_with_type_length_and_validator(sim: Simulator, talk: Talk) -> None:
    status, data, headers = await talk.download(await make_link(talk))
    assert status == 200
    assert data.startswith(b"\x89PNG")
    assert headers["Content-Type"] == "image/png"
    assert int(headers["Content-Length"]) == len(data)
    assert headers["ETag"].startswith('"')
    [seen] = sim.storage_requests
    assert (seen.operation, seen.method, seen.status) == ("storage", "GET", 200)
    assert "Authorization" not in seen.headers
    assert sim.storage_url != sim.url


async def test_a_leaked_key_shows(sim: Simulator, talk: Talk) -> None:
    async with talk.session.get(URL(await make_link(talk), encoded=True)) as answer:
        assert answer.status == 200
    assert sim.storage_requests[-1].headers["Authorization"] == f"Bearer {sim.key}"


@pytest.mark.parametrize("spoil", ["/results/", "X-Amz-Expires=86400", "X-Amz-Date=2", "X-Amz-Signature="])
async def test_a_changed_link_is_refused(talk: Talk, spoil: str) -> None:
    link = await make_link(talk)
    changed = {"X-Amz-Signature=": "X-Amz-Signature=0", "X-Amz-Date=2": "X-Amz-Date=3", "/results/": "/results/x"}
    status, body, headers = await talk.download(link.replace(spoil, changed.get(spoil, "X-Amz-Expires=96400")))
    assert status == 403
    assert headers["Content-Type"] == "application/xml"
    assert b"<Code>SignatureDoesNotMatch</Code>" in body


async def test_a_bare_link_is_refused(talk: Talk) -> None:
    status, body, _ = await talk.download((await make_link(talk)).partition("?")[0])
    assert (status, b"<Code>AccessDenied</Code>" in body) == (403, True)


async def test_a_link_expires_and_a_status_read_gives_a_fresh_one() -> None:
    async with Simulator(speed=float("inf"), link_seconds=0) as sim, open_talk(sim) as talk:
        request_id = await talk.submit()
        link = (await talk.status(request_id))["result_url"]
        status, body, _ = await talk.download(link)
        assert (status, b"Request has expired" in body) == (403, True)


async def test_methods(talk: Talk) -> None:
    link = URL(await make_link(talk), encoded=True)
    async with aiohttp.ClientSession() as bare:
        async with bare.get(link) as whole:
            data = await whole.read()
        async with bare.head(link) as head:
            assert (head.status, await head.read()) == (200, b"")
            assert int(head.headers["Content-Length"]) == len(data)
            assert head.headers["ETag"] == whole.headers["ETag"]
        async with bare.put(link, data=b"x") as refused:
            assert refused.status == 405
        async with bare.get(link, headers={"If-None-Match": whole.headers["ETag"]}) as unchanged:
            assert (unchanged.status, await unchanged.read()) == (304, b"")


@pytest.mark.parametrize("drawn", [True, False])
async def test_ranges(drawn: bool) -> None:
    options = {} if drawn else {"pictures": False, "result_size": 700_001}
    async with Simulator(speed=float("inf"), **options) as sim, open_talk(sim) as talk:  # type: ignore[arg-type]  # two sets of options
        link = await make_link(talk)
        _, whole, headers = await talk.download(link)
        assert drawn or len(whole) == 700_001
        size, tag = len(whole), headers["ETag"]
        for asked, start, stop in [
            ("0-0", 0, 1),
            ("5-99", 5, 100),
            ("100-", 100, size),
            ("-7", size - 7, size),
            (f"9-{size * 2}", 9, size),
        ]:
            status, data, found = await talk.download(link, Range=f"bytes={asked}")
            assert (status, data) == (206, whole[start:stop]), asked
            assert found["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
            assert int(found["Content-Length"]) == stop - start
        for asked in (f"{size}-", "5-2", "-0"):
            status, _, found = await talk.download(link, Range=f"bytes={asked}")
            assert (status, found["Content-Range"]) == (416, f"bytes */{size}"), asked
        for asked in ("bytes=a-b", "bytes=-", "lines=1-2", "bytes=0-1,3-4"):
            assert (await talk.download(link, Range=asked))[0] == 200
        status, data, _ = await talk.download(link, Range="bytes=10-", **{"If-Range": tag})
        assert (status, data) == (206, whole[10:])
        status, data, _ = await talk.download(link, Range="bytes=10-", **{"If-Range": '"other"'})
        assert (status, data) == (200, whole)


async def test_a_big_result_is_sent_in_pieces_and_never_held() -> None:
    async with Simulator(speed=float("inf"), pictures=False, result_size=50_000_000) as sim, open_talk(sim) as talk:
        link = await make_link(talk)
        status, data, headers = await talk.download(link)
        assert (status, len(data), headers["Content-Length"]) == (200, 50_000_000, "50000000")
        assert "Transfer-Encoding" not in headers
        other = await make_link(talk)
        assert (await talk.download(other, Range="bytes=1000000-1000100"))[1] != data[1_000_000:1_000_101]
        async with aiohttp.ClientSession() as bare, bare.head(URL(link, encoded=True)) as head:
            assert head.headers["Content-Length"] == "50000000"


async def test_escaped_links_break_when_they_are_encoded_anew(sim: Simulator, talk: Talk) -> None:
    sim.variants("links-escaped")
    link = await make_link(talk)
    assert "%2F" in link
    assert (await talk.download(link))[0] == 200
    async with aiohttp.ClientSession() as bare, bare.get(URL(link)) as answer:
        assert answer.status == 403


async def test_unknown_names_are_404(sim: Simulator, talk: Talk) -> None:
    request_id = await talk.submit()
    job = sim.jobs[request_id]
    link = sim._opened.storage.link(job, "image.tiff")  # a name that no status answer has
    status, body, _ = await talk.download(link)
    assert (status, b"<Code>NoSuchKey</Code>" in body) == (404, True)


def pad(number: int, size: int) -> PaddedBlob:
    return PaddedBlob("image/png", b"\x89PNG\r\n\x1a\n", size, str(UUID(int=number << 32)).encode())


@pytest.mark.parametrize("piece", [4_096, 65_536, 100_000, 262_144, 1_048_576])
def test_no_two_pieces_of_a_big_result_are_alike(piece: int) -> None:
    blob = pad(1, 20 * 1_048_576)
    pieces = {blob.read(at, 32) for at in range(0, blob.size, piece)}
    assert len(pieces) == -(-blob.size // piece)


def test_big_results_of_different_jobs_differ_in_each_piece() -> None:
    assert len({pad(number, 100_000).read(50_000, 32) for number in range(1_000)}) > 990
