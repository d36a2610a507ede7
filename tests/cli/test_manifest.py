"""A manifest: what is read from it, and what is said of each line that can't be sent."""

import json
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from dryapi_async import Img2Img, Lora, PromptImage, Txt2Embedding, Txt2Img
from dryapi_async.cli.inputs import find_file_problems
from dryapi_async.cli.manifest import Form, Manifest, read_manifest

FOX: dict[str, Any] = {"op": "txt2img", "prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 192, "seed": 7, "steps": 4}
NIGHT: dict[str, Any] = {"op": "img2img", "prompt": "night", "model": "Q", "steps": 20, "seed": 1, "image": "a.png"}
HEADER = "op,key,prompt,model,width,height,seed,steps,guidance,image,loras\n"


def read(content: str | bytes, form: Form = "lines", op: str | None = None) -> Manifest:
    return read_manifest(content.encode() if isinstance(content, str) else content, form, PurePosixPath("photos"), op=op)


def read_line(line: object) -> Manifest:
    return read(line if isinstance(line, str) else json.dumps(line))


def only_reason(found: Manifest) -> str:
    assert not found.lines
    (problem,) = found.problems
    return problem.reason


def test_lines_become_requests() -> None:
    text = "\ufeff" + "\r\n".join(["# foxes", "", json.dumps(FOX), "// night", json.dumps(NIGHT | {"key": "a-night"}), "  ", ""])
    found = read(text)
    assert not found.problems
    first, second = found.lines
    fields = {name: value for name, value in FOX.items() if name != "op"}
    assert (first.number, first.key, first.operation) == (3, "00003", Txt2Img(**fields))
    assert (second.number, second.key) == (5, "a-night")
    assert second.operation == Img2Img(prompt="night", model="Q", steps=20, seed=1, image="photos/a.png")


def test_values_are_taken_in_the_forms_in_which_people_write_them() -> None:
    several = NIGHT | {
        "op": "img2img",
        "image": ["a.png", "/b.png"],
        "loras": ["ink=0.8", {"name": "oil", "weight": 1}],
        "guidance": None,
        "key": 7,
    }
    (line,) = read_line(several).lines
    loras = [Lora(name="ink", weight=0.8), Lora(name="oil", weight=1)]
    wanted = Img2Img(prompt="night", model="Q", steps=20, seed=1, images=["photos/a.png", "/b.png"], loras=loras)
    assert (line.key, line.operation) == ("7", wanted)
    (line,) = read_line({"op": "prompt_image", "prompt": "a fox"}).lines
    assert isinstance(line.operation, PromptImage)
    assert line.operation.endpoint.slug == "prompt/image"
    (line,) = read_line({"op": "txt2embedding", "input": ["a; b", "c"], "model": "Bge_M3_FP16"}).lines
    assert line.operation == Txt2Embedding(input=["a; b", "c"], model="Bge_M3_FP16")
    (line,) = read('{"prompt": "a fox"}', op="prompt/image").lines
    assert line.operation == PromptImage(prompt="a fox")


@pytest.mark.parametrize(("form", "mark"), [("commas", ","), ("tabs", "\t")])
def test_a_table_is_read_by_its_header_and_the_fields_types(form: Form, mark: str) -> None:
    rows = [
        ["op", "key", "prompt", "model", "width", "height", "seed", "steps", "guidance", "image", "loras", ""],
        ["txt2img", "fox", '"a ""fox""\nin snow"', "Flux1schnell", "256", "192", "-1", "4", "", "", "ink=0.8; oil=1"],
        [],
        ["img2img", "", "night", " Q ", "", "", "1", "20", "3.5", "a.png;b.png"],
        ["img2img", "", "night", "Q", "", "", "1", "20", "", "a.png", "", ""],
    ]
    found = read("\r\n".join(mark.join(row) for row in rows), form)
    assert not found.problems
    loras = [Lora(name="ink", weight=0.8), Lora(name="oil", weight=1.0)]
    fox = Txt2Img(prompt='a "fox"\nin snow', model="Flux1schnell", width=256, height=192, seed=-1, steps=4, loras=loras)
    night = Img2Img(prompt="night", model="Q", steps=20, seed=1, guidance=3.5, images=["photos/a.png", "photos/b.png"])
    other = Img2Img(prompt="night", model="Q", steps=20, seed=1, image="photos/a.png")
    assert [(line.number, line.key, line.operation) for line in found.lines] == [(2, "fox", fox), (5, "00005", night), (6, "00006", other)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("yes", True),
        ("False", False),
        ("0", False),
    ],
)
def test_yes_or_no_in_a_cell(cells: str, *, said: bool) -> None:
    (line,) = read(f"op,video_url,include_ts,model\nvid2txt,https://example.org/v,{cells},W\n", "commas").lines
    assert getattr(line.operation, "include_ts", None) is said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"op": "txt2img",', "it isn't JSON: "),
        ("[1, 2", "it is a JSON list: write one object a line"),
        ("3", "it is no JSON object"),
        ('{"op": "txt2img", "seed": NaN}', "it isn't JSON: NaN is no number"),
        ('{"op": "txt2img", "seed": ' + "9" * 5000 + "}", "it has a number of thousands of digits"),
        ('{"a": ' * 100_000, "it isn't JSON"),
        ('{"op": "txt2img", "seed": 1, "seed": 2}', "'seed' is given twice"),
        ({"prompt": "a fox"}, "op is missing"),
        ({"op": "txt2imgs"}, "there is no operation 'txt2imgs', did you mean 'txt2img'?"),
        ({"op": "balance"}, "there is no operation"),
        ({"op": 3}, "there is no operation int 3"),
        ({"op": ["txt2img"]}, "there is no operation"),
        (FOX | {"promt": "x"}, "txt2img has no field 'promt', did you mean 'prompt'?"),
        ({"op": "txt2img", "prompt": "x", "model": "M"}, "width and height and seed are missing"),
        (FOX | {"model": None}, "model is missing, which txt2img needs"),
        (FOX | {"width": "wide"}, "width must be an int, not str 'wide'"),
        (FOX | {"width": True}, "width must be an int"),
        (FOX | {"seed": 10**30}, "seed must be a number of at most 64 bits"),
        (FOX | {"guidance": 1e999}, "Infinity is no number"),
        (FOX | {"prompt": "\ud800"}, "prompt has a character that isn't Unicode"),
        (FOX | {"loras": "ink=1"}, "loras must be a list"),
        (FOX | {"loras": ["ink"]}, "loras takes NAME=WEIGHT"),
        (FOX | {"loras": [{"name": "ink", "weight": "x"}]}, "weight must be a finite number"),
        (NIGHT | {"image": 3}, "image must be a file's path, not int 3"),
        (NIGHT | {"image": ""}, "image must be a file's path"),
        (NIGHT | {"image": "a\0.png"}, "image has a NUL in its path"),
        (NIGHT | {"image": "https://example.org/a.png"}, "image is a URL"),
        (NIGHT | {"images": ["b.png"]}, "takes exactly one of image and images"),
        (FOX | {"key": ""}, "key must be a text"),
        (FOX | {"key": 1.5}, "key must be a text"),
        (FOX | {"key": "\udc80"}, "key has a character that isn't Unicode"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(line: object, said: str) -> None:
    found = read_line(line)
    assert said in only_reason(found)
    assert found.problems[0].number == 1


def test_one_line_tells_all_that_is_wrong_with_it() -> None:
    reason = only_reason(read_line({"op": "img2img", "key": "", "promt": "x", "image": 3, "steps": 1, "seed": 1}))
    for said in ("key must be", "no field 'promt'", "image must be", "prompt and model are missing"):
        assert said in reason


def test_two_lines_never_have_one_key_or_one_file() -> None:
    keys = ["Fox", "fox", "a/b", "a:b", "Fox", "caf\u00e9", "cafe\u0301", 3]
    found = read("\n".join(json.dumps(FOX | {"key": key}) for key in keys) + "\n" + json.dumps(FOX | {"key": "3"}))
    assert [(line.number, line.key) for line in found.lines] == [(1, "Fox"), (3, "a/b"), (6, "caf\u00e9"), (8, "3")]
    assert [(one.number, one.reason) for one in found.problems] == [
        (2, "key 'fox' makes the same file name as 'Fox' of line 1"),
        (4, "key 'a:b' makes the same file name as 'a/b' of line 3"),
        (5, "key 'Fox' is that of line 1, too"),
        (7, "key 'cafe\u0301' makes the same file name as 'caf\u00e9' of line 6"),
        (9, "key '3' is that of line 8, too"),
    ]
    (problem,) = read(json.dumps(FOX | {"key": "00002"}) + "\n" + json.dumps(FOX)).problems
    assert problem.number == 2, "a line's own number may be another line's key"


def test_bytes_that_are_no_text_are_named_with_their_line() -> None:
    fox = json.dumps(FOX).encode()
    found = read(b"\n".join([fox, b'{"op": "caf\xe9"}', fox]))
    assert [(one.number, one.reason) for one in found.problems] == [(2, "it isn't UTF-8: byte 0xe9 at place 12 of the line")]
    assert [line.number for line in found.lines] == [1, 3]
    assert "save it as UTF-8" in only_reason(read(json.dumps(FOX).encode("utf-16")))
    table = read(HEADER.encode() + b"txt2img,a,caf\xe9,M,1,1,1,1,,,\ntxt2img,b,fox,M,1,1,1,1,,,\n", "commas")
    assert [one.number for one in table.problems] == [2]
    assert [line.key for line in table.lines] == ["b"]


@pytest.mark.parametrize(
    ("text", "number", "said"),
    [
        (HEADER + "txt2img,a,fox,M,wide,1,1,1,,,\n", 2, "width: 'wide' is no whole number"),
        (HEADER + "txt2img,a,fox,M,1,1,1,1,high,,\n", 2, "guidance: 'high' is no number"),
        (HEADER + "txt2img,a,fox,M,1,1,1,1,nan,,\n", 2, "guidance must be a finite number"),
        (HEADER + "txt2img,a,fox,M,1,1,1,1,,a.png,\n", 2, "txt2img has no field 'image'"),
        (HEADER + "txt2img,a,fox,M,1,1,1,1,,,,x,y\n", 2, "it has 13 cells, but the header has 11"),
        (HEADER + '\n\ntxt2img,a,"fox\n\n', 4, "the row that begins here can't be read"),
        ("op,promt\ntxt2img,x\n", 1, "the header has 'promt', which is no field of any operation, did you mean 'prompt'?"),
        ("op,op\ntxt2img,x\n", 1, "the header names 'op' twice"),
        ("op;prompt\ntxt2img;x\n", 1, "separated by semicolons"),
        (HEADER, 1, "there is no operation in the file"),
        ("", 1, "there is no operation in the file"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(text: str, number: int, said: str) -> None:
    found = read(text, "commas")
    assert said in only_reason(found)
    assert found.problems[0].number == number


def test_files_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    names = ["a.png", "empty.png", "folder.png", "missing.png", "x" * 300, "a.png/b.png", "/dev/null"]
    found = read_manifest("\n".join(json.dumps(NIGHT | {"image": name}) for name in names).encode(), "lines", tmp_path)
    assert not found.problems
    told = [(one.number, one.reason.rpartition(f"{tmp_path}/")[2]) for one in find_file_problems(found.lines)]
    assert told == [
        (2, "empty.png is empty"),
        (3, "folder.png is a folder"),
        (4, "missing.png can't be read: No such file or directory"),
        (5, "x" * 300 + " can't be read: File name too long"),
        (6, "a.png/b.png can't be read: Not a directory"),
        (7, "image: /dev/null is no plain file"),
    ]


def test_fifty_thousand_lines_are_read_in_a_few_seconds(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    content = "\n".join(json.dumps((NIGHT if index % 2 else FOX) | {"key": f"key {index}"}) for index in range(50_000)).encode()
    began = time.process_time()
    found = read_manifest(content, "lines", tmp_path)
    assert not find_file_problems(found.lines)
    seconds = time.process_time() - began
    assert (len(found.lines), found.problems) == (50_000, [])
    assert seconds < 15, f"{seconds:.1f} s"  # 2.5 s here; five times the promise and more for a busy machine
