"""The progress of a run, on standard error: a progress bar on a terminal, JSON lines elsewhere."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from htcgrid.agent.agent import Agent
from htcgrid.spi import HtcgridError, TaskSource

_BAR_SECONDS = 0.5
_LINE_SECONDS = 10.0
_LAST_SECONDS = 2.0


class Progress:
    """Shows an agent's statistics while it runs."""

    def __init__(self, source: TaskSource, *, quiet: bool = False) -> None:
        self._source = source
        self._quiet = quiet
        self._known: int | None = None
        """How many tasks the source had before the run, if it is a file."""

    @contextmanager
    def showing(self, agent: Agent) -> Iterator[None]:
        if (
            self._source.lease_seconds is None and not self._quiet
        ):  # a file: it is read before the run to count the tasks
            self._known = self._depth()
        if self._quiet:
            yield
            return
        ended = threading.Event()
        terminal = sys.stderr.isatty()
        show = self._show_bar if terminal else self._show_lines
        thread = threading.Thread(target=show, args=(agent, ended), name="htcgrid-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_LAST_SECONDS)  # it may wait for a queue that does not answer

    def total(self, agent: Agent) -> int | None:
        """How many tasks there are, including those that the agent has received; None if that is not known."""
        if self._source.lease_seconds is None and not self._quiet:
            return self._known
        waiting = self._depth()
        summary = agent.summary()
        return None if waiting is None else waiting + agent.held + summary.finished + summary.already_stored

    def _depth(self) -> int | None:
        """None if the source does not know, or is unavailable (the agent itself reports that if it lasts)."""
        try:
            return self._source.stats(brief=True).states.waiting
        except HtcgridError:
            return None

    def _show_bar(self, agent: Agent, ended: threading.Event) -> None:
        from tqdm import tqdm  # noqa: PLC0415 - a part of the cold start that few commands need

        with tqdm(total=self.total(agent), unit=" tasks", dynamic_ncols=True, smoothing=0.1, file=sys.stderr) as bar:
            while True:
                last = ended.wait(_BAR_SECONDS)
                summary = agent.summary()
                bar.n = summary.finished + summary.already_stored
                bar.set_postfix_str(f"{summary.failed} failed, workers {summary.busy_share:.0%} busy", refresh=True)
                if last:
                    return

    def _show_lines(self, agent: Agent, ended: threading.Event) -> None:
        total = self.total(agent)
        while not ended.wait(_LINE_SECONDS):
            summary = agent.summary()
            line = {
                "time": round(time.time(), 3),
                "done": summary.finished,
                "failed": summary.failed,
                "already_stored": summary.already_stored,
                "total": total,
                "tasks_per_second": round(summary.tasks_per_second, 1),
                "seconds_left": _seconds_left(
                    total, summary.finished, summary.already_stored, summary.tasks_per_second
                ),
                "busy_share": round(summary.busy_share, 3),
            }
            print(json.dumps(line), file=sys.stderr, flush=True)


def _seconds_left(total: int | None, finished: int, stored: int, rate: float) -> float | None:
    """At least 0: tasks may be put into a queue after its depth was read."""
    return None if total is None or rate <= 0 else round(max(0, total - finished - stored) / rate, 1)
