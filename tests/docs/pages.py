"""The pages' own text: their snippets, with what is said to be printed."""

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
_SNIPPET = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@frozen
class Snippet:
    """One block of Python of a page: a whole program."""

    name: str
    code: str
    output: str | None
    """What stands below it, where something does; ``…`` is anything, on a line of its own any lines."""

    @property
    def is_test(self) -> bool:
        """Whether it is a file for pytest."""
        return "\nasync def test_" in self.code

    def allows(self, printed: str) -> bool:
        """Say whether a program may print this."""
        if self.output is None:
            return True
        lines = [r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in self.output.splitlines()]
        return re.fullmatch("".join(lines), printed) is not None


def find_snippets(page: Path) -> Iterator[Snippet]:
    """Find the programs of a page."""
    for number, found in enumerate(_SNIPPET.finditer(page.read_text()), 1):
        yield Snippet(f"{page.stem}_{number}", found["code"], found["output"])


SNIPPETS = [snippet for page in PAGES for snippet in find_snippets(page)]
