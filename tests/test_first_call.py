"""P38: what a program pays before its first call, and that the call itself pays nothing of it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.service import start_service

CALLS = """
    import asyncio, sys
    from dryapi_async import Client

    async def main():
        client = Client({key!r}, base_url={url!r}{options})
        before = set(sys.modules)
        job = {call}
        found = sorted(set(sys.modules) - before)
        print([name for name in found if name.partition(".")[0] not in sys.stdlib_module_names or name.startswith("dryapi_async")])
        await client.aclose()

    asyncio.run(main())
"""
FOX = "prompt='a fox in snow', model='Flux1schnell', width=512, height=512, steps=4, guidance=3.5, seed=7"
EDIT = "prompt='at night', model='QwenImageEdit_Plus_NF4', steps=20, seed=7, image={png!r}"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("call", "options"),
    [
        (f"await client.txt2img({FOX}).result()", ""),
        (f"await client.txt2img({FOX}).save({{folder!r}})", ""),
        (f"await client.img2img({EDIT}).result()", ""),
        (f"await client.txt2img({FOX}).price()", ""),
        ("await client.balance()", ""),
        ("await client.models()", ""),
        (f"await client.txt2img({FOX}).result()", ", client_id={client_id!r}"),
        (f"await client.txt2img({FOX})", ", journal={folder!r} + '/jobs.db'"),
        (f"await client.txt2img({FOX}).result()", ", on_event=lambda event: None"),
    ],
    ids=["result", "save", "upload", "price", "balance", "models", "push", "journal", "hook"],
)
def test_p38_the_first_call_on_a_made_client_imports_nothing_of_ours_or_others(tmp_path: Path, call: str, options: str) -> None:
    picture = tmp_path / "fox.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with start_service(duration=0.0) as service:
        names = {"png": str(picture), "folder": str(tmp_path), "client_id": service.client_id}
        code = CALLS.format(key=service.key, url=service.url, call=call.format(**names), options=options.format(**names))
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[]\n"


def test_p38_the_package_alone_imports_next_to_nothing() -> None:
    code = "import sys, dryapi_async; print([name for name in ('aiohttp', 'attrs', 'cattrs', 'sqlite3') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_p38_a_client_loads_what_tells_events_only_where_somebody_listens() -> None:
    code = """
import sys
from dryapi_async import Client
def loaded():
    rooms = ("events", "teller", "telemetry", "shared", "io.push", "io.journal", "batch")
    return [room for room in rooms if f"dryapi_async.{room}" in sys.modules]
Client("1|a-key")
print(loaded())
Client("1|a-key", on_event=print)
print(loaded())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['events', 'teller']\n"


def test_a_name_that_isnt_there_is_told_as_python_does() -> None:
    done = subprocess.run([sys.executable, "-c", "from dryapi_async import Clientele"], capture_output=True, text=True, check=False)
    assert "ImportError: cannot import name 'Clientele' from 'dryapi_async'" in done.stderr
