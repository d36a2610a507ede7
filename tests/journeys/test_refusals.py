"""Each way to get it wrong ends in its own error, with a sentence that says what to do, and leaves nothing behind."""

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import (
    AccountSuspendedError,
    AuthenticationError,
    Client,
    ConfigurationError,
    ConnectError,
    DryAPIError,
    File,
    Img2Img,
    InputError,
    InsufficientBalanceError,
    Lora,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SourceError,
    Txt2Img,
    ValidationError,
)
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, JPEG, PNG, edit, files_in, make_client, make_sim, seen, without_root

pytestmark = pytest.mark.anyio


def make_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "picture.png")
    return folder / "picture.png"


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def write_closed(folder: Path) -> Any:
    with write(folder, "picture.png", PNG).open("rb") as file:
        return file


SOURCES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda folder: folder / "nowhere.png", r"nowhere\.png can't be read: No such file or directory\. Check the path"),
    "missing folder": (lambda folder: str(folder / "no" / "where.png"), r"where\.png can't be read: No such file"),
    "directory": (lambda folder: folder, r"is a directory: give the path of one file"),
    "under a file": (lambda folder: write(folder, "a.png", PNG) / "b.png", r"b\.png can't be read: Not a directory"),
    "empty": (lambda folder: write(folder, "empty.png", b""), r"empty\.png is empty"),
    "empty bytes": (lambda _: b"", r"<0 bytes> is empty"),
    "text named .png": (
        lambda folder: write(folder, "text.png", b"not a picture"),
        r"text\.png is no image: image(s\[\])? takes JPG, PNG, GIF, BMP or WebP",
    ),
    "a page named .jpg": (lambda folder: write(folder, "page.jpg", b"<html><body>404"), r"page\.jpg is no image"),
    "a film": (
        lambda folder: write(folder, "film.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"),
        r"film\.mp4 is video/mp4, but image(s\[\])? takes image",
    ),
    "a sound named .png": (
        lambda folder: write(folder, "sound.png", b"ID3\x03\0\0\0\0\0\0"),
        r"sound\.png is audio/mpeg, but image(s\[\])? takes image",
    ),
    "a pipe": (make_fifo, r"picture\.png is no plain file"),
    "a closed file": (write_closed, r"is closed: open it again"),
    "a file at its end": (lambda folder: _at_end(write(folder, "read.png", PNG)), r"read\.png is empty"),
    "a text file": (lambda folder: write(folder, "picture.png", PNG).open(encoding="latin-1"), r"open it with mode 'rb'"),
    "another size than said": (
        lambda folder: File(write(folder, "a.png", PNG), size=5),
        r"has \d+ bytes, not the 5 that File\(size=\) says",
    ),
}


def _at_end(path: Path) -> Any:
    file = path.open("rb")
    file.seek(0, os.SEEK_END)
    return file


@pytest.mark.parametrize(("make", "sentence"), SOURCES.values(), ids=SOURCES)
async def test_a_file_that_cant_be_sent_is_named_before_anything_is_sent(
    sim: Simulator, client: Client, tmp_path: Path, make: Callable[[Path], Any], sentence: str
) -> None:
    source = make(tmp_path)
    try:
        with pytest.raises(SourceError, match=sentence) as caught:
            await edit(client, image=source).save(tmp_path / "result.png")
        with pytest.raises(SourceError, match=sentence):
            await edit(client, images=[PNG, source])
    finally:
        if hasattr(source, "close"):
            source.close()
    assert isinstance(caught.value, ValueError)
    assert caught.value.source in str(caught.value)
    assert (len(sim.requests), sim.connections.total) == (0, 0)
    assert not (tmp_path / "result.png").exists()
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)  # noqa: S301  our own


@pytest.fixture
def secret() -> Iterator[Path]:
    """Give a picture that nobody may read, in a folder that anybody may look into, as pytest's own aren't."""
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        folder.chmod(0o755)
        path = write(folder, "secret.png", PNG)
        path.chmod(0)
        yield path


