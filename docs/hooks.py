"""What the site has that no page says by hand: the operations, read from their classes, and pages that lie beside `docs/`.

mkdocs calls the functions whose names begin with ``on_``. Nothing here reads the network, and the text of the operations needs no mkdocs.
"""

# ruff: noqa: INP001  mkdocs loads this file by its path
import ast
import inspect
import os
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Final, get_args

import attrs

from dryapi_async.operations import ALL
from dryapi_async.operations.base import InstantOperation, JobOperation, Operation
from dryapi_async.protocol.endpoint import Endpoint
from dryapi_async.protocol.wire import ALWAYS

ROOT: Final = Path(__file__).parents[1]
RequestClass = type[Operation[Any]]

# --- the operations

OPERATIONS_MARK: Final = "<!-- the operations stand here on the site -->"
_TITLES: Final = {
    "images": "Images",
    "videos": "Videos",
    "audio": "Speech and music",
    "transcripts": "Transcripts",
    "text": "Embeddings",
    "prompts": "Prompt tools",
    "account": "Account",
}
_BODIES: Final = {"json": "JSON", "multipart": "multipart form", "query": "query", "none": "no body"}


def write_operations() -> str:
    """Write the page's part about the operations: a table of all, then a section for each request class."""
    sections: list[str] = [_write_overview()]
    for module, title in _TITLES.items():
        classes = [cls for cls in ALL if cls.__module__.rpartition(".")[2] == module]
        sections.append(f"## {title}\n\n{_module_text(classes[0])}")
        sections += [_write_class(cls) for cls in classes]
    return "\n\n".join(sections)


def list_wire_operations() -> list[tuple[str, str]]:
    """List method and path of every operation on the wire, prices too: 47."""
    found: list[tuple[str, str]] = []
    for cls in ALL:
        endpoint = cls.endpoint
        tail = f"/{{{endpoint.path_field}}}" if endpoint.path_field else ""
        found.append((endpoint.method, endpoint.path + tail))
        if endpoint.price:
            found.append((endpoint.method, f"{endpoint.path}/price-calculation"))
    return found


def _write_overview() -> str:
    lines = ["| on the wire | costs | called by |", "|---|---|---|"]
    for cls in ALL:
        endpoint, slug = cls.endpoint, cls.endpoint.slug
        tail = f"/{{{endpoint.path_field}}}" if endpoint.path_field else ""
        lines.append(f"| `{endpoint.method} {slug}{tail}` | {_cost(endpoint)} | [`{_show_call(cls)}`](#{_anchor(cls)}) |")
        if endpoint.price:
            lines.append(f"| `{endpoint.method} {slug}/price-calculation` | nothing | `{_show_call(cls)}.price()` |")
    return "\n".join(lines)


def _cost(endpoint: Endpoint) -> str:
    return "money" if endpoint.kind in {"submit", "prompt"} else "nothing"


def method_name(cls: RequestClass) -> str:
    """Name the client's method of a class."""
    readings = {"balance": "balance", "models": "models"}
    slug = cls.endpoint.slug
    return readings.get(slug) or slug.replace("prompts/", "prompt_").replace("-", "_").replace("/", "_")


def _show_call(cls: RequestClass) -> str:
    if cls.endpoint.path_field:
        return "job.status()"
    if cls.endpoint.slug == "models":
        return "client.models()"
    return f"client.{method_name(cls)}(…)" if _fields_of(cls) else f"client.{method_name(cls)}()"


def _fields_of(cls: Any) -> "tuple[attrs.Attribute[Any], ...]":
    found: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)
    return found


def _anchor(cls: RequestClass) -> str:
    return cls.__name__.lower()


def _module_text(cls: RequestClass) -> str:
    module = inspect.getmodule(cls)
    return inspect.cleandoc((module.__doc__ if module else None) or "")


def _write_class(cls: RequestClass) -> str:
    endpoint = cls.endpoint
    tail = f"/{{{endpoint.path_field}}}" if endpoint.path_field else ""
    body = _BODIES[endpoint.body] if endpoint.method == "POST" or set(_read_fields(cls)) - {endpoint.path_field} else _BODIES["none"]
    facts = [
        f"`{endpoint.method} {endpoint.path}{tail}`, {body}",
        f"called by `{_show_call(cls)}`, gives {_result(cls)}",
        f"lane `{endpoint.lane}`",
        *_price_facts(endpoint),
    ]
    lines = "\n".join(f"* {fact}" for fact in facts)
    return f"### {cls.__name__} {{#{_anchor(cls)}}}\n\n{inspect.cleandoc(cls.__doc__ or '')}\n\n{lines}\n\n{_write_fields(cls)}".rstrip()


def _result(cls: RequestClass) -> str:
    if cls.endpoint.slug == "models":
        return "all models, page by page; `client.call(ListModels(…))` gives one `ModelPage`"
    if issubclass(cls, JobOperation):
        return f"a job whose result is `{cls.result_type.__name__}`"
    generic = next(base for base in vars(cls)["__orig_bases__"] if issubclass(base.__origin__, InstantOperation))
    return f"`{get_args(generic)[0].__name__}` at once"


def _price_facts(endpoint: Endpoint) -> Iterator[str]:
    price = endpoint.price
    if price is None:
        return
    text = f"`.price()` asks `{endpoint.slug}/price-calculation` ({_BODIES[price.body]})"
    if price.fields is not None:
        text += f" with {', '.join(f'`{name}`' for name in sorted(price.fields))}"
    yield text
    if price.measures:
        instead = ", ".join(f"{name}=…" for name in price.measures)
        yield f"`.price({instead})` needs no {' or '.join(f'`{name}`' for name in price.replaces)}"


