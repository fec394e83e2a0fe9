import gc
import signal
import sys
import threading
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import click

from htcgrid.agent.agent import Agent
from htcgrid.agent.statistics import Summary
from htcgrid.cli.main import DONE, INTERRUPTED, SOME_FAILED
from htcgrid.cli.options import grid_options, read_grid
from htcgrid.cli.progress import Progress
from htcgrid.cli.report import print_summary
from htcgrid.spi import Unavailable

_LOOK_SECONDS = 0.2
_MORE_SECONDS = 3.0
"""What an agent has to store and give back after its grace time, before it is cut off."""


@click.command()
@grid_options
@click.option("--source", metavar="PLUGIN", help="Take tasks from this plugin instead of the config's.")
@click.option("--sink", metavar="PLUGIN", help="Put results into this plugin instead of the config's.")
@click.option(
    "--log",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep what handlers print there, a file a container; for planes with the key `logs`.",
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
    so a run that was stopped, or killed, goes on where it was.

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
    # A thread that parses or formats thousands of tasks is not to keep those waiting that feed the workers.
    sys.setswitchinterval(0.0005)
    tables = {name: {"plugin": plugin} for name, plugin in (("source", source), ("sink", sink)) if plugin}
    grid = read_grid(file, plane, pairs, **tables)
    if log is not None:
        grid = read_grid(file, plane, (*pairs, f"planes.{grid.settings.plane}.logs={log.resolve()}"), **tables)
    with grid.source() as tasks, grid.sink() as results, grid.invoker() as invoker:
        progress = Progress(tasks, quiet=quiet)
        agent = Agent(tasks, invoker, results, grid.rules(), progress.say)
        signals = Signals(agent, grid.settings.agent.grace)
        with signals, progress.showing(agent):
            summary = _run(agent, signals)
        print_summary(summary, grid, (tasks, results, invoker))
    if signals.interrupted:
        return INTERRUPTED
    return SOME_FAILED if _any_failed(summary) else DONE


def _run(agent: Agent, signals: "Signals") -> Summary:
    """Until the agent ends; not for longer than it was given, whatever it waits for."""
    ended: Future[Summary] = Future()

    def work() -> None:
        try:
            ended.set_result(agent.run())
        except BaseException as error:  # noqa: BLE001 - raised again below
            ended.set_exception(error)

    threading.Thread(target=work, name="htcgrid-agent", daemon=True).start()
    while not wait([ended], _LOOK_SECONDS).done:
        if time.monotonic() > signals.deadline + _MORE_SECONDS:
            raise Unavailable(
                f"The run was asked to stop and has not ended {_MORE_SECONDS:g} s after its grace time: a source, sink or "
                "plane does not answer, or whoever reads the results has stalled. It was cut off. Nothing is lost: what "
                "has no result is run again."
            )
    return ended.result()


def _any_failed(summary: Summary) -> bool:
    return summary.failed > 0


class Signals:
    """SIGTERM drains; so does Ctrl-C, and a second one stops at once."""

    def __init__(self, agent: Agent, grace: float) -> None:
        self._agent = agent
        self._grace = grace
        self._deadlines = [float("inf")]
        self._before: dict[int, Any] = {}
        self.interrupted = False

    @property
    def deadline(self) -> float:
        """On the monotonic clock, when the grace is over."""
        return min(self._deadlines)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._stop)

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        again = number == signal.SIGINT and self.interrupted
        grace = 0.0 if again else self._grace
        self._deadlines.append(time.monotonic() + grace)
        self._agent.drain(grace)
        if number == signal.SIGTERM:
            return
        self.interrupted = True
        if not again:
            print("htcgrid: finishing what runs; press Ctrl-C again to stop at once.", file=sys.stderr)
