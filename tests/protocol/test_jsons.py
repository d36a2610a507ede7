"""Both ways to encode and decode say the same; what the fast one refuses, the standard library takes or explains."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dryapi_async.errors import InputError
from dryapi_async.protocol import jsons
from dryapi_async.protocol.replies import decode_json
from dryapi_async.protocol.status import read_update

from ..conftest import FOX

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=10,
)


@pytest.fixture(params=["orjson", "json"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "json":
        monkeypatch.setattr(jsons, "_dumps", None)
        monkeypatch.setattr(jsons, "_loads", None)
    else:
        pytest.importorskip("orjson")


@given(st.dictionaries(TEXTS, VALUES))
def test_what_is_encoded_is_what_was_given(fields: dict[str, Any]) -> None:
    assert json.loads(jsons.encode_json(fields)) == fields


@given(VALUES)
def test_what_is_decoded_is_what_the_standard_library_decodes(value: Any) -> None:
    content = json.dumps(value).encode()
    assert jsons.decode_fast(content) == json.loads(content)


@pytest.mark.usefixtures("_way")
def test_tuples_are_lists_and_texts_stay_readable() -> None:
    assert jsons.encode_json({"a": (1, 2.0), "b": "Fuchs, 狐"}) == '{"a":[1,2.0],"b":"Fuchs, 狐"}'.encode()


@pytest.mark.usefixtures("_way")
def test_a_text_that_is_no_unicode_is_told() -> None:
    with pytest.raises(UnicodeEncodeError):
        jsons.encode_json({"webhook_url": "\ud800"})


@pytest.mark.usefixtures("_way")
def test_a_request_that_is_no_unicode_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="isn't Unicode"):
        type(FOX)(prompt="\ud800", model="m", width=256, height=256, steps=4, seed=1)


@pytest.mark.usefixtures("_way")
def test_a_status_with_what_only_the_standard_library_takes_is_read() -> None:
    update = read_update(decode_json(b'{"data": {"status": "processing", "progress": NaN}}', fast=True))
    assert (update.word, update.progress) == ("processing", None)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("content", [b"", b"<html>", b"{", b"\xff", b"[" * 5000 + b"]" * 5000])
def test_what_is_no_json_is_told_alike(content: bytes) -> None:
    with pytest.raises(Exception, match="where JSON was expected") as caught:
        decode_json(content, fast=True)
    assert type(caught.value).__name__ == "ResponseError"
