"""What is no text, given for the key or the address: a typed error, wherever it is given."""

import asyncio
from typing import Any

import pytest

from dryapi_async import AuthenticationError, Client, ConfigurationError, Settings

from ..conftest import FOX

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


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["", "/", "/gate%20way/dry", "/gate/"])
async def test_a_path_of_the_address_stands_before_that_of_each_call(path: str) -> None:
    lines: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0])
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"
        async with Client("1|a-key", base_url=url) as client:
            for call in (client.call(FOX), client.job("txt2img:an-id").status()):
                with pytest.raises(AuthenticationError):
                    await call
    root = f"{path.rstrip('/')}/api/v1/client"
    assert lines == [f"POST {root}/txt2img HTTP/1.1".encode(), f"GET {root}/request-status/an-id HTTP/1.1".encode()]
