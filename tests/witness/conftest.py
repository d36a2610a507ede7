"""The witness: mitmproxy between client and service, and the ways through it."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme
from attrs import field, frozen

from dryapi_async import (
    Client,
    Timeouts,
)
from dryapi_async.simulator import Simulator

from ..conftest import make_sim

# Another path than the environment's is a mistake, so it isn't looked for elsewhere.
MITMDUMP = os.environ.get("DRYAPI_MITMDUMP") or shutil.which("mitmdump")
START_SECONDS = 30.0
PATIENCE_SECONDS, IMPATIENCE_SECONDS = 10.0, 0.4
"""What the witness calls late is 2.5 s."""
ADDON = Path(__file__).with_name("addon.py")


@frozen
class Seen:
    """What the witness wrote down about one plan."""

    requests: list[dict[str, Any]]
    bodies: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    connections: list[dict[str, Any]]

    def posts(self) -> int:
        return sum(one["method"] == "POST" for one in self.requests)


@frozen
class Witness:
    """A running mitmdump, its ports, and the ports on which it looks for the service."""

    folder: Path
    proxy: str
    reverse: str
    plain_port: int
    tls_port: int
    server_tls: ssl.SSLContext
    client_tls: ssl.SSLContext
    _plans: Iterator[int] = field(factory=lambda: count(1))

    def plan(self, path: str = "/", fault: str | None = None, times: int = 1_000_000) -> int:
        """Tell it what to do from now on; the number of the plan."""
        number = next(self._plans)
        draft = self.folder / "draft.json"
        draft.write_text(json.dumps({"id": number, "path": path, "fault": fault, "times": times if fault else 0}))
        draft.rename(self.folder / "plan.json")
        return number

    def saw(self, plan: int) -> Seen:
        lines = [line for line in self.lines() if line.get("plan") == plan]
        return Seen(*([line for line in lines if line["event"] == event] for event in ("request", "body", "answered", "connection")))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "record.jsonl").read_text().splitlines()]


def free_ports(number: int) -> list[int]:
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in holders]
    for one in holders:
        one.close()
    return ports


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    folder = tmp_path_factory.mktemp("witness")
    authority, server_tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    authority.cert_pem.write_to_path(str(folder / "service.pem"))
    proxy, reverse, plain, tls = free_ports(4)
    (folder / "plan.json").write_text(json.dumps({"id": 0, "path": "/", "fault": None, "times": 0}))
    options = {
        "confdir": folder / "mitmproxy",
        "listen_host": "127.0.0.1",
        "onboarding": "false",
        "ssl_verify_upstream_trusted_ca": folder / "service.pem",
    }
    command = [str(MITMDUMP), "-q", "-s", str(ADDON)]
    command += ["--mode", f"regular@127.0.0.1:{proxy}", "--mode", f"reverse:http://127.0.0.1:{plain}@127.0.0.1:{reverse}"]
    command += [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    paths = {"WITNESS_PLAN": str(folder / "plan.json"), "WITNESS_RECORD": str(folder / "record.jsonl")}
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={"PATH": os.defpath, "HOME": str(folder), **paths}
        )
    try:
        wait_until_it_listens(process, folder)
        trusted = ssl.create_default_context(cafile=folder / "mitmproxy" / "mitmproxy-ca-cert.pem")
        yield Witness(folder, f"http://127.0.0.1:{proxy}", f"http://127.0.0.1:{reverse}", plain, tls, server_tls, trusted)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_listens(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    until = time.monotonic() + START_SECONDS
    record = folder / "record.jsonl"
    while not (record.exists() and '"running"' in record.read_text()):
        assert process.poll() is None, (folder / "output.txt").read_text()
        assert time.monotonic() < until, f"mitmdump didn't listen within {START_SECONDS:g} s: {(folder / 'output.txt').read_text()}"
        time.sleep(0.05)


@asynccontextmanager
async def way_through(
    witness: Witness, way: str, fault: str | None = None, *, proxy: str | None = None, result_size: int | None = None, push: bool = False
) -> AsyncIterator[tuple[Simulator, Client]]:
    """Open a service and a client that reaches it only through the witness."""
    tls = way == "a tunnel"
    sim_options = {"port": witness.tls_port, "ssl": witness.server_tls} if tls else {"port": witness.plain_port}
    idle = IMPATIENCE_SECONDS if fault == "late" else PATIENCE_SECONDS
    async with (
        make_sim(duration=0.05, result_size=result_size, **sim_options) as sim,
        Client(
            sim.key,
            base_url=witness.reverse if way == "a front" else sim.url,
            proxy=None if way == "a front" else proxy or witness.proxy,
            ssl=witness.client_tls if tls else None,
            timeouts=Timeouts(idle=idle),
            client_id=sim.client_id if push else None,
        ) as client,
    ):
        yield sim, client


WAYS = ("a proxy", "a front", "a tunnel")
"""An explicit proxy over http, a reverse proxy, and CONNECT with TLS inside that the witness opens."""
