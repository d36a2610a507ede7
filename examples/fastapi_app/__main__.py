"""``python -m examples.fastapi_app``: the simulator and four workers, by one command; Ctrl-C ends all of it."""

import argparse
import os
import signal
from contextlib import suppress

import uvicorn

from examples.fastapi_app.simulator import simulated_service


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the example against the simulator.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--folder", default="photo-data", help="Where photos, pictures, their table and the journal lie.")
    parser.add_argument("--speed", type=float, default=0.4, help="The simulator's: 0.4 takes about five seconds a picture.")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is started below ends, too
    with suppress(KeyboardInterrupt), simulated_service(speed=options.speed) as service:
        url = f"http://127.0.0.1:{options.port}"
        os.environ |= {"PHOTO_FOLDER": options.folder, "PHOTO_PUBLIC_URL": url}
        print(f"Open {url}  (the simulated service is {service}; Ctrl-C ends both)", flush=True)
        uvicorn.run(
            "examples.fastapi_app.app:create_app",
            factory=True,
            port=options.port,
            workers=options.workers,
            log_level="warning",
            timeout_graceful_shutdown=2,  # pages that listen would keep it up for ever
        )


if __name__ == "__main__":
    main()
