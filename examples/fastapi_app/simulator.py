"""The simulated service as a process of its own, and the environment that leads an application to it."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def simulated_service(*, speed: float = 0.4) -> Generator[str]:
    """Run ``dryapi simulate`` and point DRYAPI_* to it; it ends with the block."""
    command = [sys.executable, "-m", "dryapi_async", "simulate", "--speed", str(speed)]
    # Ctrl-C goes to the whole group of processes: the service must outlive its clients.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:  # noqa: S603  our own command
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise SystemExit("The simulator didn't start: pip install 'dryapi-async[demo]'")
            os.environ |= {
                "DRYAPI_BASE_URL": url,
                "DRYAPI_API_KEY": "1|simulator-key",
                "DRYAPI_CLIENT_ID": "1001",
                "DRYAPI_WEBHOOK_SECRET": "whsec_simulator",
            }
            yield url
        finally:
            process.terminate()