def _write_fields(cls: RequestClass) -> str:
    source = _read_fields(cls)
    rows = ["| field | takes | without it | |", "|---|---|---|---|"]
    for one in _fields_of(cls):
        annotation, text = source[one.name]
        rows.append(f"| `{one.name}` | `{annotation}` | {_without_it(one)} | {text} |")
    return "\n".join(rows) if len(rows) > 2 else ""  # noqa: PLR2004  a head and a line


def _without_it(field: "attrs.Attribute[Any]") -> str:
    """Say what is sent where a field isn't given."""
    if field.default is attrs.NOTHING:
        return "required"
    if field.default not in (None, ()):
        return f"`{field.default}`"
    return "sent as nothing" if ALWAYS in field.metadata else "not sent"


def _read_fields(cls: RequestClass) -> dict[str, tuple[str, str]]:
    """Read each field's annotation and the text below it from the class's source."""
    tree = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(tree, ast.ClassDef)  # noqa: S101  a class's source is one
    found: dict[str, tuple[str, str]] = {}
    for field, below in pairwise([*tree.body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and "ClassVar" not in ast.unparse(field.annotation):
            text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            found[field.target.id] = (ast.unparse(field.annotation), " ".join(str(text).split()))
    return found


# --- pages that lie beside docs/


def list_outer_pages() -> dict[str, str]:
    """Map files of the repository that are pages on the site, too, to their place there."""
    found = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "benchmarks/results.md": "benchmarks/results.md"}
    for path in sorted((ROOT / "examples").glob("*/README.md")):
        found[path.relative_to(ROOT).as_posix()] = f"examples/{path.parent.name}.md"
    for path in sorted((ROOT / "benchmarks").glob("*.png")):
        found[f"benchmarks/{path.name}"] = f"benchmarks/{path.name}"
    return {there: here for there, here in found.items() if (ROOT / there).exists()}


_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)\s#]*)(#[^)\s]*)?\)")


def mend_links(markdown: str, source: str, here: str) -> str:
    """Lead a page's links to where things are on the site; what isn't there is named without a link.

    ``source`` is the page's place in the repository, ``here`` its place on the site.
    """
    outer = list_outer_pages()

    def mend(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        wanted = os.path.normpath((PurePosixPath(source).parent / target).as_posix())
        place = outer.get(wanted) or outer.get(f"{wanted}/README.md") or _in_docs(wanted)
        if place is None:
            return text
        return f"[{text}]({os.path.relpath(place, PurePosixPath(here).parent.as_posix())}{anchor})"

    return _LINK.sub(mend, markdown)


def _in_docs(wanted: str) -> str | None:
    """Give the place on the site of what lies in docs/."""
    inside = wanted.removeprefix("docs/")
    if inside == wanted or not (ROOT / wanted).exists():
        return None
    return "decisions/index.md" if inside == "decisions" else inside


_FENCED: Final = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_TIGHT_LIST: Final = re.compile(r"^(?![*|#>\s-]|\d+\. )(.+)\n(?=[*-] )", re.MULTILINE)


def loosen_lists(markdown: str) -> str:
    """Put an empty line before each list: mkdocs' Markdown needs one, others don't."""
    parts = _FENCED.split(markdown)
    return "".join(part if part.startswith("```") else _TIGHT_LIST.sub("\\1\n\n", part) for part in parts)


_PICTURE: Final = re.compile(r"!\[[^\]]*\]\((assets/[\w-]+\.svg)\)")
_FRAME: Final = '<div class="picture-frame">\n{}\n</div>'


def show_pictures(markdown: str) -> str:
    """Put drawings into the page itself, so that they take its colours, light or dark."""
    return _PICTURE.sub(lambda found: _FRAME.format((ROOT / "docs" / found[1]).read_text().strip()), markdown)


def list_decisions() -> list[Path]:
    """List the decisions, the newest first."""
    return sorted((ROOT / "docs" / "decisions").glob("2*.md"), reverse=True)


def write_decisions() -> str:
    """Write the list of decisions by their titles."""
    lines = [f"* [{path.read_text().splitlines()[0].lstrip('# ')}]({path.name})" for path in list_decisions()]
    return "# Decisions\n\nWhat was decided against the first design, and why; the newest first.\n\n" + "\n".join(lines) + "\n"


# --- mkdocs


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that lie beside docs/, and the list of decisions."""
    File: Any = import_module("mkdocs.structure.files").File  # noqa: N806  a class; only mkdocs calls this
    for there, here in list_outer_pages().items():
        content = (ROOT / there).read_bytes()
        if here.endswith(".md"):
            files.append(File.generated(config, here, content=mend_links(content.decode(), there, here)))
        else:
            files.append(File.generated(config, here, content=content))
    files.append(File.generated(config, "decisions/index.md", content=write_decisions()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Fill in the operations and the drawings, and mend links that lead out of docs/."""
    del config, files
    here = page.file.src_uri
    if page.file.abs_src_path and Path(page.file.abs_src_path).is_relative_to(ROOT / "docs"):
        markdown = mend_links(markdown, f"docs/{here}", here)
    markdown = loosen_lists(markdown)
    if OPERATIONS_MARK in markdown:
        markdown = markdown.replace(OPERATIONS_MARK, write_operations())
    return show_pictures(markdown)
