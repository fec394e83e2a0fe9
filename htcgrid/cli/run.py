import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from htcgrid.agent.agent import Agent
from htcgrid.agent.init_errors import FunctionBroken
from htcgrid.agent.statistics import Summary
from htcgrid.cli import c_heap
from htcgrid.cli.closing import closed_in_time
from htcgrid.cli.failing import Failing, commands, has_failures
from htcgrid.cli.grid_options import grid_options, options_text, read_grid
from htcgrid.cli.handler_lines import handler_lines, logs_option, tell_what_is_left_out, with_logs
from htcgrid.cli.live_page import live_page
from htcgrid.cli.main import DONE, INTERRUPTED, SOME_FAILED, TERMINATED, TOO_MANY_FAILED
from htcgrid.cli.manifest import Manifest
from htcgrid.cli.progress import Progress
from htcgrid.cli.summary import print_summary
from htcgrid.cli.tolerance import Tolerance
from htcgrid.config import GridConfig, is_standard_stream
from htcgrid.logs.opening import end_with, settle
from htcgrid.spi import Invoker, Plugin, ResultSink, TaskQueue, TaskSource
from htcgrid.stop_request import stop_signals

log = logging.getLogger(__name__)

_CUT_OFF_SECONDS = 3.0
"""The time that is left, after a second Ctrl-C, to stop and return running tasks."""


@click.command()
@grid_options
@click.option("--source", metavar="PLUGIN", help="Take tasks from this plugin instead of the config's.")
@click.option("--sink", metavar="PLUGIN", help="Put results into this plugin instead of the config's.")
@logs_option
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure: tolerated_failures = 0.")
@click.option("--redrive", is_flag=True, help="Also run failed tasks again; see `htcgrid redrive`.")
@click.option(
    "--dashboard", is_flag=True, help="Show the run on a page that this machine serves; the address is printed."
)
@click.option("--quiet", is_flag=True, help="Show no progress, only the summary.")
def command(
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    source: str | None,
    sink: str | None,
    logs: str | None,
    fail_fast: bool,
    redrive: bool,
    dashboard: bool,
    quiet: bool,
) -> int:
    """Run the tasks of the source on the plane, into the sink.

    It ends when the source ends; an endless queue is served until SIGTERM or Ctrl-C. Running tasks then
    have `agent.grace` seconds; a second Ctrl-C stops them at once. Tasks that have a result are not run
    again, so a stopped or killed run continues when it is started again.

    Exit code 1 as long as there are failures in the results, of this run or an earlier one; `htcgrid failures` shows
    them, and `htcgrid redrive` runs them again.

    \b
    htcgrid run
    htcgrid run --plane docker
    htcgrid run --set source.path=more.jsonl --set sink.path=more-results.jsonl
    htcgrid run --set source.path=- --set sink.path=-  < events.jsonl
    """
    if redrive and dashboard:
        raise click.UsageError("--dashboard does not go with --redrive.")
    tune()
    if fail_fast:
        pairs = (*pairs, "agent.tolerated_failures=0")
    tables = {name: {"plugin": plugin} for name, plugin in (("source", source), ("sink", sink)) if plugin}
    grid = read_grid(file, plane, with_logs(pairs, logs), tables)
    options = options_text(file, plane, pairs)
    if redrive and (status := _redrive(grid, quiet=quiet, options=options)) is not None:
        return status
    with (
        live_page(grid, is_wanted=dashboard) as page,
        grid.observers(page) as observers,
        closed_in_time(grid.source()) as tasks,
        closed_in_time(grid.sink()) as results,
    ):
        manifest = Manifest.beside(results, grid, "run")
        with handler_lines(grid) as lines, grid.invoker(observers, lines) as invoker:
            return run_agent(grid, tasks, results, invoker, manifest, quiet=quiet, options=options)


def _redrive(grid: GridConfig, *, quiet: bool, options: str) -> int | None:
    """Put what failed into the queue again, for this run and others; or run it here, and return the exit code."""
    from htcgrid.cli import redrive, store  # noqa: PLC0415 - they import this module
    from htcgrid.failures.choice import Choice  # noqa: PLC0415 - a run without --redrive starts without it

    sink, source = store.failures_of(grid), grid.source()
    if source.redrives or isinstance(source, TaskQueue):
        redrive.resubmit(grid, sink, source, Choice())
        return None
    redrive.must_end(grid, source)
    return redrive.run_again(grid, sink, source, Choice(), quiet=quiet, options=options, others=True)


def tune() -> None:
    """Prepare this process for an agent."""
    # There are always thousands of tasks and results, which have no reference cycles: searching them for cycles as
    # often as Python does by default costs a tenth of the agent's time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    # A thread that parses or formats thousands of tasks must not delay those that feed the workers.
    sys.setswitchinterval(0.0005)
    c_heap.share()


