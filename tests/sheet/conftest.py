"""A browser for the contact sheet, and sheets for it."""

import io
import json
import os
import shutil
import subprocess
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dryapi_async.sheet import Sheet
from dryapi_async.simulator.pictures import draw_prompt, encode

from .sheets import MANY, NASTY, ODD_NAME, make_entry

FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-default-apps",
    "disable-dev-shm-usage",
    "disable-extensions",
    "disable-features=Translate,OptimizationHints,MediaRouter,InterestFeedContentSuggestions",
    "mute-audio",
    "autoplay-policy=no-user-gesture-required",
    "host-resolver-rules=MAP * ~NOTFOUND",
)


class Page:
    """A browser with a sheet in it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, reached: Callable[[], Any], seconds: float = 10.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := reached()):
            assert time.monotonic() < end, f"not within {seconds} s: {self.driver.get_log('browser')}"
            time.sleep(0.02)
        return found

    def open(self, file: Path, more: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(file.as_uri() + more)
        self.until(lambda: self.run("return document.documentElement.dataset.ready"))

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common import action_chains  # noqa: PLC0415  an extra

        for key in keys:
            action_chains.ActionChains(self.driver, duration=0).send_keys(key).perform()

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def text(self, selector: str) -> str:
        # As JSON: half a surrogate pair doesn't come through the driver as it is.
        return str(json.loads(self.run("return JSON.stringify(document.querySelector(arguments[0])?.textContent ?? '')", selector)))

    def said(self) -> str:
        return self.text("#said")

    def opened(self) -> str | None:
        """Tell which result is open."""
        return self.run("return document.querySelector('dialog').open ? document.querySelector('#named :last-child').textContent : null")

    def focused(self) -> str | None:
        """Tell which card has the focus."""
        return self.run("return document.activeElement.closest('.open')?.querySelector('.top :last-child').textContent")

    def cards(self) -> list[str]:
        return list(self.run("return [...document.querySelectorAll('.card .top :last-child')].map((one) => one.textContent)"))

    def loaded(self, selector: str) -> int:
        """Wait until a picture is loaded; give its width."""
        return int(self.until(lambda: self.run("return document.querySelector(arguments[0])?.naturalWidth", selector)))

    def seem(self, width: int, height: int, scheme: str) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def requests(self) -> list[str]:
        """List what was asked for since the last look."""
        messages = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        return [one["message"] for one in self.driver.get_log("browser")]


@contextmanager
def open_browser(profile: Path, *, own_servers: bool) -> Iterator[Page]:
    """Start Chromium, which finds no other machine; with ``own_servers`` it may look at those of this one."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Chromium is driven by selenium, which isn't installed")
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415  after the line that skips

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("Chromium isn't installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        but_own = ", EXCLUDE 127.0.0.1" if own_servers and flag.startswith("host-resolver-rules") else ""
        options.add_argument(f"--{flag}{but_own}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = Service(driver, log_output=subprocess.DEVNULL, env={**os.environ, "SE_OFFLINE": "true"})
    running = webdriver.Chrome(options=options, service=service)
    try:
        yield Page(running)
    finally:
        running.quit()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile"), own_servers=False) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    browser.seem(1400, 900, "light")
    browser.driver.get("about:blank")
    browser.requests()
    browser.complaints()
    return browser


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make 5,000 results: real files, pictures with a photo's texture."""
    from PIL import Image  # noqa: PLC0415  an extra

    folder = tmp_path_factory.mktemp("many")
    noise = Image.effect_noise((320, 240), 60).convert("RGB")
    pictures = [encode(Image.blend(draw_prompt(f"picture {number}", 320, 240, number), noise, 0.15), "jpg") for number in range(20)]
    sheet = Sheet(folder / "index.html", title="5,000 results")
    for index in range(MANY):
        fields: dict[str, Any] = {"prompt": f"a fox, variation {index}" + ", in snow" * (index % 7), "model": "Flux1schnell", "seed": index}
        if index % 100 == 99:
            fields |= {"state": "failed", "error": "JobFailedError: out of memory"}
        elif index % 1000 == 500:
            fields |= {"state": "unknown", "error": "SubmissionUnknownError: it may have been billed"}
        else:
            (folder / f"{index:05}.jpg").write_bytes(pictures[index % 20])
            fields |= {"file": f"{index:05}.jpg", "seconds": 12.3, "price": "0.0021"}
        sheet.add(make_entry(index, **fields))
    sheet.write()
    return sheet.path


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Make one of each kind of result."""
    (tmp_path / "photos").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    picture, before = encode(draw_prompt("after", 320, 240, 1), "png"), encode(draw_prompt("before", 640, 480, 2), "jpg")
    (tmp_path / "photos" / "fox before.jpg").write_bytes(before)
    for name in ("plain.png", ODD_NAME, "edited.png"):
        (out / name).write_bytes(picture)
    (out / "sound.wav").write_bytes(sound())
    (out / "text.txt").write_text("<b>a text</b>")
    (out / "broken.png").write_bytes(picture[:200])
    sheet = Sheet(out / "index.html")
    for index, fields in enumerate(
        (
            {"file": "plain.png", "prompt": "plain", "state": "saved"},
            {"file": ODD_NAME, "prompt": NASTY, "key": NASTY, "model": NASTY},
            {"file": "edited.png", "source": "../photos/fox before.jpg", "operation": "img2img"},
            {"file": "sound.wav", "operation": "txt2music"},
            {"file": "text.txt", "operation": "img2txt"},
            {"file": "broken.png"},
            {"file": "gone.png"},
            {"state": "failed", "error": NASTY},
            {"state": "unknown", "error": "it may have been billed", "source": "../photos/fox before.jpg"},
            {"state": "waiting"},
        )
    ):
        sheet.add(make_entry(index, **fields))
    sheet.write()
    return sheet.path


def sound() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(32000))
    return out.getvalue()
