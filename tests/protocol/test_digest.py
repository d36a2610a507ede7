"""A request's digest is the same in every version: journals and ledgers of earlier runs know it by that."""

from collections.abc import Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import pytest

from dryapi_async import InputError, Lora, Txt2Img
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


def sample(hint: Any) -> Any:
    """Give some value of a field's type."""
    if get_origin(hint) in {Union, UnionType}:
        return sample(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if get_origin(hint) is Sequence:
        return (sample(get_args(hint)[0]),)
    return {str: "x", int: 1, float: 1.5, bool: True, Lora: Lora(name="snow", weight=0.5)}.get(hint, b"a source")


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.__name__)
def test_fields_go_out_in_the_order_of_their_class(operation: Any) -> None:
    hints, fields = get_type_hints(operation), attrs.fields(operation)
    names = [one.metadata.get(WIRE_NAME, one.name) for one in fields]
    # All that can be given, and all but one: cattrs has ways of its own with those that are left alone.
    for alone in (None, *(one for one in fields if one.default is not attrs.NOTHING)):
        request = operation.__new__(operation)  # not as it is made: not all fields go together
        for one in fields:
            object.__setattr__(request, one.name, one.default if one is alone else sample(hints[one.name]))
        sent = list(wire_fields(request))
        assert sent == [name for name in names if name in sent]
        assert len(sent) >= len(names) - 1


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.__name__)
def test_nothing_may_be_given_for_a_field_that_must_be_given(operation: type) -> None:
    required = [one.alias for one in attrs.fields(operation) if one.default is attrs.NOTHING]
    if required:
        with pytest.raises(InputError):
            operation(**dict.fromkeys(required, attrs.NOTHING))
