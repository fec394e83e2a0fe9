"""The group of all commands, and what all commands share: options, exit codes, how errors are shown.

Each module of this package that is a command defines `command`. It is imported only when that command is used, so that each
command starts without the imports of the others.
"""

import errno
import importlib
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click

from htcgrid.cli import log_output, machine_limits, streams
from htcgrid.spi import HtcgridError, Unavailable

DONE, SOME_FAILED, USAGE, UNAVAILABLE, TOO_MANY_FAILED = 0, 1, 2, 3, 4
INTERRUPTED, READER_GONE, TERMINATED = 130, 141, 143

_CLOSE_SECONDS = 5.0
"""How long a command that SIGTERM ends may take to close what it has opened."""

EXIT_CODES = {
    DONE: "all done, and no result is a failure",
    SOME_FAILED: "the results hold failures, of this run or an earlier one",
    USAGE: "wrong usage or config",
    UNAVAILABLE: "a plane, queue or store was unavailable",
    TOO_MANY_FAILED: "more failed than [agent] tolerated_failures, so the run was stopped",
    INTERRUPTED: "interrupted by Ctrl-C",
    READER_GONE: "the reader of standard output went away",
    TERMINATED: "ended early by SIGTERM or the end of the terminal, with tasks left to run",
}

COMMANDS = {
    "build": "Build a container image of the function.",
    "cancel": "Cancel tasks, or a session.",
    "check": "Read the config and show what is wrong with it.",
    "compare": "Run the same events on two planes and show what differs.",
    "dashboard": "Show a standing grid on a page.",
    "deploy": "Set the plane up so that it runs by itself.",
    "failures": "Show which tasks failed and why.",
    "init": "Write a working project into a folder.",
    "invoke": "Run one event and print the answer.",
    "layer": "Install a requirements.txt into a folder for [function] layers.",
    "new-plugin": "Write a distribution with a plugin that works.",
    "permissions": "Print the least rights that the grid needs, on AWS and on a cluster.",
    "plugins": "List the planes, sources, sinks and observers that are installed.",
    "redrive": "Run failed tasks again.",
    "report": "Write a page about results.",
    "results": "Print results that agents have stored.",
    "run": "Run the tasks of the source until it ends.",
    "scale": "Change the number of workers of a deployed plane.",
    "serve": "Serve AWS's Invoke API over the plane.",
    "status": "Show the deployed plane, the queue and the results.",
    "submit": "Put tasks into the queue.",
    "top": "Show a standing grid in the terminal.",
    "undeploy": "Remove everything that deploy created.",
    "verify": "Run the conformance kit over an installed plugin.",
}


class Terminated(BaseException):
    """SIGTERM, where a command has not said how it ends: while it starts, for one."""


class Commands(click.Group):
    """Loads a command's module when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"htcgrid.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            # click assumes that every EPIPE is from standard output, and ends the program without a message.
            raise RuntimeError("A pipe or connection of a plugin was cut.") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
)
@click.version_option(package_name="htcgrid")
def group() -> None:
    """Write a Lambda-style handler once; run it unchanged on a chosen compute plane.

    \b
    htcgrid init demo && cd demo     # a working project
    htcgrid run                      # run its tasks on this machine
    htcgrid run --plane docker       # the same in containers, once the config has [planes.docker]
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and end the process with its exit code."""
    # Some supervisors start programs with these signals ignored or blocked: then this one could not be stopped, and could
    # not see how its processes ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    streams.prepare()
    # Linux drops this signal for the first process of a container, unless there is a handler.
    signal.signal(signal.SIGTERM, _terminate)
    status = status_of(arguments)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    streams.end(interrupted=status == INTERRUPTED)
    if status in {INTERRUPTED, UNAVAILABLE, TERMINATED}:
        with suppress(HtcgridError):
            sys.stdout.flush()
        os._exit(status)  # Python would wait for a plugin's threads, which may wait for a service that does not answer
    sys.exit(status)


def status_of(arguments: list[str] | None = None) -> int:  # noqa: PLR0911 - one return a way to end
    """Run a command; every error that is meant for the user is printed as one message."""
    try:
        with log_output.shown():
            status: Any = group.main(arguments, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt, Terminated) as end:
        return _status_after(end)
    except HtcgridError as error:
        return _failed(error)
    except UnicodeEncodeError as error:
        # Python keeps bytes of the command line that are not UTF-8 as lone surrogates.
        return _say(f"{error.object[:200]!r} is not UTF-8 text. Give it in UTF-8.", USAGE)
    except Exception as error:  # noqa: BLE001 - a bug, of ours or of a plugin; shown whole
        if ended := _follows_a_signal(error):
            return ended
        if advice := machine_limits.advice(error):
            return _say(advice, UNAVAILABLE)
        traceback.print_exc()
        print("htcgrid: this is a bug in htcgrid or in a plugin; please report the lines above.", file=sys.stderr)
        return UNAVAILABLE
    return status if isinstance(status, int) else DONE


def _follows_a_signal(error: BaseException) -> int:
    """The exit code where it was raised while Ctrl-C or SIGTERM unwound the program, otherwise 0: Python's Condition, for
    one, then releases a lock that it does not hold."""
    cause = error.__context__
    if isinstance(cause, KeyboardInterrupt | Terminated):
        return _status_after(cause)
    return 0 if cause is None else _follows_a_signal(cause)


def _status_after(end: BaseException) -> int:
    return TERMINATED if isinstance(end, Terminated) else INTERRUPTED


def _terminate(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGALRM, lambda *_: os._exit(TERMINATED))
    signal.setitimer(signal.ITIMER_REAL, _CLOSE_SECONDS)
    raise Terminated


def _failed(error: HtcgridError) -> int:
    if isinstance(error, streams.OutputLost) and error.is_reader_gone:
        return READER_GONE  # such as `| head -1`: no message is needed
    return _say(str(error), UNAVAILABLE if isinstance(error, Unavailable | streams.OutputLost) else USAGE)


def _say(message: str, status: int) -> int:
    print(f"htcgrid: {message}", file=sys.stderr)
    return status
