"""A request's digest is the same in every version: journals and ledgers of earlier runs know it by that."""

import attrs
import pytest

from dryapi_async import Img2Img, InputError, Lora, Txt2Img
from dryapi_async.operations import ALL
from dryapi_async.protocol.digest import digest_request
from dryapi_async.protocol.wire import WIRE_NAME, encode, wire_fields

FOX = Txt2Img(
    prompt="a fox in snow",
    model="Flux1schnell",
    width=256,
    height=192,
    steps=4,
    seed=7,
    guidance=3.5,
    negative_prompt="dogs",
    loras=[Lora(name="snow", weight=0.5)],
)


def test_p01_the_digest_of_a_request_is_what_it_was() -> None:
    # Whatever changes it makes every journal and every batch that was begun before forget what it has paid for.
    assert digest_request(encode(FOX), ()) == "81c0a92eca02874a8b1cf23ef1a321b8782c816523afc5dad14858f24656da68"


def test_fields_go_out_in_the_order_of_their_class() -> None:
    edit = Img2Img(prompt="p", image=b"\x89PNG\r\n\x1a\n", model="m", steps=1, seed=1, guidance=2.0, negative_prompt="n")
    for request in (FOX, edit):
        names = [one.metadata.get(WIRE_NAME, one.name) for one in attrs.fields(type(request))]
        assert list(wire_fields(request)) == [name for name in names if name in wire_fields(request)]


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.__name__)
def test_nothing_may_be_given_for_a_field_that_must_be_given(operation: type) -> None:
    required = [one.alias for one in attrs.fields(operation) if one.default is attrs.NOTHING]
    if required:
        with pytest.raises(InputError):
            operation(**dict.fromkeys(required, attrs.NOTHING))
