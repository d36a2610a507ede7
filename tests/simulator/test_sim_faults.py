"""Faults: what a client sees on the wire, and what was billed meanwhile."""

import asyncio
import math
import shutil
import socket
import ssl
import subprocess

import aiohttp
import pytest

from dryapi_async.simulator import Fault, Received, Simulator
from dryapi_async.simulator.faults import Phase

from .conftest import IMG2IMG, TXT2IMG, Talk, make_png, open_talk, wait_until

pytestmark = pytest.mark.anyio
PHASES = ["before_body", "mid_body", "after_body", "headers", "payload"]
BILLED = {"after_body", "headers", "payload"}


async def speak(
    sim: Simulator, body: bytes = b'{"a": "' + b"x" * 4000 + b'"}', *, path: str = "txt2img", grace: float = 1.0
) -> tuple[bytes, str]:
    """Send a POST over a bare socket; give what came and how it ended: fin, rst or silence."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.settimeout(0)
    await loop.sock_connect(raw, ("127.0.0.1", int(sim.url.rpartition(":")[2])))
    head = f"POST /api/v1/client/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sim.key}\r\nContent-Type: application/json\r\n"
    received = b""
    try:
        await loop.sock_sendall(raw, (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        while True:
            piece = await asyncio.wait_for(loop.sock_recv(raw, 65536), grace)
            if not piece:
                return received, "fin"
            received += piece
    except (ConnectionResetError, BrokenPipeError):
        return received, "rst"
    except TimeoutError:
        return received, "silence"
    finally:
        raw.close()


GOOD = b'{"prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 256, "seed": 1}'


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("kind", "ending"), [("reset", "rst"), ("close", "fin"), ("hang", "silence"), ("truncate", "fin"), ("garbage", "fin")]
)
async def test_each_kind_in_each_phase_ends_the_connection_its_way(sim: Simulator, kind: str, phase: str, ending: str) -> None:
    sim.script("txt2img", getattr(Fault, kind)(phase))
    received, ended = await speak(sim, GOOD, grace=0.2)
    assert ended == ending
    assert sim.jobs_billed == (phase in BILLED)
    assert sim.requests[-1].status is None
    assert sim.requests[-1].fault == f"{kind} {phase}"
    if kind == "garbage":
        assert received.startswith(b"HTTP/1.1 200 OK") == (phase in {"headers", "payload"})
    elif kind == "truncate" and phase != "headers":
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.decode().split("\r\n") if line.startswith("Content-Length: "))
        assert 0 <= len(body) < length
    elif phase in {"before_body", "mid_body", "after_body"}:
        assert received == b""
    elif phase == "headers":
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in received
    else:
        assert received.partition(b"\r\n\r\n")[2].startswith(b'{"data":{"request_id"')
    assert (await speak(sim, GOOD, grace=0.2))[0].startswith(b"HTTP/1.1 200 OK")


async def test_mid_body_reads_half_and_a_fin_there_is_no_rst(sim: Simulator) -> None:
    sim.script("txt2img", Fault.close("mid_body"), Fault.close("before_body"))
    for _ in range(2):
        assert await speak(sim, b"x" * 3_000_000) == (b"", "fin")
    assert sim.requests[-1].fields == {}


@pytest.mark.parametrize(("phase", "answered"), [("before_body", True), ("mid_body", False)])
async def test_mid_body_waits_for_half_of_it(sim: Simulator, phase: Phase, answered: bool) -> None:
    sim.script("txt2img", Fault.garbage(phase))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
    writer.write(b"POST /api/v1/client/txt2img HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400)
    reading = asyncio.create_task(reader.read(100))
    await asyncio.sleep(0.1)
    assert reading.done() is answered
    writer.write(b"x" * 200)
    assert b"not HTTP" in await reading
    writer.close()
    await writer.wait_closed()


async def test_a_hang_ends_after_its_seconds_or_with_the_simulator() -> None:
    async with Simulator() as sim:
        sim.script("txt2img", Fault.hang("after_body", seconds=0.05), Fault.hang("before_body"))
        assert await speak(sim, GOOD) == (b"", "fin")
        waiting = asyncio.create_task(speak(sim, GOOD, grace=5))
        await wait_until(lambda: len(sim.requests) == 2)
        began = asyncio.get_running_loop().time()
        await sim.close()
        assert (await waiting)[0] == b""
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_hang_ends_when_the_client_goes(sim: Simulator) -> None:
    sim.script("txt2img", Fault.hang("after_body"))
    assert (await speak(sim, GOOD, grace=0.05))[1] == "silence"
    await wait_until(lambda: not sim.connections.open)
    assert sim.requests[-1].ended is not None


@pytest.mark.parametrize(
    ("fault", "status", "text", "kind", "billed"),
    [
        (Fault.status(503), 503, b'{"message": "Server Error"}', "application/json", 1),
        (Fault.status(503, billed=False), 503, b'{"message": "Server Error"}', "application/json", 0),
        (Fault.status(400, {"message": "Bad"}), 400, b'{"message": "Bad"}', "application/json", 0),
        (Fault.status(500, [1]), 500, b"[1]", "application/json", 1),
        (Fault.status(502, "<html>x</html>"), 502, b"<html>x</html>", "text/html", 1),
        (Fault.status(200, "oops"), 200, b"oops", "text/plain", 0),
        (Fault.status(200, b"{}", content_type="application/json"), 200, b"{}", "application/json", 0),
        (Fault.unauthorized(), 401, b'{"message": "Unauthenticated."}', "application/json", 0),
        (Fault.not_found(), 404, b'{"message": "No query results for model [JobRequest]"}', "application/json", 0),
        (Fault.redirect("http://127.0.0.1:1/x"), 307, b"", "text/html", 0),
        (Fault.rate_limited(), 429, b'{"message":"Too Many Attempts."}', "application/json", 0),
    ],
)
async def test_a_status_in_place_of_the_answer(  # noqa: PLR0917 - the columns of the table
    sim: Simulator, talk: Talk, fault: Fault, status: int, text: bytes, kind: str, billed: int
) -> None:
    sim.script("txt2img", fault)
    async with talk.session.post(f"{sim.url}/api/v1/client/txt2img", json=TXT2IMG, allow_redirects=False) as answer:
        assert (answer.status, await answer.read(), answer.content_type) == (status, text, kind)
    assert sim.jobs_billed == billed
    assert sim.requests[-1].fields == TXT2IMG
    assert sim.requests[-1].status == status
    assert (await talk.post("txt2img", TXT2IMG))[0] == 200
    assert sim.connections.total == 1


async def test_rate_limits_on_request_carry_the_documented_headers(sim: Simulator, talk: Talk) -> None:
    faults = [
        Fault.rate_limited("daily"),
        Fault.rate_limited(retry_after="junk"),
        Fault.rate_limited(headers=False),
        Fault.rate_limited(headers={"A": "b"}),
    ]
    sim.script("balance", *faults)
    seen: list[dict[str, str]] = []
    for _ in faults:
        async with talk.session.get(f"{sim.url}/api/v1/client/balance") as answer:
            assert answer.status == 429
            seen.append({name: value for name, value in answer.headers.items() if name.startswith(("X-", "Retry", "A"))})
    daily = {"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": "3", "X-RateLimit-Daily-Limit": "100", "X-RateLimit-Daily-Remaining": "0"}
    assert seen[0] == {**daily, "X-RateLimit-Type": "daily", "Retry-After": "43200"}
    assert seen[1]["Retry-After"] == "junk"
    assert seen[1]["X-RateLimit-Type"] == "minute"
    assert seen[2:] == [{}, {"A": "b"}]


@pytest.mark.parametrize("fault", [Fault.too_large(early=True), Fault.unauthorized(early=True), Fault.rate_limited(early=True)])
async def test_an_early_answer_comes_before_the_body(sim: Simulator, fault: Fault) -> None:
    sim.script("txt2img", fault)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
    head = f"POST /api/v1/client/txt2img HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sim.key}\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + b"x")
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert fault.answer is not None
    assert answer.startswith(f"HTTP/1.1 {fault.answer.status} ")
    assert "Connection: close" in answer
    assert sim.requests[-1].body_size == 0
    writer.close()
    await writer.wait_closed()


async def test_an_abrupt_answer_closes_with_the_body_unread(sim: Simulator) -> None:
    sim.script("txt2img", Fault.status(413, "<html>", early=True, abrupt=True))
    received, ended = await speak(sim, b"x" * 20_000_000)
    assert ended in {"rst", "fin"}
    assert received == b"" or received.startswith(b"HTTP/1.1 413 ")
    assert sim.jobs_billed == 0


async def test_a_delay_bills_at_once_and_answers_late(sim: Simulator, talk: Talk) -> None:
    sim.script("txt2img", Fault.delay(0.1))
    waiting = asyncio.create_task(talk.post("txt2img", TXT2IMG))
    await wait_until(lambda: sim.jobs)
    assert not waiting.done()
    assert (await waiting)[1]["data"]["request_id"] in sim.jobs
    assert sim.requests[-1].ended is not None
    assert sim.requests[-1].ended - sim.requests[-1].started >= 0.1


async def test_a_trickle_takes_its_time(sim: Simulator, talk: Talk) -> None:
    link = (await talk.status(await talk.submit()))["result_url"]
    _, whole, _ = await talk.download(link)
    sim.script("storage", Fault.trickle(len(whole) / 0.2))
    began = asyncio.get_running_loop().time()
    status, data, _ = await talk.download(link)
    assert (status, data) == (200, whole)
    assert asyncio.get_running_loop().time() - began > 0.15


async def test_faults_are_used_up_in_order_by_what_they_match(sim: Simulator, talk: Talk) -> None:
    first = sim.script("balance", Fault.status(500), Fault.status(501), times=2)
    anything = sim.script("*", Fault.status(502))
    assert [(await talk.get("balance"))[0] for _ in range(6)] == [500, 500, 501, 501, 502, 200]
    assert (first.used, anything.used) == (4, 1)
    for_ever = sim.script("models", Fault.status(503), times=math.inf)
    assert [(await talk.get("models"))[0] for _ in range(3)] == [503] * 3
    for_ever.remove()
    assert (await talk.get("models"))[0] == 200

    def from_page_two(received: Received) -> bool:
        return "page=2" in received.query

    sim.script(from_page_two, Fault.status(504))
    assert [(await talk.get(path))[0] for path in ("models", "models?page=2", "models?page=2")] == [200, 504, 200]
    sim.script("models", Fault.status(503))
    sim.clear_script()
    assert (await talk.get("models"))[0] == 200


async def test_no_times_strike_none(sim: Simulator, talk: Talk) -> None:
    never = sim.script("balance", Fault.status(500), Fault.status(501), times=0)
    assert (never.spent, never.unmet) == (True, 0)
    sim.script("balance", Fault.status(502))
    assert [(await talk.get("balance"))[0] for _ in range(3)] == [502, 200, 200]
    assert never.used == 0
    sim.script("models", Fault.status(503), times=0, probability=1)
    assert (await talk.get("models"))[0] == 200


async def test_by_chance(sim: Simulator, talk: Talk) -> None:
    scripted = sim.script("balance", Fault.status(500), Fault.status(501), probability=0.3)
    seen = [(await talk.get("balance"))[0] for _ in range(100)]
    assert 15 <= 100 - seen.count(200) <= 45
    assert set(seen) == {200, 500, 501}
    assert scripted.used == 100 - seen.count(200)


async def read_pieces(link: str, got: list[bytes]) -> None:
    async with aiohttp.ClientSession() as bare, bare.get(link) as answer:
        async for piece in answer.content.iter_any():
            got.append(piece)  # noqa: PERF401 - what came before the error counts


async def test_storage_faults_are_apart_from_the_api(sim: Simulator, talk: Talk) -> None:
    link = (await talk.status(await talk.submit()))["result_url"]
    _, whole, _ = await talk.download(link)
    sim.script("*", Fault.status(500))
    sim.script("storage", Fault.truncate("payload", at=0.6), Fault.reset("payload", at=0.25))
    for at in (0.6, 0.25):
        got: list[bytes] = []
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_pieces(link, got)
        assert b"".join(got) == whole[: int(len(whole) * at)]
    sim.script("storage", Fault.close("headers"), times=2)  # aiohttp repeats a GET by itself once
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await read_pieces(link, [])
    sim.script("storage", Fault.redirect("http://127.0.0.1:1/"))
    async with aiohttp.ClientSession() as bare, bare.get(link, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, "http://127.0.0.1:1/")


async def test_a_reused_connection_is_closed_after_reading(sim: Simulator, talk: Talk) -> None:
    sim.drop_reused = True
    assert (await talk.post("txt2img", TXT2IMG))[0] == 200
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await talk.post("txt2img", TXT2IMG)
    assert sim.jobs_billed == 1
    sim.drop_reused = False
    sim.script("balance", Fault.close("before_body", reused=True), Fault.reset("before_body").on_reused())
    async with open_talk(sim) as fresh:
        await fresh.get("balance")
        assert (await fresh.get("balance"))[0] == 200  # aiohttp repeats a GET once over a fresh connection
        assert [each.reused for each in list(sim.requests)[-3:]] == [False, True, False]
        with pytest.raises(aiohttp.ClientOSError):
            await fresh.post("balance", {})


async def test_idle_connections_are_closed() -> None:
    async with Simulator(keepalive=0.1) as sim, open_talk(sim) as talk:
        await talk.get("balance")
        assert len(sim.connections.open) == 1
        await asyncio.sleep(0.25)
        assert not sim.connections.open


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    if shutil.which("openssl") is None:
        pytest.skip("a certificate is made with the openssl command, which isn't here")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        "-days",
        "2",
    ]
    subprocess.run([*command, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", ["reset", "close", "hang", "truncate", "garbage"])
async def test_the_same_over_tls(certificate: tuple[ssl.SSLContext, ssl.SSLContext], kind: str, phase: str) -> None:
    server, trusting = certificate
    files = [("image", make_png() + b"\0" * 300_000, "a.png", "image/png")]
    async with Simulator(ssl=server) as sim, open_talk(sim, connector=aiohttp.TCPConnector(ssl=trusting)) as talk:
        assert sim.url.startswith("https://")
        sim.script("img2img", getattr(Fault, kind)(phase, **({"seconds": 0.05} if kind == "hang" else {})))
        with pytest.raises((aiohttp.ClientError, ValueError)) as caught:
            await talk.upload("img2img", IMG2IMG, files)
        assert not isinstance(caught.value, aiohttp.ClientConnectorError)
        assert sim.jobs_billed == (phase in BILLED)
        assert (await talk.upload("img2img", IMG2IMG, files))[0] == 200
