"""The parent of a plain worker, in place of the agent, which the worker could otherwise end or look into by `os.getppid()`.

It ends as the worker does. It is started by its path, without `site`, so it imports nothing of htcgrid.
"""

import os
import signal
import sys
from typing import NoReturn


def main(locale: str, *command: str) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would print where it was
    # Python sets this variable for itself where it knows no locale of the name in LANG.
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