def run_agent(
    grid: GridConfig,
    tasks: TaskSource,
    results: ResultSink,
    invoker: Invoker,
    manifest: Manifest | None,
    *,
    quiet: bool,
    options: str,
) -> int:
    """Run an agent with these plugins, which are open. Returns the exit code. `options` are added to the commands that it shows."""
    progress = Progress(tasks, quiet=quiet)
    limit = Limit(Tolerance.of(grid.settings.agent.tolerated_failures), progress)
    failing = Failing((lambda _message: None) if quiet else log.warning, limit.look)
    agent = Agent(tasks, invoker, results, grid.settings.agent, failed=failing, observers=invoker.observers)
    limit.agent = agent
    tell_what_is_left_out(invoker)
    end_with(invoker.output, lambda: agent.deadline)
    signals = Signals(agent)
    with signals, progress.showing(agent):
        try:
            summary = agent.run()
        except FunctionBroken as error:
            raise _explained(error) from None
    settle(invoker.output)
    print_summary(summary, grid, (tasks, results, invoker), failing, commands(results, options))
    if limit.is_exceeded and not signals.interrupted:
        status = TOO_MANY_FAILED
    else:
        status = _exit_code(summary, tasks, results, signals, log.warning)
    if manifest is not None:
        manifest.add(summary, (tasks, results, invoker), status, log.warning)
    elif not quiet and not is_standard_stream(results):
        log.warning("this run is in no manifest: the sink has no place for one")
    return status


def _explained(error: FunctionBroken) -> FunctionBroken:
    """The same with what to do about it, if that is known."""
    from htcgrid.failures.hints import hint  # noqa: PLC0415 - most runs do not need it

    advice = hint("", str(error))
    return FunctionBroken(f"{error} - {advice}.") if advice else error


class Limit:
    """Stops the agent if more tasks fail than tolerated."""

    def __init__(self, tolerance: Tolerance, progress: Progress) -> None:
        self._tolerance = tolerance
        self._progress = progress
        self.agent: Agent | None = None
        self.is_exceeded = False

    def look(self, failed: int) -> None:
        """Called after each failure by the thread that has stored it."""
        agent = self.agent
        if agent is None or self.is_exceeded:
            return
        finished = agent.summary().finished
        if self._tolerance.is_exceeded(failed, finished, lambda: self._progress.total(agent)):
            self.is_exceeded = True
            agent.drain()
            log.warning(
                "stopping, as %s tasks have failed and tolerated_failures = %s. What is left is run by the next "
                "`htcgrid run`, what failed by `htcgrid redrive`.",
                f"{failed:,}",
                self._tolerance,
            )


def _exit_code(
    summary: Summary, tasks: TaskSource, results: ResultSink, signals: "Signals", say: Callable[[str], None]
) -> int:
    if signals.interrupted:
        return INTERRUPTED
    if signals.terminated and _ends(tasks) and not tasks.exhausted:
        say("ended early by a signal: tasks are left to run. The same command continues with them.")
        return TERMINATED
    # Not for an endless queue: at a service this read costs money, and every agent of a standing grid would make one.
    asked = results.lists_failures and (_ends(tasks) or type(results).usage is Plugin.usage)
    found = has_failures(results, say) if asked else None
    if found is None:
        found = bool(summary.failed)
    elif found and not summary.failed:
        say(
            "the results hold failures of earlier runs: `htcgrid failures` shows them, `htcgrid redrive` runs them again."
        )
    return SOME_FAILED if found else DONE  # a failure of this run may have been replaced since


def _ends(tasks: TaskSource) -> bool:
    """Whether the source ends by itself: then a run that is stopped earlier leaves tasks."""
    return tasks.lease_seconds is None or bool(getattr(tasks.config, "drain", False))


class Signals:
    """SIGTERM, Ctrl-C and the end of the terminal drain the agent; a second Ctrl-C stops it at once."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._before: dict[int, Any] = {}
        self.interrupted = False
        self.terminated = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._stop)

    def __exit__(self, *_error: object) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        if number != signal.SIGINT:
            self.terminated = True
            self._agent.drain()
            return
        again, self.interrupted = self.interrupted, True
        self._agent.drain(0.0 if again else None)
        if again:
            self._before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, self._cut_off))
            signal.setitimer(signal.ITIMER_REAL, _CUT_OFF_SECONDS)
        else:
            print("htcgrid: finishing the running tasks; press Ctrl-C again to stop at once.", file=sys.stderr)

    def _cut_off(self, _number: int, _frame: object) -> None:
        """End the process after a second Ctrl-C, even if a plugin does not return."""
        print(
            "htcgrid: stopped without waiting, because a plugin does not answer. Nothing is lost: tasks without a result run again.",
            file=sys.stderr,
        )
        raise KeyboardInterrupt
