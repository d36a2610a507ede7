"""The command ``dryapi``, also as ``python -m dryapi_async``."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command, or say what it needs."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f'The command needs {" and ".join(missing)}: pip install "dryapi-async[cli]"\n')
        sys.exit(2)
    from dryapi_async.cli.app import start  # noqa: PLC0415  only once they are there

    sys.exit(start())


if __name__ == "__main__":
    main()
