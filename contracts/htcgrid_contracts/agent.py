"""What must hold for any plugin inside the agent's loop, also when calls fail."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from htcgrid.agent.agent import Agent
from htcgrid.agent.options import AgentOptions
from htcgrid.spi import Invoker, Plugin, Result, ResultSink, ResultStore, Task, TaskQueue, TaskSource

from htcgrid_contracts import unreliable_plugins
from htcgrid_contracts.common import not_asked, unique_id
from htcgrid_contracts.kit_plugins import KitInvoker, KitSink, KitSource
from htcgrid_contracts.packing import contract_function

Wrap = Callable[[Any], Any]


class AgentContract:
    """Subclass it, and override one of the fixtures `source`, `invoker` and `sink` with your plugin, not opened. The
    kit gives the other two, in memory. Where yours is the source, override `publish`; where it is the sink,
    `read_back`, as in their own contracts."""

    wait_factor: float = 1.0
    """Every wait is multiplied by it."""

    finite: bool = False
    """Whether tasks are there before the source is opened, as in a file."""

    @pytest.fixture
    def source(self) -> TaskSource:
        return KitSource(Plugin.Config(), contract_function())

    @pytest.fixture
    def invoker(self) -> Invoker:
        return KitInvoker(Plugin.Config(), contract_function())

    @pytest.fixture
    def sink(self) -> ResultSink:
        return KitSink(Plugin.Config(), contract_function())

    def publish(self, source: TaskSource, tasks: Sequence[Task]) -> Sequence[Task] | None:
        """As in `TaskSourceContract`."""
        if isinstance(source, KitSource):
            source.publish(tasks)
        elif isinstance(source, TaskQueue):
            source.put(tasks)
        else:
            not_asked("override `publish(source, tasks)`: put tasks where the source finds them")
        return None

    def read_back(self, sink: ResultSink, task_ids: Sequence[str]) -> Sequence[Result]:
        """As in `ResultSinkContract`."""
        if not isinstance(sink, ResultStore):
            not_asked("override `read_back(sink, task_ids)`: read what is stored, without the plugin")
        return list(sink.get(task_ids).values())

    # --- rules ---

    def test_every_task_ends_once(self, source: TaskSource, invoker: Invoker, sink: ResultSink) -> None:
        """In the agent's loop every task must end with exactly one result. This is what the agent promises to users.
        Read: spi.TaskSource, spi.ResultSink."""
        self._run(source, invoker, sink)

    def test_every_task_ends_once_when_calls_are_refused(
        self, source: TaskSource, invoker: Invoker, sink: ResultSink
    ) -> None:
        """Every task must end once, also when calls are refused or their answers are lost. Services throttle.
        Read: spi.Unavailable."""
        self._run(
            source,
            invoker,
            sink,
            unreliable_plugins.FlakySource,
            unreliable_plugins.FlakyInvoker,
            unreliable_plugins.FlakySink,
        )

    def test_every_task_ends_once_when_each_is_delivered_twice(
        self, source: TaskSource, invoker: Invoker, sink: ResultSink
    ) -> None:
        """Every task must end once, also when the queue delivers each twice. Queues deliver at least once.
        Read: spi.ResultSink.put."""
        self._run(source, invoker, sink, unreliable_plugins.DoublingSource)

    def test_every_task_ends_once_when_results_are_stored_slowly(
        self, source: TaskSource, invoker: Invoker, sink: ResultSink
    ) -> None:
        """Every task must end once, also when results are stored slowly. The leases are extended meanwhile.
        Read: spi.TaskSource.extend."""
        self._run(source, invoker, sink, sink_fault=unreliable_plugins.SlowSink)

    def test_every_task_ends_once_when_environments_die(
        self, source: TaskSource, invoker: Invoker, sink: ResultSink
    ) -> None:
        """A task that ends its environment must be tried again and become a dead letter at last. The other tasks must
        end as usual. Read: spi.FailureKind.EXIT."""
        tasks = [*_tasks(8), *(_task({"do": "end", "status": 3}) for _ in range(2)), *_tasks(8)]
        stored = self._run(source, invoker, sink, tasks=tasks)
        failed = [result for result in stored.values() if result.outcome.failure is not None]
        assert len(failed) == 2, (
            f"2 of {len(tasks)} tasks end their environment, and {len(failed)} were stored as failed"
        )

    def test_every_task_ends_once_when_the_plane_changes_its_size(
        self, source: TaskSource, invoker: Invoker, sink: ResultSink
    ) -> None:
        """Every task must end once, also when `max_concurrency` changes during the run.
        Read: spi.Invoker.max_concurrency."""
        tasks = _tasks(40, seconds=0.1)
        self._run(source, invoker, sink, invoker_fault=unreliable_plugins.ResizingInvoker, tasks=tasks)

    def test_sigterm_drains_in_time_and_loses_nothing(
        self, source: TaskSource, invoker: Invoker, sink: ResultSink
    ) -> None:
        """After SIGTERM the agent must end in time. Tasks that it holds are finished or returned, and none is lost.
        Read: spi.Plugin.close."""
        tasks = _tasks(40, seconds=0.2)
        with self._opened(source, invoker, sink, tasks) as expected:
            agent = Agent(source, invoker, sink, AgentOptions(grace=5 * self.wait_factor))
            running = _Running(agent)
            self._until(lambda: bool(self._stored(sink, expected)), "a first result")
            with _on_sigterm(agent.drain):
                os.kill(os.getpid(), signal.SIGTERM)
                running.join(20 * self.wait_factor)
            done = set(self._stored(sink, expected))
            left = {task.id for task in expected} - done
            if not self.finite:  # a file is read from its beginning by the next run
                again: set[str] = set()
                wait = (source.lease_seconds or 0) + 10 * self.wait_factor
                deadline = time.monotonic() + wait
                while again < left and time.monotonic() < deadline:
                    again |= {lease.task.id for lease in source.receive(source.max_batch, 0.5)}
                assert again >= left, f"{len(left - again)} tasks are neither stored nor handed out again after SIGTERM"
                assert again <= left, f"{len(again - left)} tasks are stored, and are handed out again after SIGTERM"

    # --- helpers ---

    def _run(
        self,
        source: TaskSource,
        invoker: Invoker,
        sink: ResultSink,
        source_fault: Wrap = lambda plugin: plugin,
        invoker_fault: Wrap = lambda plugin: plugin,
        sink_fault: Wrap = lambda plugin: plugin,
        tasks: Sequence[Task] = (),
    ) -> Mapping[str, Result]:
        """Runs the loop on these tasks until each has its result; returns the results."""
        with self._opened(source, invoker, sink, tasks or _tasks(30)) as expected:
            faulty = source_fault(source)
            agent = Agent(faulty, invoker_fault(invoker), sink_fault(sink), AgentOptions(grace=5 * self.wait_factor))
            running = _Running(agent)

            def is_done() -> bool:
                doubled = not isinstance(faulty, unreliable_plugins.DoublingSource) or faulty.has_doubled
                return doubled and len(self._stored(sink, expected)) == len(expected)

            self._until(lambda: is_done() or running.has_ended(), "all results")
            if not source.exhausted:
                agent.drain()
            running.join(30 * self.wait_factor)
            stored = self._stored(sink, expected)
            lost = [task.id for task in expected if task.id not in stored]
            assert not lost, f"{len(lost)} of {len(expected)} tasks have no result, such as {lost[0]}"
            left = source.receive(source.max_batch, (source.lease_seconds or 0) + 0.5)
            assert not left, f"{left[0].task.id} has a result, and is handed out again: it was not acked"
            return stored

    def _opened(self, source: TaskSource, invoker: Invoker, sink: ResultSink, tasks: Sequence[Task]) -> "_Opened":
        return _Opened(self, source, invoker, sink, tasks)

    def _stored(self, sink: ResultSink, tasks: Sequence[Task]) -> dict[str, Result]:
        found = self.read_back(sink, [task.id for task in tasks])
        results = {result.task.id: result for result in found}
        assert len(results) == len(found), f"{len(found) - len(results)} tasks have more than one result"
        return results

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60 * self.wait_factor
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {60 * self.wait_factor:.0f} s"
            time.sleep(0.05)


class _Opened:
    """Opens all three, with the tasks published, and gives the tasks as they will be leased."""

    def __init__(
        self, contract: AgentContract, source: TaskSource, invoker: Invoker, sink: ResultSink, tasks: Sequence[Task]
    ) -> None:
        self._contract, self._source, self._others, self._tasks = contract, source, (invoker, sink), tasks
        self._stack = ExitStack()

    def __enter__(self) -> Sequence[Task]:
        expected: Sequence[Task] | None = None
        if self._contract.finite:
            expected = self._contract.publish(self._source, self._tasks)
        for plugin in (self._source, *self._others):
            self._stack.enter_context(plugin)
        if not self._contract.finite:
            expected = self._contract.publish(self._source, self._tasks)
        return expected or self._tasks

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@contextmanager
def _on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Sends SIGTERM to this process, as `htcgrid run` receives it."""
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Running:
    """An agent that runs in a thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert self.has_ended(), f"the agent had not ended {seconds:.0f} s after it could"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._agent.run()
        except BaseException as error:  # noqa: BLE001 - raised again by join
            self._error = error


def _tasks(size: int, seconds: float = 0.0) -> list[Task]:
    return [_task({"do": "sleep", "seconds": seconds, "value": number}) for number in range(size)]


def _task(event: Mapping[str, Any]) -> Task:
    return Task(unique_id(), json.dumps(event).encode())
