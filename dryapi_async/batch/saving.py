"""Results on disk as they come, each at a path of its own."""

from collections.abc import Callable
from inspect import iscoroutinefunction
from os import PathLike
from pathlib import Path
from typing import Any, cast

from dryapi_async.batch.outcomes import Outcome, Work
from dryapi_async.engine import Engine
from dryapi_async.errors import ConfigurationError
from dryapi_async.io.claims import Claims
from dryapi_async.operations.results import Embedding, MediaResult, Result, check_path
from dryapi_async.protocol.batches import Template, pick_suffix

PathMaker = Template | Callable[[Outcome[Any]], str | PathLike[str]]


def read_save(save: object) -> PathMaker | None:
    """Read where results are to be saved.

    Raises:
        InputError: A path that can't be one, or that would be the same for all.
        ConfigurationError: Neither a path nor a function.
    """
    if save is None:
        return None
    if isinstance(save, str | PathLike):
        return Template.parse(str(check_path(cast("str | PathLike[str]", save))))
    if callable(save) and not iscoroutinefunction(save):
        return cast("PathMaker", save)
    raise ConfigurationError("save must be a path such as 'out/{index:05}{suffix}', or a plain function of the outcome that gives one.")


class Saver:
    """Writes results of one batch."""

    def __init__(self, make_path: PathMaker, engine: Engine) -> None:
        self._make_path = make_path
        self._engine = engine
        self._claims = Claims(engine.threads)

    async def prepare(self) -> None:
        """Make the folder that all paths are in, and find out whether it can be written: before anything is paid for.

        Raises:
            OSError: It can't.
        """
        if isinstance(self._make_path, Template):
            folder = Path(self._make_path.folder)
            await self._engine.threads.start(folder.mkdir, parents=True, exist_ok=True)
            await self._engine.downloads.check_target(folder)

    async def save(self, work: Work[Any]) -> Path:
        """Write one result, whole or not at all, and give its path.

        Raises:
            DownloadError: It couldn't be fetched.
            OSError: It can't be written.
        """
        result = cast("Result", work.result)
        path = await self._claims.claim(self._path_of(work, result), work.index)
        try:
            return await result.save(path)
        finally:
            self._claims.release(path)

    def _path_of(self, work: Work[Any], result: Result) -> Path:
        if not isinstance(self._make_path, Template):
            return check_path(self._make_path(work.tell(None, self._engine.loop.time())))
        seed = getattr(work.operation, "seed", None)
        return Path(
            self._make_path.fill(index=work.index, key=work.key, request_id=result.request_id, seed=seed, suffix=_suffix_of(result))
        )


def _suffix_of(result: Result) -> str:
    if isinstance(result, MediaResult):
        return pick_suffix(result.url, result.default_ending)
    return ".json" if isinstance(result, Embedding) else ".txt"
