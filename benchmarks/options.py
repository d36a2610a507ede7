"""What a run is told."""

from pathlib import Path

from attrs import frozen


@frozen(kw_only=True)
class Options:
    """What the command line says, for every benchmark alike."""

    command: str
    """As it was typed, for the report."""
    repetitions: int
    smoke: bool
    """Small and short: that it works, not how fast."""
    check: bool
    """Prove first that what the server gets is what was sent."""
    cold: bool
    """Take files out of the page cache before each repetition."""
    output: Path
    """The file of results; pictures go beside it."""
    tls: bool = False
    """Measure over TLS, too, where a benchmark has that as an option."""
