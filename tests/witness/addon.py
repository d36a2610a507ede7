"""What mitmdump loads: it does the faults it is told to, and writes down each request it sees. It knows nothing of our code.

The plan is a JSON file, read at every request: ``{"id": 1, "path": "/txt2img", "fault": "killed after", "times": 1}``. The record is JSON
lines. Whatever this process dials or looks up outside this machine is refused, and written down, too.
"""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from mitmproxy import connection, ctx, http

PLAN, RECORD = Path(os.environ["WITNESS_PLAN"]), Path(os.environ["WITNESS_RECORD"])
PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
SECONDS_LATE = 2.5


def write_down(event: str, **what: Any) -> None:
    with RECORD.open("a") as record:
        record.write(json.dumps({"event": event, **what}) + "\n")


def watch_dialling(event: str, given: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(given[1], tuple):
        host = given[1][0]
    elif event == "socket.getaddrinfo":
        host = given[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    try:
        inside = ip_address(host).is_loopback
    except ValueError:
        inside = False
    write_down("dialled" if inside else "outside", host=host)
    if not inside:
        raise PermissionError(f"{host} isn't this machine")


sys.addaudithook(watch_dialling)


def kill(flow: http.HTTPFlow) -> None:
    flow.kill()


def answer(status: int, **headers: str) -> Callable[[http.HTTPFlow], None]:
    def act(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(status, PAGE.format(status), {"Content-Type": "text/html", **headers})

    return act


def change(make: Callable[[bytes], bytes]) -> Callable[[http.HTTPFlow], None]:
    def act(flow: http.HTTPFlow) -> None:
        if flow.response is not None:
            flow.response.content = make(flow.response.content or b"")

    return act


def promise_more(flow: http.HTTPFlow) -> None:
    """Announce more bytes than come, and close."""
    if flow.response is not None:
        flow.response.headers["Content-Length"] = str(len(flow.response.raw_content or b"") + 100)
        flow.response.headers["Connection"] = "close"


def cut(flow: http.HTTPFlow) -> None:
    """Stop in the middle, and close."""
    if flow.response is not None:
        flow.response.raw_content = (flow.response.raw_content or b"")[: len(flow.response.raw_content or b"") // 2]
        flow.response.headers["Connection"] = "close"


async def linger(flow: http.HTTPFlow) -> None:
    await asyncio.sleep(SECONDS_LATE)


# At which moment, and what is done then: "request" is before a byte of it went on to the server, "response" after the server answered.
FAULTS: dict[str, tuple[str, Callable[[http.HTTPFlow], Awaitable[None] | None]]] = {
    "killed in its headers": ("requestheaders", kill),
    "killed before it went on": ("request", kill),
    "killed at the answer's headers": ("responseheaders", kill),
    "killed after": ("response", kill),
    "500 before": ("request", answer(500)),
    "502 before": ("request", answer(502)),
    "502 after": ("response", answer(502)),
    "503 after": ("response", answer(503)),
    "504 after": ("response", answer(504)),
    "307 before": ("request", answer(307, Location="/api/v1/client/elsewhere")),
    "307 after": ("response", answer(307, Location="/api/v1/client/elsewhere")),
    "401 before": ("request", answer(401)),
    "413 before": ("request", answer(413)),
    "429 before": ("request", answer(429, **{"Retry-After": "0.1"})),
    "half the JSON": ("response", change(lambda content: content[: len(content) // 2])),
    "no JSON": ("response", change(lambda content: b"\x16\x03\x01" + content)),
    "nothing": ("response", change(lambda content: b"")),
    "fewer bytes than promised": ("response", promise_more),
    "cut in its middle": ("response", cut),
    "late": ("response", linger),
}


def read_plan() -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(PLAN.read_text())
    return plan


class Witness:
    """Counts, hashes, misbehaves."""

    def __init__(self) -> None:
        self.struck: dict[int, int] = {}

    def running(self) -> None:
        servers = ctx.master.addons.get("proxyserver").servers
        write_down("running", listening={server.mode.full_spec: [list(address) for address in server.listen_addrs] for server in servers})

    def client_connected(self, client: connection.Client) -> None:
        write_down("connection", plan=read_plan()["id"])

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        plan = read_plan()
        fault = None
        if plan["path"] in flow.request.path and self.struck.get(plan["id"], 0) < plan["times"]:
            self.struck[plan["id"]] = self.struck.get(plan["id"], 0) + 1
            fault = plan["fault"]
        flow.metadata["witness"] = (plan["id"], fault)
        write_down("request", plan=plan["id"], method=flow.request.method, path=flow.request.path.partition("?")[0], fault=fault)
        await self.strike("requestheaders", flow)

    async def request(self, flow: http.HTTPFlow) -> None:
        body = flow.request.content or b""
        files = [hashlib.sha256(file).hexdigest() for file in find_files(flow.request.headers.get("Content-Type", ""), body)]
        write_down(
            "body",
            plan=flow.metadata["witness"][0],
            sha256=hashlib.sha256(body).hexdigest(),
            size=len(body),
            files=files,
            scheme=flow.request.scheme,
        )
        await self.strike("request", flow)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        await self.strike("responseheaders", flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        content = b"" if flow.response is None else flow.response.raw_content or b""
        write_down("answered", plan=flow.metadata["witness"][0], sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        await self.strike("response", flow)

    @staticmethod
    async def strike(moment: str, flow: http.HTTPFlow) -> None:
        fault = flow.metadata["witness"][1]
        if fault is None or FAULTS[fault][0] != moment:
            return
        doing = FAULTS[fault][1](flow)
        if doing is not None:
            await doing


def find_files(content_type: str, body: bytes) -> list[bytes]:
    """Cut the files out of a form: what stands between a part's blank line and the next boundary."""
    if not content_type.startswith("multipart/form-data"):
        return []
    boundary = b"\r\n--" + content_type.partition("boundary=")[2].strip('"').encode()
    parts = (part.partition(b"\r\n\r\n") for part in (b"\r\n" + body).split(boundary))
    return [content for head, _, content in parts if b"filename=" in head]


addons = [Witness()]
