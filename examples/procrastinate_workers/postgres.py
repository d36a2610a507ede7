"""A PostgreSQL server of one's own, from what is installed, for as long as it is needed."""

import asyncio
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection, OperationalError


def find_postgres() -> Path | None:
    """Find the folder with initdb and postgres: Debian keeps it out of PATH. None if PostgreSQL isn't installed."""
    known = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql*/bin")]
    newest_first = sorted(known, key=lambda folder: [int(part) for part in folder.parent.name.split("@") if part.isdecimal()], reverse=True)
    on_path = shutil.which("initdb")
    folders = ([Path(on_path).resolve().parent] if on_path else []) + newest_first
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _find_identity() -> dict[str, Any]:
    """Say whose process it must be: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = {one.pw_name: one for one in pwd.getpwall()}
    account = names.get("postgres") or names["nobody"]
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@asynccontextmanager
async def run_postgres() -> AsyncGenerator[str, None]:
    """Run a server in a temporary folder, on a Unix socket there, and give the address that psycopg takes.

    Raises:
        RuntimeError: PostgreSQL isn't installed, or doesn't start; its own words are in the message.
    """
    programs = find_postgres()
    if programs is None:
        raise RuntimeError("PostgreSQL isn't installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path may have 107 characters
    identity = _find_identity()
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    log = folder / "log"
    # A session of its own: Ctrl-C is for this program, which stops the workers first and the server last.
    options: dict[str, Any] = {"cwd": folder, "start_new_session": True, **identity}
    server: asyncio.subprocess.Process | None = None
    try:
        with log.open("wb") as words:
            made = await asyncio.create_subprocess_exec(
                programs / "initdb",
                "-D",
                folder / "data",
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "--no-locale",
                "-E",
                "UTF8",
                stdout=words,
                stderr=words,
                **options,
            )  # fmt: skip  a command line reads as one
            if await made.wait() != 0:
                raise RuntimeError(f"initdb failed: {log.read_text()}")
            # It is thrown away with its folder, so nothing is gained by waiting for the disk.
            server = await asyncio.create_subprocess_exec(
                programs / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off",
                stdout=words, stderr=words, **options,
            )  # fmt: skip
        database = f"host={folder} user=postgres dbname=postgres"
        await _wait_for(server, database, log)
        yield database
    finally:
        if server is not None and server.returncode is None:
            server.send_signal(signal.SIGINT)  # "fast": it ends its sessions and itself
            await server.wait()
        shutil.rmtree(folder)


async def _wait_for(server: asyncio.subprocess.Process, database: str, log: Path) -> None:
    """Wait until a server takes connections."""
    while server.returncode is None:
        try:
            async with await AsyncConnection.connect(database):
                return
        except OperationalError:
            await asyncio.sleep(0.05)
    raise RuntimeError(f"PostgreSQL ended: {log.read_text()}")  # noqa: ASYNC240  a few lines
