import asyncio
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import aiofiles
import anyio
import pytest

from dryapi_async.testing import JumpingLoop, hold_clock

T = TypeVar("T")
MEBIBYTE = 1 << 20


def run(main: Callable[[], Coroutine[Any, Any, T]], **options: float) -> T:
    with asyncio.Runner(loop_factory=functools.partial(JumpingLoop, **options)) as runner:
        return runner.run(main())


def virtual_seconds() -> float:
    return asyncio.get_running_loop().time()


def rest(real_seconds: float = 0.05) -> str:
    time.sleep(real_seconds)
    return "done"


THREAD_DOORS: dict[str, Callable[[Callable[[], str]], Awaitable[str]]] = {
    "default": lambda work: asyncio.get_running_loop().run_in_executor(None, work),
    "to_thread": asyncio.to_thread,
    "anyio": anyio.to_thread.run_sync,
}


@pytest.mark.parametrize("door", THREAD_DOORS)
def test_a_thread_call_is_not_overtaken_by_a_timer(door: str) -> None:
    async def race() -> float:
        async with asyncio.timeout(1):
            assert await THREAD_DOORS[door](rest) == "done"
        return virtual_seconds()

    assert run(race) == 0.0


def test_a_thread_call_in_an_executor_of_ones_own_counts() -> None:
    async def race() -> float:
        with ThreadPoolExecutor(1) as threads:
            async with asyncio.timeout(1):
                await asyncio.get_running_loop().run_in_executor(threads, time.sleep, 0.05)
        return virtual_seconds()

    assert run(race) == 0.0


def test_a_thread_call_holds_the_clock_after_its_waiter_was_cancelled() -> None:
    ended: list[str] = []

    def work() -> None:
        time.sleep(0.05)
        ended.append("thread")

    async def cancel() -> None:
        waiter = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await asyncio.sleep(1)
        ended.append("timer")

    run(cancel)
    assert ended == ["thread", "timer"]


def test_many_thread_calls_never_leave_the_clock_asleep() -> None:
    async def call() -> float:
        for _ in range(300):
            await asyncio.to_thread(int)
            await asyncio.sleep(1)
        return virtual_seconds()

    assert run(call, patience=5.0) == 300.0


def test_the_default_threads_are_the_ones_set() -> None:
    async def name_thread() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="chosen"))
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert run(name_thread) == "chosen_0"


def test_file_writes_take_no_virtual_time(tmp_path: Path) -> None:
    async def write() -> float:
        async with asyncio.timeout(1), aiofiles.open(tmp_path / "file", "wb") as file:
            for _ in range(50):
                await file.write(bytes(MEBIBYTE // 4))
            await asyncio.get_running_loop().run_in_executor(None, os.fsync, file.fileno())
        return virtual_seconds()

    assert run(write) == 0.0
    assert (tmp_path / "file").stat().st_size == 50 * MEBIBYTE // 4


def test_closing_joins_busy_threads_in_real_time() -> None:
    ended: list[str] = []

    async def leave_behind() -> None:
        threads = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(lambda: ended.append(rest(0.1)))  # past the loop: uncounted

    run(leave_behind)  # asyncio warns where its 300 seconds for joining are over, and a warning is an error here
    assert ended == ["done"]


def test_a_closed_loop_takes_no_thread_call() -> None:
    loop = JumpingLoop()
    loop.close()
    with ThreadPoolExecutor(1) as threads, pytest.raises(RuntimeError, match="closed"):
        _ = loop.run_in_executor(threads, int)


def test_a_thread_call_that_waits_for_a_timer_says_so() -> None:
    async def deadlock() -> None:
        loop = asyncio.get_running_loop()
        sleeper = asyncio.sleep(1)
        await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(sleeper, loop).exception(timeout=1))

    with pytest.raises(RuntimeError, match=r"1 thread call\(s\) are out"):
        run(deadlock, patience=0.05)


def test_a_process_and_a_foreign_thread_are_waited_for_while_held() -> None:
    async def work() -> int:
        loop, called = asyncio.get_running_loop(), asyncio.Event()
        with hold_clock():
            async with asyncio.timeout(30):
                process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(0.05)")
                status = await process.wait()
                timer = threading.Timer(0.05, loop.call_soon_threadsafe, [called.set])
                timer.start()
                await called.wait()
                timer.join()
        await asyncio.sleep(60)
        return status

    assert run(work) == 0


def test_a_foreign_thread_wakes_a_loop_without_timers() -> None:
    async def wait() -> float:
        loop, called = asyncio.get_running_loop(), asyncio.Event()
        timer = threading.Timer(0.05, loop.call_soon_threadsafe, [called.set])
        timer.start()
        await called.wait()
        timer.join()
        return virtual_seconds()

    assert run(wait, patience=5.0) == 0.0


@pytest.mark.parametrize("asleep", [False, True], ids=["waiting", "jumping"])
def test_ctrl_c_interrupts(asleep: bool) -> None:
    async def live() -> None:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
        while asleep:  # noqa: ASYNC110 - an endless life is what is interrupted
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(live, patience=5.0)
