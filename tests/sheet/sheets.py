"""What the tests of the contact sheet share."""

import json
from pathlib import Path
from typing import Any

from dryapi_async.sheet import Entry
from dryapi_async.sheet.sheet import MARK

MANY = 5000
ODD_NAME = "100% #1? 'x' \"y\" a:b&c <b>.png"
NASTY = (
    "<script>document.title='broken'</script></div><!-- ]]> \"quoted\" 'single' & &amp; \\u2028 \u2028 \u202eright to left\u202c "
    "\x00 \ud800 \N{FOX FACE}"
)


def make_entry(index: int, **fields: Any) -> Entry:
    return Entry(**{"index": index, "key": f"key-{index}", "operation": "txt2img", "state": "saved", **fields})


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a sheet's lines by other means than its own: each must be whole."""
    _, mark, data = path.read_bytes().partition(MARK)
    assert mark
    found: list[dict[str, Any]] = []
    for line in data.decode("ascii").splitlines():
        thumbnail, _, text = line.partition("\t")
        found.append({**json.loads(text), "thumbnail": thumbnail})
    assert not data or data.endswith(b"\n")
    return found


def keys_of(path: Path) -> list[str]:
    return [line["key"] for line in read_lines(path)]
