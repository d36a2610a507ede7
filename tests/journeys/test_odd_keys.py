"""What is no text, given for the key or the address: a typed error, wherever it is given."""

from typing import Any

import pytest

from dryapi_async import Client, ConfigurationError, Settings

NO_TEXT: Any = [None, 5, b"1|a-key", ["1|a-key"]]


@pytest.mark.parametrize("odd", NO_TEXT)
def test_a_key_that_is_no_text_is_refused(odd: Any) -> None:
    client = Client("1|a-key", base_url="http://127.0.0.1:9")
    for give in (lambda: Settings(api_key=odd), lambda: client.with_options(api_key=odd)):
        with pytest.raises(ConfigurationError, match=rf"api_key must be a str, not {type(odd).__name__}\."):
            give()
    if odd is not None:
        with pytest.raises(ConfigurationError, match="api_key must be a str"):
            Client(odd)


@pytest.mark.parametrize("odd", NO_TEXT)
def test_an_address_that_is_no_text_is_refused(odd: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url must be a str"):
        Settings(api_key="1|a-key", base_url=odd)
    if odd is not None:
        with pytest.raises(ConfigurationError, match="base_url must be a str"):
            Client("1|a-key", base_url=odd)


@pytest.mark.parametrize("odd", ["https://f\u00fcchse.example", "https://api.example/f\u00fcchse", "https://\ud800.example"])
def test_an_address_that_no_request_can_carry_is_refused(odd: str) -> None:
    with pytest.raises(ConfigurationError, match="isn't ASCII"):
        Client("1|a-key", base_url=odd)
