"""``dryapi wait TICKET...`` and ``dryapi status TICKET...``."""

import asyncio
from pathlib import Path
from typing import Any

import click

from dryapi_async import Client, DryAPIError, Job
from dryapi_async.cli.screen import FAILED, Screen, give, run_client
from dryapi_async.config import DEFAULT_TIMEOUT


@click.command()
@click.argument("tickets", nargs=-1, required=True, metavar="TICKET...")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to save in; made if need be.")
@click.option("--timeout", type=float, default=DEFAULT_TIMEOUT, show_default=True, help="Seconds to wait for each job.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a job.")
def wait(*, tickets: tuple[str, ...], out: Path, timeout: float, as_json: bool) -> None:
    """Wait for jobs by their tickets, and save what they made. It costs nothing: they are paid for."""
    out.mkdir(parents=True, exist_ok=True)
    run_client(lambda client, screen: _wait(client, screen, tickets, out, timeout, as_json=as_json), quiet=as_json)


async def _wait(client: Client, screen: Screen, tickets: tuple[str, ...], out: Path, timeout: float, *, as_json: bool) -> None:
    jobs: list[Job[Any]] = [client.job(ticket) for ticket in dict.fromkeys(tickets)]
    for job in jobs:
        screen.follow(job)
    failed = await asyncio.gather(*(_save(screen, job, out, timeout, as_json=as_json) for job in jobs))
    if any(failed):
        raise click.exceptions.Exit(FAILED)


async def _save(screen: Screen, job: Job[Any], out: Path, timeout: float, *, as_json: bool) -> bool:
    """Save one job's result, and say whether that failed: the others go on."""
    try:
        path = await job.save(out, timeout=timeout)
    except (DryAPIError, OSError) as error:
        told = {"ticket": job.ticket, "error": type(error).__name__, "message": str(error)}
        if as_json:
            give(told, as_json=True, text="")
        else:
            screen.say(f"{type(error).__name__}: {error}")
        return True
    give({"ticket": job.ticket, "path": str(path)}, as_json=as_json, text=str(path))
    screen.done(job)
    return False


@click.command()
@click.argument("tickets", nargs=-1, required=True, metavar="TICKET...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a job.")
def status(*, tickets: tuple[str, ...], as_json: bool) -> None:
    """Read the status of jobs, once each. Reads are on the account's budget."""

    async def main(client: Client, _: Screen) -> None:
        for ticket in dict.fromkeys(tickets):
            update = await client.job(ticket).status()
            told = {"ticket": ticket, "state": update.state.value, "word": update.word, "progress": update.progress}
            told |= {"code": update.code, "reason": update.reason}
            progress = "" if update.progress is None else f" {update.progress:g} %"
            reason = ": ".join(word for word in (update.code, update.reason) if word)
            give(told, as_json=as_json, text=f"{ticket} {update.state.value}{progress} {reason}".rstrip())

    run_client(main, quiet=True)
