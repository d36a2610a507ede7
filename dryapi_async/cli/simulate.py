"""``dryapi simulate``: the embedded service, standing alone."""

import asyncio
import shlex
import signal
import sys

import click

from dryapi_async.cli.screen import UNUSABLE, plain, run_quietly


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 takes a free one.")
@click.option("--key", default="1|simulator-key", show_default=True, help="The API key that it takes.")
@click.option("--tier", type=click.Choice(["none", "basic", "premium"]), default="none", show_default=True, help="Whose limits it keeps.")
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="Divides all durations.")
@click.option("--seed", type=int, default=None, help="Makes durations and pictures repeatable.")
def simulate(**options: object) -> None:
    """Serve the simulated service on loopback until Ctrl-C. The first line printed is its URL."""
    run_quietly(lambda: _serve(options))


async def _serve(options: dict[str, object]) -> None:
    try:
        from dryapi_async.simulator import Simulator  # noqa: PLC0415  loaded by the command that needs it

        simulator = Simulator(**options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  click has checked them
    except (ImportError, RuntimeError) as error:
        sys.stderr.write(f"The simulator can't start: {error}\n")
        sys.exit(UNUSABLE)
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with simulator:
        lines = (
            simulator.url,
            f"key        {plain(simulator.key)}",
            f"client id  {simulator.client_id}",
            f"results    {simulator.storage_url}",
            "In another shell:",
            f"  export DRYAPI_BASE_URL={simulator.url}",
            f"  export DRYAPI_API_KEY={shlex.quote(plain(simulator.key))}",
            "  dryapi models",
            "Ctrl-C ends it.",
        )
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        await over.wait()
