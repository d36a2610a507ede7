"""The library's sentences as a shell needs them: what to type in place of what to call. Every error of the command goes through here."""

import errno
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Final

from dryapi_async.errors import DryAPIError

_Words = str | Callable[[re.Match[str]], str]

_TICKET: Final = r"(?P<ticket>[a-z0-9-]+:[\w.-]+)"
_SMALL: Final = 0.05
"""Seconds that one decimal would show as none."""


def _name_operation(found: re.Match[str]) -> str:
    return f"{found[1]}`dryapi models --type {found['slug']}` has the"


def _name_measures(found: re.Match[str]) -> str:
    flags = [f"--{name.replace('_', '-')}" for name in re.findall(r"(\w+)=", found[1])]
    return f"`dryapi price` with {' and '.join(flags)}"


def _round_seconds(found: re.Match[str]) -> str:
    seconds = float(found[1])
    return f"after {seconds:.1f} s" if seconds >= _SMALL else f"after {seconds:.1g} s"


_REPLACEMENTS: Final[tuple[tuple[re.Pattern[str], _Words], ...]] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        # What the library says, and what is said in a shell; in this order.
        (
            r"set DRYAPI_API_KEY or give Client\(api_key=\.\.\.\)\. The simulator takes the key that it prints",
            "export DRYAPI_API_KEY=...; to try without one: `dryapi demo`",
        ),
        (r"^(.*?POST (?P<slug>[\w-]+).*)Look at client\.models\(\) for the", _name_operation),
        (r"Look at client\.models\(\) for the", "`dryapi models` has the"),
        (r"client\.models\(\)", "`dryapi models`"),
        (r"give image=\.\.\. or images=\[\.\.\.\]", "give --image FILE, repeated for several"),
        (r" If the service does take it, say File\([^()]*\)\.", ""),
        (r"as job\.ticket gives it", "as `dryapi run` prints it"),
        (r"after (\d+\.\d+(?:e-\d+)?) s\b", _round_seconds),
        (
            rf"Job {_TICKET}(?P<between> .*)wait again(?P<when> later)?, or keep the ticket",
            r"Job \g<ticket>\g<between>`dryapi wait \g<ticket> --out DIR` waits again\g<when>",
        ),
        (r"(?:Take|take) (?:the job|it) up (?:again )?with client\.job\([^()]*\)", "`dryapi wait TICKET --out DIR` takes it up"),
        (r"Unset it, name that host in NO_PROXY, or give Client.*$", "Unset it, or name that host in NO_PROXY."),
        (r"\bbase_url\b", "DRYAPI_BASE_URL"),
        # Of the help, which is made of the classes' own texts.
        (r": a path, bytes, a binary file, or File\(\.\.\.\)", ": a path"),
        (r"\.price\(([^()]*)\)", _name_measures),
        (r": exactly one of image and images\.", "."),
    )
)


def say_in_shell(text: str) -> str:
    """Put what a shell can do in place of what Python can."""
    for pattern, words in _REPLACEMENTS:
        text = pattern.sub(words, text)
    return text


def suggest(word: str, among: Sequence[str]) -> str:
    """Offer the nearest of some words, or nothing."""
    near = get_close_matches(word[:100], among, 1)
    return f", did you mean {near[0]!r}?" if near else ""


def describe(error: BaseException) -> str:
    """Say an error as a shell's user needs it: its class where that is a word of this package, and its sentence."""
    if isinstance(error, OSError) and not isinstance(error, DryAPIError):
        return f"error: {_describe_system(error)}"
    return f"{type(error).__name__}: {say_in_shell(str(error)) or 'no more is known.'}"


def _describe_system(error: OSError) -> str:
    """Say what the system refused, without its number."""
    if error.errno == errno.EADDRINUSE:
        port = re.search(r"\('[^']*', (\d+)", str(error))
        return f"port {port[1] if port else 'asked for'} is taken: choose another --port"
    if error.strerror is None:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
