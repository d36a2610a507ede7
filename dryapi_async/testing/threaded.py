"""Serve the simulator from a thread, for tests that are no coroutines."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple, cast, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from dryapi_async.simulator import SimJob, Simulator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ThreadedSimulator(Simulator):
    """Serve from a thread and an event loop of its own: ``with ThreadedSimulator(pictures=False) as service:``.

    It takes the simulator's own arguments, and runs on the real clock: a `JumpingLoop` elsewhere in the test would outrun it. What is
    looked at (``requests``, ``jobs_billed``, ...), ``script``, ``hold``, and what ends or moves a job may be used from any thread. What
    touches connections (``push``, ``webhooks``) belongs to its loop: `run` calls it there.
    """

    _portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = self._portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(portal.wrap_async_context_manager(self))
            self._running = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running.close()

    @overload
    def run(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T: ...
    @overload
    def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T: ...
    def run(self, function: Callable[[*Ts], Awaitable[T] | T], *args: *Ts) -> T:
        """Call a function, or a coroutine function, in the simulator's loop, and wait for what it gives."""
        if self._portal is None:
            raise RuntimeError("The simulator isn't running: use it inside `with ThreadedSimulator(...) as service:`.")
        return cast("T", self._portal.call(function, *args))

    def finish(self, request_id: str) -> SimJob:
        """End a job well, now."""
        return self._call(super().finish, request_id)

    def fail(self, request_id: str, code: str = "PROCESSING_ERROR", message: str = "Processing failed.") -> SimJob:
        """End a job in error, now."""
        return self._call(super().fail, request_id, code, message)

    def set_progress(self, request_id: str, progress: float) -> SimJob:
        """Pin a job's progress, 0 to 100."""
        return self._call(super().set_progress, request_id, progress)

    def release(self, operation: str = "*") -> None:
        """Hold no more, and finish what is held."""
        self._call(super().release, operation)

    def _call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a plain function in the simulator's loop; who is there already, as a script's matcher, needs no other thread."""
        return function(*args) if _running_loop() is self._loop else self.run(function, *args)

    async def come_up(self) -> None:
        """Listen, on the same ports as before; from a test that is no coroutine: ``service.run(service.come_up)``."""
        await self._do_there(super().come_up)

    async def go_down(self) -> None:
        """Stop listening and cut every connection; from a test that is no coroutine: ``service.run(service.go_down)``."""
        await self._do_there(super().go_down)

    async def _do_there(self, function: Callable[[], Awaitable[None]]) -> None:
        if asyncio.get_running_loop() is self._loop:
            await function()
        elif self._portal is not None:
            await asyncio.wrap_future(self._portal.start_task_soon(function))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
