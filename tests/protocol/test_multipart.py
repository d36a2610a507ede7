"""Forms: their exact length, and that a parser from elsewhere reads them back."""

from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

from hypothesis import given
from hypothesis import strategies as st

from dryapi_async import Img2Img, Lora
from dryapi_async.protocol.multipart import SizedFile, lay_out
from dryapi_async.protocol.wire import FilePart, TextPart, encode, plain_text, quote_id

BOUNDARY = "dryapi-0123456789abcdef"


def write(parts: list[TextPart | SizedFile], contents: list[bytes]) -> tuple[str, bytes, int]:
    layout = lay_out(parts, BOUNDARY)
    *heads, last = layout.heads
    body = b"".join(head + content for head, content in zip(heads, contents, strict=True)) + last
    return layout.content_type, body, layout.length


def parse(content_type: str, body: bytes) -> list[tuple[str, str | None, bytes]]:
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    found: list[tuple[str, str | None, bytes]] = []
    for part in message.iter_parts():  # type: ignore[attr-defined]
        assert isinstance(part, Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((str(part.get_param("name", header="content-disposition")), part.get_filename(), content))
    return found


names = st.text("abcdefghijklmnopqrstuvwxyz_[]0123456789", min_size=1, max_size=20)


@given(st.lists(st.tuples(names, st.text("abc xyz,.!", max_size=40)), max_size=5), st.lists(st.binary(max_size=200), max_size=3))
def test_the_length_is_exact_and_a_parser_reads_it_back(texts: list[tuple[str, str]], files: list[bytes]) -> None:
    clean = [content.replace(b"\r", b"r").replace(b"\n", b"n") for content in files]
    parts: list[TextPart | SizedFile] = [TextPart(name=name, text=text) for name, text in texts]
    parts += [SizedFile(name="image", filename=f"{index}.png", content_type="image/png", size=len(one)) for index, one in enumerate(clean)]
    content_type, body, length = write(parts, clean)
    assert length == len(body)
    if parts:
        wanted = [(name, None, text.encode()) for name, text in texts] + [("image", f"{i}.png", one) for i, one in enumerate(clean)]
        assert parse(content_type, body) == wanted


@given(st.text(max_size=40))
def test_no_file_name_breaks_out_of_its_header(name: str) -> None:
    _, body, length = write([SizedFile(name="image", filename=name, content_type="image/png", size=3)], [b"abc"])
    head = body.partition(b"\r\n\r\n")[0]
    assert length == len(body)
    assert head.count(b"\r\n") == 2
    assert head.count(b'"') == 4


def test_numbers_are_plain_decimal_and_booleans_digits() -> None:
    spelled = [plain_text(value) for value in (True, False, 7, 7.0, 1e-05, 1e22, 3.5, -1, None, "x")]
    assert spelled == ["1", "0", "7", "7", "0.00001", "10000000000000000000000", "3.5", "-1", "", "x"]


def test_img2img_goes_as_the_contract_spells_it() -> None:
    request = Img2Img(prompt="p", images=[b"a", b"b"], model="m", steps=20, seed=42, guidance=7.5, loras=[Lora(name="l", weight=0.5)])
    parts = encode(request).parts
    assert parts is not None
    texts = {part.name: part.text for part in parts if isinstance(part, TextPart)}
    assert texts == {
        "prompt": "p",
        "model": "m",
        "steps": "20",
        "seed": "42",
        "guidance": "7.5",
        "loras[0][name]": "l",
        "loras[0][weight]": "0.5",
    }
    assert [part.name for part in parts if isinstance(part, FilePart)] == ["images[]", "images[]"]


@given(st.text(min_size=1))
def test_no_id_leaves_its_place_in_the_path(request_id: str) -> None:
    quoted = quote_id(request_id)
    assert quoted.isascii()
    assert not set(quoted) & set("/?#\\ ")
    assert quoted not in {".", ".."}
