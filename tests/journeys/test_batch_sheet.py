"""A batch's contact sheet, and a list that several share or begin again."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from dryapi_async import AlreadySubmittedError, Client, ConfigurationError, Img2Img, InputError, Outcome, Txt2Img
from dryapi_async.batch.sheets import make_entry
from dryapi_async.sheet import Sheet
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, files_in, make_client

pytestmark = pytest.mark.anyio


def foxes(count: int) -> list[tuple[str, Txt2Img]]:
    return [
        (f"fox {number}", Txt2Img(prompt=f"fox <{number}>", model="Flux1schnell", width=256, height=192, steps=4, seed=number))
        for number in range(count)
    ]


async def test_each_outcome_is_on_the_sheet(sim: Simulator, client: Client, tmp_path: Path) -> None:
    sim.script("txt2img", Fault.status(422, {"message": "no foxes"}))
    path = tmp_path / "out" / "index.html"
    async with client.batch(foxes(5), save=tmp_path / "out" / "{key}{suffix}", sheet=path, at_once=1) as batch:
        outcomes = [outcome async for outcome in batch]
    assert [outcome.error is None for outcome in outcomes] == [False, True, True, True, True]
    text = path.read_text()
    assert "fox 4.png" in text.replace("%20", " ")
    assert "<4>" not in text, "a prompt is never mark-up"
    sheet = Sheet(path)
    assert await sheet.states() == {"fox 0": "failed"} | {f"fox {number}": "saved" for number in range(1, 5)}
    await sheet.close()


async def test_a_sheet_of_ones_own_stays_open(client: Client, tmp_path: Path) -> None:
    async with Sheet(tmp_path / "index.html") as sheet:
        for seed in range(2):
            async with client.batch([(f"{seed}", FOX)], save=tmp_path / "{key}{suffix}", sheet=sheet) as batch:
                assert [outcome.error async for outcome in batch] == [None]
        assert await sheet.states() == {"0": "saved", "1": "saved"}


async def test_a_page_of_somebody_elses_is_refused_before_anything_is_paid_for(sim: Simulator, client: Client, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my homepage")
    with pytest.raises(FileExistsError, match="no contact sheet"):
        async with client.batch([FOX], sheet=tmp_path / "index.html"):
            pass
    with pytest.raises(ConfigurationError, match="sheet"):
        client.batch([FOX], sheet=5)  # type: ignore[arg-type]
    assert sim.jobs_billed == 0


async def test_a_sheet_that_goes_away_costs_no_result(client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pages" / "index.html"
    async with client.batch(foxes(4), save=tmp_path / "{key}{suffix}", sheet=path, at_once=1) as batch:
        errors: list[Exception | None] = []
        async for outcome in batch:
            errors.append(outcome.error)
            if len(errors) == 1:
                await asyncio.sleep(0.1)
                path.unlink()
                path.mkdir()
    assert errors == [None] * 4
    assert "can't be written any more" in caplog.text


async def test_the_picture_that_an_edit_began_with_is_on_its_entry(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    edit = Img2Img(prompt="at night", model="QwenImageEdit_Plus_NF4", steps=20, seed=42, image=tmp_path / "a.png")
    async with client.batch([("night", edit)], save=tmp_path / "{key}{suffix}") as batch:
        (outcome,) = [outcome async for outcome in batch]
    entry = make_entry(outcome)
    assert (entry.key, entry.operation, entry.state, entry.prompt, entry.seed) == ("night", "img2img", "saved", "at night", 42)
    assert (entry.source, entry.file) == (tmp_path / "a.png", outcome.path)
    assert entry.seconds is not None
    assert 1 < entry.seconds < 30


async def run_all(client: Client, count: int, **options: object) -> list[Outcome[object]]:
    async with client.batch(foxes(count), once=True, **options) as batch:  # type: ignore[arg-type]
        return [outcome async for outcome in batch]


async def test_p24_two_share_a_list_and_send_each_key_once(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as one, make_client(sim, journal=tmp_path / "jobs.db") as other:
        shares = await asyncio.gather(run_all(one, 40), run_all(other, 40))
    made = sorted(outcome.key for share in shares for outcome in share if outcome.error is None)
    left = [outcome.error for share in shares for outcome in share if outcome.error is not None]
    assert made == sorted(key for key, _ in foxes(40))
    assert all(isinstance(error, AlreadySubmittedError) for error in left)
    assert (len(left), sim.jobs_billed) == (40, 40)


async def test_p24_a_list_that_is_begun_again_sends_what_wasnt_sent(sim: Simulator, tmp_path: Path) -> None:
    sim.script("txt2img", Fault.status(422, {"message": "no"}), Fault.reset("after_body"))
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        first = await run_all(client, 5, at_once=1)
        assert [type(outcome.error).__name__ for outcome in first[:2]] == ["ValidationError", "SubmissionUnknownError"]
        again = await run_all(client, 6)
        assert sorted(outcome.key for outcome in again if outcome.error is None) == ["fox 0", "fox 5"]
        paid_twice = await run_all(client, 6, again=("unknown",))
        assert [outcome.key for outcome in paid_twice if outcome.error is None] == ["fox 1"]
    assert sim.jobs_billed == 7


async def test_once_without_a_journal_is_refused_at_once(sim: Simulator, client: Client) -> None:
    with pytest.raises(ConfigurationError, match="journal"):
        await run_all(client, 2)
    with pytest.raises(InputError, match="again"):
        client.batch([FOX], once=True, again=("saved",))
    assert not sim.requests


async def test_prices_that_are_only_shown_stop_nothing(sim: Simulator, client: Client, tmp_path: Path) -> None:
    sim.script("txt2img/price-calculation", Fault.status(500), times=float("inf"))
    async with client.batch(foxes(3), budget=Decimal("inf"), save=tmp_path / "{key}{suffix}") as batch:
        outcomes = [outcome async for outcome in batch]
    assert [(outcome.error, outcome.price) for outcome in outcomes] == [(None, None)] * 3
    assert len(files_in(tmp_path)) == 3
