"""The machine that the figures come from: its cores, and its words in a report."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

CORES: Final = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
"""Cores that can be pinned to; none where the system has no such call."""
CLIENT_CORE: Final = CORES[-1] if len(CORES) > 1 else None
SERVER_CORE: Final = CORES[0] if len(CORES) > 1 else None


def pin(core: int | None) -> None:
    """Keep this process and its threads on one core; None leaves it to the system."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def describe_pinning() -> str:
    """Say on which cores the two sides run."""
    if CLIENT_CORE is None:
        return "nothing is pinned: the system has one core, or no sched_setaffinity; the server may be in the client's way"
    return f"the client is pinned to core {CLIENT_CORE} with all its threads, the server to core {SERVER_CORE}"


def describe() -> str:
    """Say what the machine is, what runs on it and how busy it is, the benchmark included."""
    memory = f", {_memory_gib():.0f} GiB" if hasattr(os, "sysconf") else ""
    load = " / ".join(f"{one:.1f}" for one in os.getloadavg())
    packages = ", ".join(f"{name} {version(name)}" for name in ("dryapi-async", "aiohttp"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {os.cpu_count()} cores{memory}, {system}; {python}, {packages}; load average at the end: {load}"


def today() -> str:
    """Say the date and time, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
