"""Exit statuses of shells and containers, converted to those of `subprocess`."""

import signal


def of_shell(status: int) -> int:
    """A signal becomes a negative number, as in `subprocess`: 137 is a KILL, or an exit with that very status."""
    return 128 - status if 128 < status <= 128 + signal.NSIG else status
