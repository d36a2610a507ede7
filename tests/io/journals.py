"""What the journal's tests share."""

from pathlib import Path

from dryapi_async.io.journal import Journal


def make_journal(path: Path, account: str = "a") -> Journal:
    """Make a journal that doesn't wait long for a locked file."""
    return Journal(path, base_url="https://api.example", account=account, busy_seconds=0.5)


async def begin(journal: Journal, key: str = "k") -> None:
    """Note that a call leaves."""
    await journal.intend(key, operation="txt2img", digest="d" * 64, attempt=1)


async def state_of(journal: Journal, key: str = "k") -> str | None:
    """Say what a call's state is."""
    row = await journal.find(key)
    return None if row is None else row.state