async def test_a_file_without_permission_is_named(sim: Simulator, client: Client, secret: Path) -> None:
    with without_root(), pytest.raises(SourceError, match=r"secret\.png can't be read: Permission denied"):
        await edit(client, image=secret)
    assert not sim.requests


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image": PNG, "images": [PNG]}, r"exactly one of image and images, and got both"),
        ({}, r"exactly one of image and images, and got neither"),
        ({"images": []}, r"got neither"),
        ({"image": "https://example.org/fox.png"}, r"image is a URL: .* Download it first"),
        ({"images": [PNG, "HTTP://example.org/fox.png"]}, r"images is a URL"),
        ({"image": 5}, r"image must be a path, bytes, a binary file, or File\(\.\.\.\), not int"),
        ({"image": PNG, "steps": "20"}, r"steps must be an int, not str '20'"),
        ({"image": PNG, "guidance": float("nan")}, r"guidance must be a finite number"),
        ({"image": PNG, "seed": True}, r"seed must be an int"),
        ({"image": PNG, "loras": [("style_lora", 1)]}, r"loras must be a list or tuple, each"),
        ({"images": PNG}, r"images must be a list or tuple of sources"),
        ({"image": PNG, "prompt": None}, r"prompt must be a str"),
    ],
    ids=str,
)
def test_a_request_that_cant_be_right_is_refused_when_it_is_made(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Img2Img(**{"prompt": "p", "model": "m", "steps": 1, "seed": 1, **fields})


async def test_both_image_and_images_is_refused_before_there_is_a_call(sim: Simulator, client: Client) -> None:
    with pytest.raises(InputError, match="exactly one") as caught:
        client.img2img(prompt="p", model="m", steps=1, seed=1, image=PNG, images=[PNG])
    assert isinstance(caught.value, ValueError)
    assert not sim.requests


async def test_a_wrong_key_says_where_to_look(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, api_key="2|another") as client:
        with pytest.raises(AuthenticationError, match=r"refused with 401: .*Check the API key \(DRYAPI_API_KEY\)") as caught:
            await edit(client, image=PNG).save(tmp_path / "a.png")
    assert caught.value.status == 401
    assert "2|another" not in str(caught.value)
    assert len(seen(sim, "img2img")) == 1
    assert sim.jobs_billed == 0
    assert files_in(tmp_path) == []


async def test_an_unknown_model_says_where_the_models_are(sim: Simulator, client: Client, tmp_path: Path) -> None:
    call = client.txt2img(prompt="a fox", model="Flux9", width=256, height=192, steps=4, seed=7)
    with pytest.raises(ValidationError, match=r"Look at client\.models\(\)") as caught:
        await call.save(tmp_path / "fox.png")
    assert caught.value.errors == {"model": ("The selected model does not exist.",)}
    assert (len(seen(sim, "txt2img")), sim.jobs_billed) == (1, 0)
    assert files_in(tmp_path) == []


async def test_an_unknown_lora_says_so_too(client: Client) -> None:
    with pytest.raises(ValidationError, match=r"Look at client\.models\(\)") as caught:
        await client.txt2img(
            prompt="p", model="Flux1schnell", width=256, height=256, steps=4, seed=1, loras=[Lora(name="nobody", weight=1)]
        )
    assert "loras.0.name" in caught.value.errors


async def test_every_finding_of_the_service_is_named(client: Client) -> None:
    with pytest.raises(ValidationError) as caught:
        await client.txt2img(prompt="a fox", model="Flux1schnell", width=13, height=5000, steps=4, seed=7)
    assert set(caught.value.errors) == {"width", "height"}
    assert "5000" not in caught.value.message or "height" in str(caught.value)
    assert "width" in str(caught.value)
    assert "height" in str(caught.value)


async def test_too_many_pictures_for_the_model(sim: Simulator, client: Client) -> None:
    with pytest.raises(ValidationError, match="images"):
        await edit(client, images=[PNG] * 5)
    assert sim.jobs_billed == 0


async def test_no_balance_says_to_top_up(sim: Simulator, client: Client) -> None:
    sim.balance = sim.balance * 0
    with pytest.raises(InsufficientBalanceError, match="Top up the balance"):
        await client.call(FOX)
    sim.variants("402-balance")
    with pytest.raises(InsufficientBalanceError, match="Top up the balance") as caught:
        await client.call(FOX)
    assert caught.value.status == 402
    assert sim.jobs_billed == 0


async def test_a_suspended_account_says_who_can_help(sim: Simulator, client: Client) -> None:
    sim.suspended = True
    with pytest.raises(AccountSuspendedError, match="support"):
        await client.call(FOX)


async def test_a_page_that_blocks_is_a_refusal(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.status(403, "<h1>Sorry, you have been blocked</h1>"))
    with pytest.raises(PermissionDeniedError, match="trying again doesn't help") as caught:
        await client.call(FOX)
    assert type(caught.value) is PermissionDeniedError


async def test_a_dead_server_says_that_nothing_was_sent(tmp_path: Path) -> None:
    async with make_sim() as sim:
        await sim.go_down()
        async with make_client(sim) as client:
            with pytest.raises(
                ConnectError, match=r"no connection to 127\.0\.0\.1:\d+ .*nothing was sent\. Check base_url and the network"
            ):
                await edit(client, image=PNG).save(tmp_path / "a.png")
            with pytest.raises(ConnectError):
                await client.balance()
            with pytest.raises(ConnectError):
                await client.job("txt2img:1").status()
    assert files_in(tmp_path) == []


async def test_a_host_that_serves_something_else_says_so(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.status(404, "<!doctype html><title>Not here</title>"))
    with pytest.raises(NotFoundError, match="base_url"):
        await client.call(FOX)


async def test_a_price_in_trouble_is_a_server_error(sim: Simulator, client: Client) -> None:
    sim.script("txt2img/price-calculation", Fault.status(503), times=4)
    with pytest.raises(ServerError, match="try later"):
        await client.call(FOX).price()


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": ""},
        {"api_key": "  "},
        {"api_key": "1|\N{EURO SIGN}"},
        {"api_key": "1|two\nlines"},
        {"base_url": "http://api.example.org"},
        {"base_url": "ftp://127.0.0.1"},
        {"base_url": "127.0.0.1:80"},
        {"base_url": "https://key@api.example.org"},
        {"base_url": "https://api.example.org?key=1"},
        {"max_in_flight": 0},
        {"pool_size": 2.5},
        {"poll": -1},
    ],
    ids=str,
)
def test_a_client_that_cant_work_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client(**{"api_key": "1|key", **options})
    assert isinstance(caught.value, ValueError)


