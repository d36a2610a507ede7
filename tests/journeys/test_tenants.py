"""P36: several keys on one client's connections; each keeps its own limits, journal rows and push."""

import asyncio
from pathlib import Path

import pytest

from dryapi_async import Client, ClientClosedError, ConfigurationError, Limits, Rate, Retry, Timeouts
from dryapi_async.options import account_of
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, begin, files_in, make_client, make_sim, now, seen, settle, until

pytestmark = pytest.mark.anyio

KEYS = [f"{number}|tenant-key-{number}" for number in range(100)]


async def open_for_all(sim: Simulator) -> None:
    for key in KEYS:
        sim.accept_key(key)


async def test_p36_a_hundred_keys_share_one_pool(sim: Simulator) -> None:
    await open_for_all(sim)
    async with make_client(sim, pool_size=20) as home:
        tenants = [home.with_options(api_key=key) for key in KEYS]
        await asyncio.gather(*(tenant.call(FOX) for tenant in tenants for _ in range(10)))
        assert sim.jobs_billed == 1000
        assert sim.connections.peak <= 20
        sent = [one.headers["authorization"] for one in seen(sim, "txt2img")]
        assert {key: sent.count(f"Bearer {key}") for key in KEYS} == dict.fromkeys(KEYS, 10)
    await settle()
    assert not sim.connections.open


async def test_p36_each_key_has_lanes_of_its_own_however_many_clients_are_made_of_it() -> None:
    async with make_sim() as sim, make_client(sim, limits=Limits(lanes={"txt2img": Rate(2, 60.0)})) as home:
        await open_for_all(sim)
        one, other = home.with_options(api_key=KEYS[0]), home.with_options(api_key=KEYS[1])
        await asyncio.gather(*(tenant.call(FOX) for tenant in (one, one, other, other, home, home)))
        assert now() < 1, "two of each go at once"
        again = home.with_options(api_key=KEYS[0], retry=Retry(attempts=1), poll=5.0)
        await again.call(FOX)
        assert now() > 59, "the third of a key waits, also through another client"
        before = now()
        own = home.with_options(timeouts=Timeouts(idle=5.0))
        await own.call(FOX)
        assert now() - before < 61
        assert len({id(tenant._engine().exchange.pacing) for tenant in (home, own, one, again, other)}) == 3


async def test_p36_each_account_has_rows_of_its_own_in_one_journal(sim: Simulator, tmp_path: Path) -> None:
    await open_for_all(sim)
    async with make_client(sim, journal=tmp_path / "jobs.db") as home:
        tenants = [home.with_options(api_key=key) for key in KEYS[:5]]
        jobs = await asyncio.gather(*(tenant.call(FOX, label=f"of {number}") for number, tenant in enumerate(tenants)))
        await home.call(FOX, label="of home")
        for number, tenant in enumerate(tenants):
            (row,) = await tenant.journal.list()
            assert (row.label, row.ticket, row.account) == (f"of {number}", jobs[number].ticket, account_of(tenant.settings))
            assert KEYS[number] not in repr(row)
        assert [row.label for row in await home.journal.list()] == ["of home"]
        await tenants[0].call(FOX, label="of 1", once=True)
    assert not [name for name in files_in(tmp_path) if name.endswith(".lock")]


async def test_p36_each_listens_to_its_own_channel(sim: Simulator) -> None:
    async with make_client(sim, client_id=sim.client_id) as home:
        await home.call(FOX).result()
        await until(lambda: sim.push.subscribed)
        tenant = home.with_options(client_id=sim.client_id, poll=3.0)
        await tenant.call(FOX).result()
        await until(lambda: len(sim.push.sockets) == 2)
        other = home.with_options(api_key=sim.key + "", check=False)
        assert other.settings.client_id == sim.client_id
    await until(lambda: not sim.push.sockets)
    assert not sim.connections.open


async def test_p36_what_belongs_to_an_account_doesnt_pass_to_another(sim: Simulator) -> None:
    async with make_client(sim, client_id=sim.client_id, webhook_secret="whsec_a", webhook_url=f"{sim.url}/hook") as home:
        tenant = home.with_options(api_key=KEYS[0])
        assert (tenant.settings.client_id, tenant.settings.webhook_secret, tenant.settings.webhook_url) == (None, None, None)
        assert home.with_options(poll=1.0).settings.client_id == sim.client_id
        assert home.settings.api_key == sim.key


async def test_p36_closing_the_first_closes_for_all(sim: Simulator) -> None:
    await open_for_all(sim)
    sim.hold("txt2img")
    home = make_client(sim)
    tenant = home.with_options(api_key=KEYS[0])
    grandchild = tenant.with_options(poll=1.0)
    job = await tenant.call(FOX)
    wait = asyncio.create_task(job.result())
    await asyncio.sleep(5)
    await grandchild.aclose()
    with pytest.raises(ClientClosedError):
        await grandchild.balance()
    await tenant.balance()
    await home.aclose()
    with pytest.raises(ClientClosedError) as ended:
        await wait
    assert ended.value.tickets == (job.ticket,)
    with pytest.raises(ClientClosedError):
        await tenant.balance()
    assert not sim.connections.open


async def test_p36_each_has_its_own_hook_orphans_and_time_outs(sim: Simulator) -> None:
    await open_for_all(sim)
    heard: list[object] = []
    async with make_client(sim) as home:
        tenant = home.with_options(api_key=KEYS[0], on_event=heard.append, timeouts=Timeouts(idle=3.0), retry=Retry(attempts=1))
        assert tenant.orphans == ()
        await tenant.balance()
        assert heard
        sim.script("txt2img", Fault.delay(2.0))
        submit = await begin(sim, tenant.call(FOX))
        submit.cancel()
        await until(lambda: tenant.orphans)
        assert home.orphans == ()
        count = len(heard)
        await home.balance()
        assert len(heard) == count


async def test_p36_a_tenant_goes_on_in_the_next_loop(sim: Simulator) -> None:
    await open_for_all(sim)
    async with make_client(sim) as home:
        assert await home.with_options(api_key=KEYS[0]).balance() == await home.balance()


@pytest.mark.parametrize(
    "options", [{"base_url": "http://127.0.0.1:9"}, {"pool_size": 5}, {"api_key": ""}, {"limits": 5}, {"on_event": 5}, {"poll": -1}]
)
async def test_an_option_that_cant_be_another_is_refused(client: Client, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        client.with_options(**options)  # type: ignore[arg-type]


async def test_idle_accounts_are_forgotten_beyond_a_thousand(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dryapi_async.life.MOST_TENANTS", 10)
    await open_for_all(sim)
    async with make_client(sim) as home:
        for key in KEYS[:30]:
            await home.with_options(api_key=key).balance()
        assert len(home._life._tenants) == 30, "within a minute none is idle"  # type: ignore[union-attr]
        await asyncio.sleep(61)
        for key in KEYS[30:60]:
            await home.with_options(api_key=key).balance()
        assert len(home._life._tenants) == 30  # type: ignore[union-attr]


async def test_p36_a_method_as_hook_is_the_same_hook_each_time(sim: Simulator, client: Client) -> None:
    class Ears:
        def hear(self, event: object) -> None:
            """Hear."""

    ears = Ears()
    for _ in range(3):
        await client.with_options(on_event=ears.hear).balance()
    assert client.with_options(on_event=ears.hear).stats().requests == 3
