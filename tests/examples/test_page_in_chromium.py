"""The example's page as its visitor has it: a real browser, four workers, the simulator, all started by the README's command."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dryapi_async.simulator.pictures import draw_prompt, encode

from .conftest import Page, free_port, running

pytestmark = pytest.mark.processes

SHOTS = os.environ.get("PHOTO_SHOTS")
"""A folder for screenshots, for who wants to look at them."""


@pytest.fixture(scope="module", params=["fastapi_app", "aiohttp_app"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "fastapi_app":
        pytest.importorskip("fastapi", reason="FastAPI isn't installed")
        pytest.importorskip("uvicorn", reason="uvicorn isn't installed")
    port, folder = free_port(), tmp_path_factory.mktemp("data")
    command = ("-m", f"examples.{request.param}", "--port", str(port), "--folder", str(folder), "--speed", "0.8")
    with running(*command, port=port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a lighthouse.jpg"
    path.write_bytes(encode(draw_prompt("a lighthouse by day", 1024, 768, 3), "jpg"))
    return path


def look(page: Page, name: str) -> None:
    if SHOTS:
        for width, height, scheme in ((1280, 900, "light"), (390, 844, "light"), (1280, 900, "dark")):
            page.seem(width, height, scheme)
            page.driver.save_screenshot(str(Path(SHOTS) / f"{name}-{width}-{scheme}.png"))
        page.seem(1280, 900, "light")


def state(page: Page) -> str:
    return str(page.run("return document.querySelector('#news').dataset.state"))


def test_a_visitor_uploads_sees_progress_sees_the_picture_and_reloads(browser: Page, url: str, photo: Path) -> None:
    page = browser
    page.seem(1280, 900, "light")
    page.complaints()
    page.driver.get(url)
    look(page, "1-start")
    page.driver.find_element("css selector", "#file").send_keys(str(photo))
    page.loaded("#chosen")
    page.click("#ideas button")
    look(page, "2-chosen")
    page.click("#go")
    page.until(lambda: state(page) == "processing")
    address = page.driver.current_url
    assert re.fullmatch(re.escape(url) + "/photos/[0-9a-f]{24}", address)
    page.until(lambda: page.run("return document.querySelector('#bar').value > 20"))
    look(page, "3-processing")
    # A reload in the middle goes on where it was.
    page.driver.get(address)
    seen = page.until(lambda: page.run("return document.querySelector('#bar').position > 0 && document.querySelector('#bar').value"))
    assert seen > 20
    page.until(lambda: state(page) == "done")
    assert page.loaded("#after") == 1024
    assert page.loaded("#before") == 1024
    assert page.text("#state") == "Done"
    assert page.text("#said") == "The same, at night, in snow"
    look(page, "4-done")
    # And a reload afterwards shows the picture.
    page.driver.get(address)
    page.until(lambda: state(page) == "done")
    assert page.loaded("#after") == 1024
    assert page.run("return document.querySelector('#keep').hidden") is False
    # On a narrow screen nothing stands out to the side.
    page.seem(360, 740, "light")
    assert page.run("return document.documentElement.scrollWidth") <= 360
    assert page.complaints() == []


def test_a_file_that_is_no_picture_is_told_on_the_page(browser: Page, url: str, tmp_path: Path) -> None:
    page = browser
    page.seem(1280, 900, "light")
    page.driver.get(url)
    fake = tmp_path / "not a photo.jpg"
    fake.write_text("words")
    page.driver.find_element("css selector", "#file").send_keys(str(fake))
    page.click("#ideas button")
    page.click("#go")
    page.until(lambda: "no JPEG" in page.text("#wrong"))
    look(page, "5-refused")
    assert page.driver.current_url == f"{url}/"
    page.complaints()
