import gc
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from htcgrid.agent.agent import Agent
from htcgrid.agent.statistics import Summary
from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE, INTERRUPTED, SOME_FAILED
from htcgrid.cli.progress import Progress
from htcgrid.cli.report import print_summary

_CUT_OFF_SECONDS = 3.0
"""The time that is left, after a second Ctrl-C, to stop and return running tasks."""


@click.command()
@grid_options
@click.option("--source", metavar="PLUGIN", help="Take tasks from this plugin instead of the config's.")
@click.option("--sink", metavar="PLUGIN", help="Put results into this plugin instead of the config's.")
@click.option(
    "--log",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write what handlers print into this folder, one file for each container; for planes with the key `logs`.",
)
@click.option("--quiet", is_flag=True, help="No progress; the summary only.")
def command(
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    source: str | None,
    sink: str | None,
    log: Path | None,
    quiet: bool,
) -> int:
    """Run the tasks of the source on the plane, into the sink.

    Ends when the source does; a queue without end is served until SIGTERM or Ctrl-C. Running tasks then
    have `agent.grace` seconds; a second Ctrl-C stops them at once. What has a result is not run again,
    so a run that was stopped or killed continues when it is started again.

    \b
    htcgrid run
    htcgrid run --plane docker
    htcgrid run --set source.path=more.jsonl --set sink.path=more-results.jsonl
    htcgrid run --set source.path=- --set sink.path=-  < events.jsonl
    """
    # Tasks and results hold no cycles, and there are thousands of them at any time: looking through them
    # for cycles as often as Python does by default costs a tenth of the agent's time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    # A thread that parses or formats thousands of tasks must not delay those that feed the workers.
    sys.setswitchinterval(0.0005)
    tables = {name: {"plugin": plugin} for name, plugin in (("source", source), ("sink", sink)) if plugin}
    grid = read_grid(file, plane, pairs, **tables)
    if log is not None:
        grid = read_grid(file, plane, (*pairs, f"planes.{grid.settings.plane}.logs={log.resolve()}"), **tables)
    with grid.source() as tasks, grid.sink() as results, grid.invoker() as invoker:
        progress = Progress(tasks, quiet=quiet)
        agent = Agent(tasks, invoker, results, grid.settings.agent)
        signals = Signals(agent)
        with signals, progress.showing(agent):
            summary = agent.run()
        print_summary(summary, grid, (tasks, results, invoker))
    if signals.interrupted:
        return INTERRUPTED
    return SOME_FAILED if _any_failed(summary) else DONE


def _any_failed(summary: Summary) -> bool:
    return summary.failed > 0


class Signals:
    """SIGTERM, Ctrl-C and the end of the terminal drain the agent; a second Ctrl-C stops it at once."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._before: dict[int, Any] = {}
        self.interrupted = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # started by nohup, which asks to ignore the end of the terminal
                self._before[number] = signal.signal(number, self._stop)

    def __exit__(self, *_error: object) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        if number != signal.SIGINT:
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
        """A user who pressed Ctrl-C twice does not wait for a plugin that does not answer."""
        print(
            "htcgrid: stopped without waiting, because a plugin does not answer. Nothing is lost: tasks without a result run again.",
            file=sys.stderr,
        )
        raise KeyboardInterrupt
