"""``dryapi demo``: the main job for real, against the embedded simulator."""

import sys
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dryapi_async import Client, Image, Img2Img, Txt2Img
from dryapi_async.cli.screen import UNUSABLE, Screen, run_quietly
from dryapi_async.errors import SourceError
from dryapi_async.operations import JobOperation

if TYPE_CHECKING:
    from dryapi_async.simulator import Received

SPEED = 1.5
LONGEST_SIDE = 1024
SIZE_STEP = 64


@click.command()
@click.option("--image", type=click.Path(path_type=Path), default=None, help="A picture of yours; else one that is shipped.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("dryapi-demo"), show_default=True, help="Where results go."
)
def demo(*, image: Path | None, out: Path) -> None:
    """Draw a picture and transform a real file, against an embedded simulator: no key, no network, no cost."""
    if find_spec("PIL") is None:
        sys.stderr.write('The demo needs the simulator\'s library: pip install "dryapi-async[demo]"\n')
        sys.exit(UNUSABLE)
    with as_file(files("dryapi_async.cli") / "landscape.jpg") as shipped:
        out.mkdir(parents=True, exist_ok=True)
        run_quietly(lambda: _demo(image or shipped, out))


async def _demo(image: Path, out: Path) -> None:
    from dryapi_async.simulator import Simulator  # noqa: PLC0415  loaded by the command that needs it

    width, height = fitting_size(image)
    with Screen() as screen:
        async with Simulator(speed=SPEED) as simulator:
            screen.say(f"A simulator stands for the service at {simulator.url}; its storage host is {simulator.storage_url}.")
            async with Client(simulator.key, base_url=simulator.url, on_event=screen.tell) as client:
                fox = Txt2Img(prompt="a fox in snow", model="Flux1schnell", width=768, height=512, steps=4, seed=7)
                drawn = await _run(client, screen, fox, out / "fox.png")
                night = Img2Img(
                    prompt="the same, at night",
                    image=image,
                    model="QwenImageEdit_Plus_NF4",
                    steps=20,
                    seed=42,
                    width=width,
                    height=height,
                )
                changed = await _run(client, screen, night, out / "night.png")
            received = next(one for one in reversed(simulator.requests) if one.operation == "img2img")
    sys.stdout.write(describe_upload(image, received) + "\n")
    for path in (drawn, changed):
        sys.stdout.write(f"saved {path} ({' x '.join(map(str, picture_size(path)))} pixels, {path.stat().st_size:,} bytes)\n")


def describe_upload(image: Path, received: "Received") -> str:
    """Say what the service got."""
    (file,) = received.files
    length, encoding = received.headers["Content-Length"], received.headers.get("Transfer-Encoding")
    return (
        f"uploaded {image} ({file.size:,} bytes, streamed from disk): the service got Content-Length {length}, "
        f"{encoding or 'no'} Transfer-Encoding, SHA-256 {file.sha256}"
    )


async def _run(client: Client, screen: Screen, request: JobOperation[Image], path: Path) -> Path:
    """Show the price, submit, follow, save."""
    call = client.call(request)
    screen.say(f"{request.endpoint.slug}: the price is ${await call.price()}")
    job = await call
    screen.say(f"{request.endpoint.slug}: submitted, its ticket is {job.ticket}")
    return await job.save(path, timeout=120)


def picture_size(path: Path) -> tuple[int, int]:
    """Measure a picture, in pixels."""
    from PIL import Image as Picture  # noqa: PLC0415  an extra

    with Picture.open(path) as picture:
        return picture.size


def fitting_size(path: Path) -> tuple[int, int]:
    """Find a size that a model takes, near a picture's own shape.

    Raises:
        SourceError: There is no such file, or it is no picture.
    """
    try:
        width, height = picture_size(path)
    except OSError as error:
        reason = error.strerror or "it is no picture"
        raise SourceError(f"{path} can't be read: {reason}. Give --image a JPG, PNG, GIF, BMP or WebP.", source=str(path)) from error
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return _rounded(width * scale), _rounded(height * scale)


def _rounded(side: float) -> int:
    return min(max(round(side / SIZE_STEP) * SIZE_STEP, 4 * SIZE_STEP), LONGEST_SIDE)
