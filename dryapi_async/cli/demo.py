"""``dryapi demo``: the main job for real, against the embedded simulator."""

import sys
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dryapi_async import Client, Image, Img2Img, Txt2Img
from dryapi_async.cli.completion import complete_folders
from dryapi_async.cli.screen import UNUSABLE, Screen, plain, run_quietly
from dryapi_async.cli.targets import Target, read_target
from dryapi_async.errors import SourceError
from dryapi_async.operations import JobOperation

if TYPE_CHECKING:
    from dryapi_async.simulator import Received

SPEED = 1.5
POLL_SECONDS = 0.1
"""The simulator has no limit of reads, and a row that moves shows more."""
LONGEST_SIDE = 1024
SHORTEST_SIDE = 64
SIZE_STEP = 8
"""Pixels, as the simulator's model takes them."""
MOST_LOOKED_AT = 10 * 1024 * 1024
"""Bytes of a picture's beginning: its size stands behind whatever a camera wrote there."""


@click.command()
@click.option("--image", type=click.Path(path_type=Path), default=None, help="A picture of yours; else one that is shipped.")
@click.option(
    "--out",
    callback=read_target(folder=True),
    shell_complete=complete_folders,
    metavar="DIR",
    default="dryapi-demo",
    show_default=True,
    help="The folder for the results.",
)
def demo(*, image: Path | None, out: Target) -> None:
    """Draw a picture and transform a real file, against an embedded simulator: no key, no network, no cost."""
    if find_spec("PIL") is None:
        sys.stderr.write('The demo needs the simulator\'s library: pip install "dryapi-async[demo]"\n')
        sys.exit(UNUSABLE)
    with as_file(files("dryapi_async.cli") / "landscape.jpg") as shipped:
        run_quietly(lambda: _demo(image or shipped, out))


async def _demo(image: Path, target: Target) -> None:
    from dryapi_async.simulator import Simulator  # noqa: PLC0415  loaded by the command that needs it

    width, height = fitting_size(image)
    out = target.prove()
    with Screen() as screen:
        async with Simulator(speed=SPEED, seed=7) as simulator:
            screen.say(f"A simulator stands for the service: {simulator.url}")
            async with Client(simulator.key, base_url=simulator.url, poll=POLL_SECONDS, on_event=screen.tell) as client:
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
    lines = describe_upload(image, received)
    for path in (drawn, changed):
        lines.append(f"saved {path} ({' x '.join(map(str, picture_size(path) or ()))} pixels, {path.stat().st_size:,} bytes)")
    sys.stdout.write(plain("\n".join(lines)) + "\n")


def describe_upload(image: Path, received: "Received") -> list[str]:
    """Say what the service got."""
    (file,) = received.files
    length, encoding = received.headers["Content-Length"], received.headers.get("Transfer-Encoding")
    return [
        f"uploaded {image.name} ({file.size:,} bytes, streamed from disk); the service got",
        f"  Content-Length {length}, {encoding or 'no'} Transfer-Encoding",
        f"  SHA-256 {file.sha256}",
    ]


async def _run(client: Client, screen: Screen, request: JobOperation[Image], path: Path) -> Path:
    """Show the price, submit, follow, save."""
    slug, call = request.endpoint.slug, client.call(request)
    screen.say(f"{slug}: the price is ${await call.price()}")
    job = await call
    screen.say(f"submitted: {job.ticket}")
    return await job.save(path, timeout=120)


def picture_size(path: Path) -> tuple[int, int] | None:
    """Measure a picture, in pixels; None where its first bytes don't say."""
    from dryapi_async.simulator.sniff import measure  # noqa: PLC0415  loaded by the command that needs it

    with path.open("rb") as file:
        return measure(file.read(MOST_LOOKED_AT))


def fitting_size(path: Path) -> tuple[int, int]:
    """Find a size that the model takes, near a picture's own shape.

    Raises:
        SourceError: There is no such file, or it is no picture.
    """
    try:
        size = picture_size(path)
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}. Check the path.", source=str(path)) from error
    if size is None or not all(size):
        raise SourceError(f"{path} is no picture: give --image a JPG, PNG, GIF, BMP or WebP.", source=str(path))
    scale = min(1.0, LONGEST_SIDE / max(size))
    width, height = (max(round(side * scale / SIZE_STEP) * SIZE_STEP, SHORTEST_SIDE) for side in size)
    return width, height
