"""Bodies: multipart in chunks to disk, hashes, judged by first bytes."""

import asyncio
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async.simulator import Simulator
from dryapi_async.simulator.receive import nest
from dryapi_async.simulator.sniff import measure, sniff

from .conftest import IMG2IMG, Talk, make_bmp, make_mp4, make_png, make_wav, open_talk, wait_until

pytestmark = pytest.mark.anyio
BOUNDARY = "frontier"


def lay_out(parts: list[tuple[str, bytes]], boundary: str = BOUNDARY) -> bytes:
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts)
    return body + b"--%s--\r\n" % boundary.encode()


def part(name: str, filename: str | None = None) -> str:
    return f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"\r\nContent-Type: image/png' if filename else "")


async def post_raw(talk: Talk, body: bytes, step: int, kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> tuple[int, Any]:
    async def pieces() -> Any:
        for at in range(0, len(body), step):
            yield body[at : at + step]
            await asyncio.sleep(0)

    return await talk.send("POST", "img2img", data=pieces(), headers={"Content-Type": kind, "Content-Length": str(len(body))})


async def test_a_file_arrives_whole_and_is_removed_at_the_end() -> None:
    png = make_png(300, 200)
    async with Simulator(speed=float("inf")) as sim, open_talk(sim) as talk:
        status, _ = await talk.upload("img2img", IMG2IMG, [("image", png, "fox.png", "image/png")])
        assert status == 200
        seen = sim.requests[-1]
        [file] = seen.files
        assert (file.field, file.name, file.content_type, file.size) == ("image", "fox.png", "image/png", len(png))
        assert file.sha256 == hashlib.sha256(png).hexdigest()
        assert file.path is not None
        path = Path(file.path)
        assert path.read_bytes() == png  # noqa: ASYNC240 - a small file, nobody waits
        assert "Transfer-Encoding" not in seen.headers
        assert seen.fields == IMG2IMG
    assert not path.exists()  # noqa: ASYNC240 - the same
    assert not path.parent.parent.exists()


async def test_files_are_only_hashed_if_asked() -> None:
    async with Simulator(keep_files=False) as sim, open_talk(sim) as talk:
        assert (await talk.upload("img2img", IMG2IMG, [("image", make_png(), "a.png", "image/png")]))[0] == 200
        assert sim.requests[-1].files[0].path is None
        assert sim.requests[-1].files[0].sha256 == hashlib.sha256(make_png()).hexdigest()


@pytest.mark.parametrize("seed", range(12))
async def test_any_bytes_in_any_chunks_arrive_whole(sim: Simulator, talk: Talk, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - test data, no secrets
    traps = [b"\r\n--", f"--{BOUNDARY}".encode(), f"\r\n-{BOUNDARY}".encode(), b"\r", b"\n", f"\r\n--{BOUNDARY[:-1]}x".encode()]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        rng.choice([rng.choice(traps), rng.randbytes(rng.randrange(400))]) for _ in range(rng.randrange(80))
    )
    fields = [(part(name), value.encode()) for name, value in IMG2IMG.items()]
    body = lay_out([*fields, (part("image", "a.png"), data), (part("webhook_url"), b"")])
    status, answer = await post_raw(talk, body, rng.choice([1, 3, 17, 500, 70_000]) if len(body) < 4000 else rng.choice([61, 997, 70_000]))
    assert status == 200, answer
    seen = sim.requests[-1]
    assert seen.files[0].sha256 == hashlib.sha256(data).hexdigest()
    assert seen.body_sha256 == hashlib.sha256(body).hexdigest()
    assert seen.fields == {**IMG2IMG, "webhook_url": ""}


async def test_a_broken_form_is_refused_not_a_server_error(sim: Simulator, talk: Talk) -> None:
    whole = lay_out([(part("prompt"), b"x"), (part("image", "a.png"), make_png())])
    bodies = [b"", b"--", whole[:40], whole[:-20], whole.replace(b"\r\n\r\n", b"\r\n"), b"x" * 5000, b"--frontier" + b"y" * 20_000]
    for body in bodies:
        assert (await post_raw(talk, body, 1000))[0] == 422
    assert (await post_raw(talk, whole, 1000, "multipart/form-data"))[0] == 422
    assert len(sim.requests) == len(bodies) + 1


async def test_empty_files_and_empty_values_are_read_as_such(sim: Simulator, talk: Talk) -> None:
    status, body = await post_raw(talk, lay_out([(part("image", "a.png"), b""), (part("prompt"), b"")]), 50)
    assert status == 422
    assert body["errors"]["image"][0] == "The image field must be an image."
    assert body["errors"]["prompt"] == ["The prompt field is required."]
    assert sim.requests[-1].files[0].size == 0


async def test_a_file_over_the_limit_is_422_and_a_body_over_the_cap_413() -> None:
    async with Simulator(max_upload=20_000, max_body=60_000) as sim, open_talk(sim) as talk:
        png = make_png()
        good = png + b"\0" * (20_000 - len(png))
        assert (await talk.upload("img2img", IMG2IMG, [("image", good, "a.png", "image/png")]))[0] == 200
        status, body = await talk.upload("img2img", IMG2IMG, [("image", good + b"\0", "a.png", "image/png")])
        assert (status, body["errors"]) == (422, {"image": ["The image field must not be greater than 19 kilobytes."]})
        status, page = await talk.upload("img2img", IMG2IMG, [("image", png + b"\0" * 60_000, "a.png", "image/png")])
        assert status == 413
        assert b"<html>" in page
        assert sim.requests[-1].files == []


async def test_a_length_over_the_cap_is_413_before_the_body() -> None:
    async with Simulator(max_upload=20_000, max_body=60_000) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
        head = f"POST /api/v1/client/img2img HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sim.key}\r\nContent-Length: 60001\r\n\r\n"
        writer.write(head.encode())
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 413 ")
        writer.close()
        await writer.wait_closed()


async def test_a_chunked_body_over_the_cap_is_413_too() -> None:
    async with Simulator(max_upload=20_000, max_body=60_000) as sim, open_talk(sim) as talk:

        async def pieces() -> Any:
            for _ in range(50):
                yield b"x" * 4_000

        kind = f"multipart/form-data; boundary={BOUNDARY}"
        assert (await talk.send("POST", "img2img", data=pieces(), headers={"Content-Type": kind}))[0] == 413


async def test_a_big_upload_is_never_in_memory(tmp_path: Path) -> None:
    import resource  # noqa: PLC0415 - where it is missing only this test can't run

    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.write(make_png())
        file.truncate(150_000_000)
    async with Simulator(max_upload=200_000_000, keep_files=False, record=True) as sim, open_talk(sim) as talk:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with path.open("rb") as file:
            form = aiohttp.FormData({name: str(value) for name, value in IMG2IMG.items()})
            form.add_field("image", file, filename="big.png", content_type="image/png")
            assert (await talk.send("POST", "img2img", data=form))[0] == 200
        assert sim.requests[-1].files[0].size == 150_000_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000


async def test_a_client_that_goes_away_in_its_body_makes_no_job(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
    head = f"POST /api/v1/client/img2img HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sim.key}\r\n"
    writer.write(
        (head + f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: 100000\r\n\r\n").encode() + b"--frontier\r\n"
    )
    await writer.drain()
    await wait_until(lambda: sim.requests)
    writer.close()
    await writer.wait_closed()
    await wait_until(lambda: not sim.connections.open)
    assert sim.requests[-1].status is None
    assert not sim.jobs
    assert reader.at_eof() or await reader.read() == b""


async def test_expect_100_asks_for_the_body_only_after_the_key_was_seen(sim: Simulator) -> None:
    for key, first in ((sim.key, b"HTTP/1.1 100 Continue"), ("wrong", b"HTTP/1.1 401 Unauthorized")):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
        head = f"POST /api/v1/client/txt2img HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nExpect: 100-continue\r\n"
        writer.write((head + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n").encode())
        assert (await reader.readline()).strip() == first
        writer.write(b"{}")
        if key == sim.key:
            assert (await reader.readline()).strip() == b""
            assert (await reader.readline()).startswith(b"HTTP/1.1 422 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"prompt": {"a": []}}', b"a[b=c&[x]=1&&=&a[][]=1"]
)
async def test_any_body_is_refused_in_words(talk: Talk, kind: str, body: bytes) -> None:
    status, answer = await talk.send("POST", "txt2img", data=body, headers={"Content-Type": kind})
    assert status == 422
    assert answer["errors"]["model"] == ["The model field is required."]


def test_names_are_nested_as_php_does() -> None:
    fields: dict[str, Any] = {}
    for name, value in [("a", "1"), ("b[0][c]", "2"), ("b[0][d]", "3"), ("b[1][c]", "4"), ("e[]", "5"), ("e[]", "6"), ("f[x]", "7")]:
        nest(fields, name, value)
    assert fields == {"a": "1", "b": {"0": {"c": "2", "d": "3"}, "1": {"c": "4"}}, "e": {"0": "5", "1": "6"}, "f": {"x": "7"}}


@pytest.mark.parametrize(
    "loras",
    [
        {"loras[0][name]": "style_lora", "loras[0][weight]": "0.5"},
        {"loras": '[{"name": "style_lora", "weight": 0.5}]'},
    ],
)
async def test_loras_come_as_bracketed_parts_or_as_json(sim: Simulator, talk: Talk, loras: dict[str, str]) -> None:
    status, _ = await talk.upload("img2img", {**IMG2IMG, **loras}, [("image", make_png(), "a.png", "image/png")])
    assert status == 200
    assert next(iter(sim.jobs.values())).fields["loras"] == [{"name": "style_lora", "weight": 0.5}]


def test_formats_are_told_by_their_first_bytes() -> None:
    heads = {
        "bmp": make_bmp(),
        "png": make_png(),
        "wav": make_wav(),
        "mp4": make_mp4(),
        "mp3": b"\xff\xfb\x90\x00",
        "aac": b"\xff\xf1\x50\x80",
    }
    heads |= {
        "gif": b"GIF89a",
        "webp": b"RIFF\0\0\0\0WEBPVP8 ",
        "flac": b"fLaC",
        "ogg": b"OggS",
        "m4a": b"\0\0\0\x20ftypM4A ",
        "avi": b"RIFF\0\0\0\0AVI ",
    }
    heads |= {
        "mov": b"\0\0\0\x14ftypqt  ",
        "webm": b"\x1aE\xdf\xa3",
        "svg": b'<?xml version="1.0"?><svg xmlns="x"/>',
        "jpeg": b"\xff\xd8\xff\xe0",
    }
    assert {name: sniff(head) for name, head in heads.items()} == {name: name for name in heads}
    assert sniff(b"hello") is None
    assert sniff(b"") is None


def test_measures_are_read_from_every_image_format() -> None:
    from io import BytesIO  # noqa: PLC0415 - beside its only user

    from PIL import Image  # noqa: PLC0415 - like the package, only where a picture is made

    for kind, options in [("PNG", {}), ("GIF", {}), ("BMP", {}), ("JPEG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})]:
        out = BytesIO()
        Image.new("RGB", (123, 77), "red").save(out, kind, **options)
        assert measure(out.getvalue()) == (123, 77), kind
    assert measure(b"\x89PNG\r\n\x1a\n") is None
    assert measure(b"\xff\xd8\xff\xe0" + os.urandom(50)) is None


async def test_the_field_list_in_the_record_keeps_the_order_of_images(sim: Simulator, talk: Talk) -> None:
    files = [("images[]", make_png(64 + 8 * index, 64), f"{index}.png", "image/png") for index in range(4)]
    assert (await talk.upload("img2img", IMG2IMG, files))[0] == 200
    assert [file.name for file in sim.requests[-1].files] == ["0.png", "1.png", "2.png", "3.png"]
