"""The parent of a plain worker. Without it the parent is the agent, which a worker could end or inspect by `os.getppid()`.

It ends in the same way as the worker. It is started by its path, without `site`, so it imports nothing of htcgrid.
"""

import os
import signal
import sys
from typing import NoReturn


def main(locale: str, *command: str) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would print where it was
    # Python sets this variable for itself if it does not know the locale in LANG.
    variables = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
    if locale:
        variables["LC_CTYPE"] = locale
    try:
        # Python ignores these two, and the worker would inherit that.
        worker = os.posix_spawnp(command[0], command, variables, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
