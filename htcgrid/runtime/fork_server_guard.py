"""The parent of the fork server. If the fork server is killed, the guard ends everything that is left.

A handler may also stop the fork server, its parent, with SIGSTOP. Then the fork server does not see that the agent has
ended, and the guard continues it. The kernel continues the guard itself with a signal when its parent, the agent, ends.
"""

import ctypes
import os
import select
import signal
import socket

from htcgrid.runtime.descendants import end_all

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
prctl = ctypes.CDLL(None, use_errno=True).prctl
_LOOK_MS = 1000
_LOOKS = 10
"""How often the fork server gets SIGCONT after the agent has ended. Then it is killed."""


def guarded(control: socket.socket) -> int:
    """Continue as the child of a guard. `control` is the socket to the agent, which both watch.

    Returns a descriptor that becomes readable when the guard itself is killed: then this program ends everything.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
    reading, writing = os.pipe()
    server = os.fork()
    if server == 0:
        os.close(writing)
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
        return reading
    os.close(reading)
    code = _await(server, control)
    end_all(keep=set())
    if code == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)  # the agent must see the same exit status
    os._exit(code & 0xFF)


def _await(server: int, control: socket.socket) -> int:
    """The exit status of the fork server; a signal is negative."""
    poll = select.poll()
    pidfd = os.pidfd_open(server)
    poll.register(pidfd, select.POLLIN)
    poll.register(control, 0)  # its end is reported without being asked for
    if all(descriptor != pidfd for descriptor, _ in poll.poll()):
        poll.unregister(control)
        for _ in range(_LOOKS):
            os.kill(server, signal.SIGCONT)
            if poll.poll(_LOOK_MS):
                break
        else:
            os.kill(server, signal.SIGKILL)
    control.close()
    return os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