async def test_a_ticket_of_another_operation_is_refused(client: Client) -> None:
    for ticket in ("", "txt2img", "txt2img:", ":x", "img2img:x", "txt2img:a\nb"):
        with pytest.raises(InputError):
            client.job(ticket, Txt2Img)
    with pytest.raises(InputError, match="nonsense"):
        client.job("nonsense:x")


async def test_every_refusal_says_what_to_do_in_a_sentence(sim: Simulator, client: Client) -> None:
    for status in sorted({*range(400, 600)} - {429}):
        sim.script("txt2img", Fault.status(status, b"", billed=False))
        with pytest.raises(DryAPIError) as caught:
            await client.call(FOX, timeout=1)
        assert str(caught.value).endswith(".")
        assert str(status) in str(caught.value)
    sim.script("txt2img", Fault.status(429, b""))
    with pytest.raises(RateLimitError, match=r"429.*\.$"):
        await client.call(FOX, timeout=1)
    assert sim.jobs_billed == 0


async def test_a_jpeg_named_png_is_sent_as_what_it_is(sim: Simulator, client: Client, tmp_path: Path) -> None:
    await edit(client, image=write(tmp_path, "picture.png", JPEG))
    (file,) = seen(sim, "img2img")[0].files
    assert (file.name, file.content_type) == ("picture.jpg", "image/jpeg")
