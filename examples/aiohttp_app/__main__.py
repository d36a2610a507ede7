"""``python -m examples.aiohttp_app``: the simulator and one process of aiohttp.web, by one command; Ctrl-C ends both."""

import argparse
import os
import signal
from contextlib import suppress

from aiohttp import web

from examples.aiohttp_app.app import create_app
from examples.fastapi_app.simulator import simulated_service


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the example against the simulator.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--folder", default="photo-data", help="Where photos, pictures, their table and the journal lie.")
    parser.add_argument("--speed", type=float, default=0.4, help="The simulator's: 0.4 takes about five seconds a picture.")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is started below ends, too
    with suppress(KeyboardInterrupt), simulated_service(speed=options.speed) as service:
        url = f"http://127.0.0.1:{options.port}"
        os.environ |= {"PHOTO_FOLDER": options.folder, "PHOTO_PUBLIC_URL": url}
        print(f"Open {url}  (the simulated service is {service}; Ctrl-C ends both)", flush=True)
        web.run_app(create_app(), host="127.0.0.1", port=options.port, print=None, shutdown_timeout=2)


if __name__ == "__main__":
    main()
