"""Exit statuses of shells and containers, converted to those of `subprocess`."""

import signal


def of_shell(status: int) -> int:
    """A signal is negative, as `subprocess` has it: 137 is a KILL, or an exit with just that status."""
    return 128 - status if 128 < status <= 128 + signal.NSIG else status
