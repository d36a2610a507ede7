"""``dryapi wait TICKET...`` and ``dryapi status TICKET...``."""

import asyncio
from typing import Any

import click

from dryapi_async import Client, DryAPIError, Job, JobFailedError
from dryapi_async.cli.completion import complete_folders
from dryapi_async.cli.flags import find_class, timeout_option
from dryapi_async.cli.screen import FAILED, Screen, describe_error, give, run_client
from dryapi_async.cli.targets import Target, read_target, refuse_out
from dryapi_async.cli.words import say_in_shell
from dryapi_async.operations.base import JobOperation


@click.command()
@click.argument("tickets", nargs=-1, required=True, metavar="TICKET...")
@click.option(
    "--out",
    required=True,
    callback=read_target(folder=True, named=True),
    shell_complete=complete_folders,
    metavar="DIR",
    help="The folder to save in; made if need be. For one job it may be the file to write, such as fox.png.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a job.")
def wait(*, tickets: tuple[str, ...], out: Target, timeout: float, as_json: bool) -> None:
    """Wait for jobs by their tickets, and save what they made. It costs nothing: they are paid for."""
    tickets = tuple(dict.fromkeys(tickets))
    if not out.is_folder:
        _check_name(tickets, out)
    run_client(lambda client, screen: _wait(client, screen, tickets, out, timeout, as_json=as_json), quiet=as_json)


wait.params.append(timeout_option("Seconds to wait for each job."))


def _check_name(tickets: tuple[str, ...], out: Target) -> None:
    if len(tickets) > 1:
        refuse_out(f"{out.path} is one file, and there are {len(tickets)} jobs: give a folder.")
    cls = find_class("".join(tickets).partition(":")[0])
    if cls is not None and issubclass(cls, JobOperation):
        out.check_kind(cls.result_type)


async def _wait(client: Client, screen: Screen, tickets: tuple[str, ...], out: Target, timeout: float, *, as_json: bool) -> None:
    jobs: list[Job[Any]] = [client.job(ticket) for ticket in tickets]
    out.prove()
    screen.wanted = out
    for job in jobs:
        screen.follow(job)
    failed = await asyncio.gather(*(_save(screen, job, out, timeout, as_json=as_json) for job in jobs))
    if any(failed):
        raise click.exceptions.Exit(FAILED)


async def _save(screen: Screen, job: Job[Any], out: Target, timeout: float, *, as_json: bool) -> bool:
    """Save one job's result, and say whether that failed: the others go on."""
    try:
        result = await job.result(timeout=timeout)
        path = await result.save(out.prepare())
    except (DryAPIError, OSError) as error:
        _tell_failure(screen, job.ticket, error, as_json=as_json)
        if isinstance(error, JobFailedError):
            screen.done(job)
        return True
    give({"ticket": job.ticket, "path": str(path)}, as_json=as_json, text=str(path))
    screen.done(job)
    return False


def _tell_failure(screen: Screen, ticket: str, error: Exception, *, as_json: bool) -> None:
    """Say what became of one job; a machine reads it where it reads the others."""
    if as_json:
        give({"ticket": ticket, "error": type(error).__name__, "message": say_in_shell(str(error))}, as_json=True, text="")
    else:
        screen.say(describe_error(error) if ticket in str(error) else f"{describe_error(error)} ({ticket})")


@click.command()
@click.argument("tickets", nargs=-1, required=True, metavar="TICKET...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a job.")
def status(*, tickets: tuple[str, ...], as_json: bool) -> None:
    """Read the status of jobs, once each. Reads are on the account's budget."""

    async def main(client: Client, screen: Screen) -> None:
        jobs = [client.job(ticket) for ticket in dict.fromkeys(tickets)]
        failed = [await _read(screen, job, as_json=as_json) for job in jobs]
        if any(failed):
            raise click.exceptions.Exit(FAILED)

    run_client(main)


async def _read(screen: Screen, job: Job[Any], *, as_json: bool) -> bool:
    """Print one job's status, and say whether that failed: the others are read all the same."""
    try:
        update = await job.status()
    except DryAPIError as error:
        _tell_failure(screen, job.ticket, error, as_json=as_json)
        return True
    told = {"ticket": job.ticket, "state": update.state.value, "word": update.word, "progress": update.progress}
    told |= {"code": update.code, "reason": update.reason}
    progress = "" if update.progress is None else f" {update.progress:g} %"
    reason = ": ".join(word for word in (update.code, update.reason) if word)
    give(told, as_json=as_json, text=f"{job.ticket} {update.state.value}{progress} {reason}".rstrip())
    return False
