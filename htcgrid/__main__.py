"""Where the program begins: what it needs is loaded in here, so that Ctrl-C is heard by then too."""

import os
from typing import NoReturn


def main() -> NoReturn:
    """Run the command of the command line, and end the process with its exit code."""
    try:
        from htcgrid.cli import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        os._exit(130)  # as `htcgrid.cli.main.INTERRUPTED`, which may not be loaded


if __name__ == "__main__":
    main()
