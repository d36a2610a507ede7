"""Clients that aren't ours hear the simulator's push channel, and the maker's own signing agrees with it.

Each is given the simulator's host and port; nothing else is dialled.
"""

import asyncio
import json
import sys
from typing import Any

import pytest

from dryapi_async.simulator import Simulator

from .conftest import open_talk, wait_until

pytest.importorskip("pysher")
asyncpusher = pytest.importorskip("asyncpusher")
pusher = pytest.importorskip("pusher")

# They keep to the real clock: pysher runs threads, asyncpusher looks once a second whether it is connected.
pytestmark = [pytest.mark.anyio, pytest.mark.processes]
EVENT = "request.status.updated"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def check(sim: Simulator, request_id: str, told: list[Any]) -> None:
    """Hold what a client heard against what a job's life is."""
    assert {one["request_id"] for one in told} == {request_id}
    assert [one["status"] for one in told] == ["processing"] * 4 + ["done"]
    assert [float(one["progress"]) for one in told] == sorted(float(one["progress"]) for one in told)
    assert told[-1]["result_url"].startswith(sim.storage_url)


def port_of(sim: Simulator) -> int:
    return int(sim.url.rpartition(":")[2])


async def test_p22_asyncpusher_hears_a_job() -> None:
    told: list[Any] = []

    async def note(data: Any) -> None:
        told.append(data)

    async with Simulator(seed=1, duration=0.4, pictures=False) as sim, open_talk(sim) as talk:

        async def authorise(data: dict[str, str]) -> Any:
            async with talk.session.post(f"{sim.url}/broadcasting/auth", json=data) as answer:
                assert answer.status == 200
                return await answer.json()

        client = asyncpusher.Pusher(
            sim.push.app_key, custom_host=sim.host, custom_port=port_of(sim), secure=False, channel_authenticator=authorise, auto_sub=True
        )
        await client.connect()
        channel = await client.subscribe(sim.push.channel)
        channel.bind(EVENT, note)
        await wait_until(lambda: channel.state is channel.State.SUBSCRIBED)
        request_id = await talk.submit()
        await wait_until(lambda: told and told[-1]["status"] == "done")
        check(sim, request_id, told)

        first = sim.push.sockets[0].socket_id
        await sim.push.drop(4200)
        await wait_until(lambda: sim.push.subscribed and sim.push.sockets[0].socket_id != first)
        told.clear()
        again = await talk.submit()
        await wait_until(lambda: told and told[-1]["status"] == "done")
        check(sim, again, told)

        await sim.push.drop(4001)
        await asyncio.sleep(1.5)
        assert (sim.push.sockets, sim.push.total) == ([], 2)
        await client.disconnect()


# A process of its own: its disconnect() leaves a thread in a select() of 100 s, and its library a socket to the garbage collector.
PYSHER = """
import json, os, sys, threading
import pysher

app_key, host, port, channel_name, how = sys.argv[1:]
client = pysher.Pusher(app_key, secure=False, custom_host=host, port=int(port), **json.loads(how))
ended = threading.Event()

def note(data):
    print(data, flush=True)
    if json.loads(data)["status"] == "done":
        ended.set()

def subscribe(_):
    channel = client.subscribe(channel_name)
    channel.bind("pusher_internal:subscription_succeeded", lambda *_: print("subscribed", flush=True))
    channel.bind("request.status.updated", note)

client.connection.bind("pusher:connection_established", subscribe)
client.connect()
print("in time" if ended.wait(20) and client.connection.pong_received else "late", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("signed", ["by the endpoint", "by itself"])
async def test_p22_pysher_hears_a_job(signed: str) -> None:
    async with Simulator(seed=1, duration=0.4, pictures=False) as sim, open_talk(sim) as talk:
        endpoint = {"auth_endpoint": f"{sim.url}/broadcasting/auth", "auth_endpoint_headers": {"Authorization": f"Bearer {sim.key}"}}
        how = json.dumps({"secret": sim.push.secret} if signed == "by itself" else endpoint)
        options = [sim.push.app_key, sim.host, str(port_of(sim)), sim.push.channel, how]
        client = await asyncio.create_subprocess_exec(sys.executable, "-c", PYSHER, *options, stdout=asyncio.subprocess.PIPE)
        assert client.stdout is not None
        async with asyncio.timeout(30):
            assert await client.stdout.readline() == b"subscribed\n"
            request_id = await talk.submit()
            *told, verdict = (await client.stdout.read()).decode().splitlines()
            assert await client.wait() == 0
        assert verdict == "in time"
        check(sim, request_id, [json.loads(line) for line in told])
        kinds = [one.headers["Content-Type"] for one in sim.requests if one.operation == "broadcasting/auth"]
        assert kinds == ([] if signed == "by itself" else ["application/x-www-form-urlencoded"])


@pytest.mark.parametrize("socket_id", ["1.2", "123456789.987654321"])
async def test_p22_the_makers_own_signing_agrees(socket_id: str) -> None:
    async with Simulator(seed=1, pictures=False) as sim, open_talk(sim) as talk:
        maker = pusher.Pusher(app_id="1", key=sim.push.app_key, secret=sim.push.secret, host=sim.host, port=port_of(sim), ssl=False)
        signed = maker.authenticate(sim.push.channel, socket_id)
        assert signed == {"auth": sim.push.sign(socket_id, sim.push.channel)}
        asked = {"socket_id": socket_id, "channel_name": sim.push.channel}
        for form in ({"json": asked}, {"data": asked}):
            async with talk.session.post(f"{sim.url}/broadcasting/auth", **form) as answer:  # type: ignore[arg-type]  one option of two
                assert await answer.json() == signed
