"""The grid from Python: `Grid.open("htcgrid.toml").map(events)`."""

import logging
import threading
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, closing
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

from htcgrid import config, plugins
from htcgrid.agent.agent import Agent
from htcgrid.agent.backoff import BackOff
from htcgrid.agent.log_tails import missing_output
from htcgrid.agent.shutdown import Shutdown
from htcgrid.following import Pauses
from htcgrid.logs.handler_logs import HandlerLogs
from htcgrid.logs.opening import end_with, handler_logs
from htcgrid.logs.targets import TextTarget
from htcgrid.mapped import BATCH, MappedTasks
from htcgrid.runtime.parsing import parsed
from htcgrid.spi import (
    HtcgridError,
    Observers,
    Outcome,
    Plugin,
    Result,
    ResultSink,
    ResultStore,
    Sent,
    TaskQueue,
    TaskSource,
    Unavailable,
)
from htcgrid.spi.tracing import TRACEPARENT

log = logging.getLogger(__name__)

_FIRST_LOOK = 0.002
_LONGEST_LOOK = 2.0
_EMBEDDED_LINGER = 0.001
_EMBEDDED_LEASE = 6.0  # a third of it is how long a cancelled task may run on


class FunctionError(HtcgridError):
    """A task failed. `document` is the Lambda error document, `kind` the kind of failure."""

    def __init__(self, outcome: Outcome) -> None:
        self.task_id = outcome.task_id
        self.kind = outcome.failure
        self.document = _document(outcome.payload)
        super().__init__(f"{self.kind}: {self.document.get('errorType', '')}: {self.document.get('errorMessage', '')}")


def _document(payload: bytes) -> dict[str, Any]:
    """The error document. A user's own runtime may have sent anything."""
    try:
        document = parsed(payload)
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"errorMessage": payload.decode(errors="replace")}


class Answers(ResultSink):
    """The embedded agent's results, handed over to the thread that reads their session."""

    max_batch = BATCH

    def __init__(self, config: Plugin.Config, function: Any) -> None:
        super().__init__(config, function)
        self._readers: dict[str, SimpleQueue[Result | None]] = {}
        self._is_over = False

    def put(self, results: Sequence[Result]) -> None:
        readers = self._readers
        for result in results:
            reader = readers.get(result.task.attributes["session_id"])
            if reader is not None:  # else nobody reads that session any more
                reader.put(result)

    def begin(self, session: str) -> None:
        """Keep the results of this session from now on."""
        reader = self._readers[session] = SimpleQueue()
        if self._is_over:
            reader.put(None)

    def end(self, session: str) -> None:
        self._readers.pop(session, None)

    def wake(self) -> None:
        """There are no more results: have every reader look why."""
        self._is_over = True
        for reader in list(self._readers.values()):
            reader.put(None)

    def following(self, session: str) -> Iterator[Result | None]:
        """Waits for each result and yields it; yields None after `wake`."""
        next_result = self._readers[session].get
        while True:
            yield next_result()


class Grid:
    """Submits events and reads their answers.

    Where the config's source is a queue and its sink a store, agents elsewhere run the tasks. Otherwise an agent in this
    process does, with queues in memory: the same code, on one machine.
    """

    def __init__(self, grid: config.GridConfig) -> None:
        self._grid = grid
        self._stack = ExitStack()
        self._source: Any = None
        self._sink: Any = None
        self._agent: Agent | None = None
        self._observers = Observers()
        self._error: BaseException | None = None
        self._shutdown = Shutdown()
        self._back_off = BackOff(self._shutdown, grid.settings.agent.unavailable_limit, log.warning)

    @classmethod
    def open(cls, file: str | Path | None = None, settings: Mapping[str, Any] | None = None) -> Self:
        """Read the config, connect, and start the embedded agent where there is no queue.

        `settings` overrides the file, nested as it is: `{"plane": "docker"}`.
        """
        grid = cls(config.read(Path(file) if file is not None else None, settings))
        try:
            grid._connect()
        except BaseException:
            grid.close()
            raise
        return grid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the plugins; an embedded agent finishes its running tasks. A thread that waits for answers gets an error."""
        self._shutdown.drain(0.0)
        answers = self._sink
        if self._agent is not None:
            self._agent.drain()
        try:
            self._stack.close()
        finally:
            self._source = self._sink = self._agent = None
            if isinstance(answers, Answers):
                answers.wake()

    def map(self, events: Iterable[Any], *, ordered: bool = True, progress: bool = False) -> Iterator[Any]:
        """The answer to each event: in the order of events, or as they come with `ordered=False`.

        Raises `FunctionError` where the answer of a failed task would be. Events are values that `json.dumps` takes. With a
        queue, all tasks are submitted before this returns, and run on when the iteration is left early, by an error or a
        `break`. An embedded agent is given at most `WINDOW` tasks ahead of the answers that are read, so that memory does
        not grow with their number; when the iteration is left early, it drops those that it has not run.
        """
        return _answers(self.outcomes(events, ordered=ordered, progress=progress))

    def outcomes(
        self, events: Iterable[Any], *, ordered: bool = True, progress: bool = False
    ) -> Generator[Outcome, None, None]:
        """As `map`, but failures are outcomes too."""
        if self._source is None:
            raise config.ConfigError("This Grid is closed; open another one with Grid.open().")
        session = str(uuid.uuid4())
        trace = self._observers.session_trace(session)
        tasks = MappedTasks(session, events, {TRACEPARENT: trace.traceparent} if trace else None)
        if isinstance(self._sink, Answers):
            self._sink.begin(session)
        try:
            self._submit(tasks)
        except BaseException:
            self._leave(tasks)
            raise
        return self._coming(tasks, _length(events), ordered=ordered, progress=progress)

    def _coming(
        self, tasks: MappedTasks, total: int | None, *, ordered: bool, progress: bool
    ) -> Generator[Outcome, None, None]:
        try:
            coming = self._as_completed(tasks)
            outcomes = tasks.in_order(coming) if ordered else coming
            if progress:  # a bar that shows nothing takes 20 microseconds as well
                outcomes = iter(tqdm(outcomes, total=len(tasks) if tasks.is_complete else total, unit=" tasks"))
            for outcome in outcomes:
                tasks.read += 1
                yield outcome
        finally:
            self._leave(tasks)

    def _leave(self, tasks: MappedTasks) -> None:
        """No more answers are read: an embedded agent drops what it has not run."""
        if isinstance(self._sink, Answers):
            self._sink.end(tasks.session)
            if tasks.waiting:
                self._source.cancel(tasks.session)

    def _submit(self, tasks: MappedTasks) -> None:
        """Put all tasks into a queue; into an embedded agent's only as many as it may have ahead."""
        while not tasks.is_complete and (self._agent is None or tasks.has_window()):
            batch, began = tasks.next_batch(), time.monotonic()
            source = self._source  # `close` may have come while the events were taken
            if source is None:
                raise config.ConfigError("The Grid was closed while its events were submitted.")
            if batch:
                self._back_off.call(lambda source=source, batch=batch: source.put(batch))  # type: ignore[misc]
            if self._observers.trace is not None:
                seconds = time.monotonic() - began
                self._observers.tell(Sent(time.time(), tasks.session, batch, seconds, tasks.is_complete))

    def _as_completed(self, tasks: MappedTasks) -> Iterator[Outcome]:
        sink, pauses = self._sink, Pauses(self._sink, _FIRST_LOOK, _LONGEST_LOOK)
        if isinstance(sink, Answers):
            looks = sink.following(tasks.session)
        else:
            looks = self._from_log(tasks.session) if sink.keeps_order else self._from_store(tasks)
        while tasks.waiting or not tasks.is_complete:
            if self._source is None:
                raise config.ConfigError(f"The Grid was closed while {tasks.waiting} answers were awaited.")
            if not tasks.is_complete:
                self._submit(tasks)
            result = next(looks) if tasks.waiting else None
            if result is None:
                if self._error is not None:
                    raise self._error
                if tasks.waiting and not isinstance(sink, Answers):
                    pauses.pause()
            elif tasks.settle(result.task.id):
                pauses.reset()
                yield result.outcome

    def _from_log(self, session: str) -> Iterator[Result | None]:
        """Results of the session as they are stored; None if there is none at this time."""
        seen = 0
        sink = self._sink  # `close` may come while this waits
        while True:
            try:
                for number, result in sink.scan(session, seen):
                    seen = number
                    yield result
            except Unavailable as error:
                self._back_off.wait(error)
            else:
                self._back_off.reset()
            yield None

    def _from_store(self, tasks: MappedTasks) -> Iterator[Result | None]:
        sink = self._sink
        while True:
            some = tasks.some_waiting()
            found = self._back_off.call(lambda: sink.get(some))  # noqa: B023
            yield from found.values()
            if not found:
                tasks.turn_over(some)
                yield None

    def _connect(self) -> None:
        source = self._grid.source() if self._grid.settings.source is not None else None
        if source is None or not isinstance(source, TaskQueue):
            self._embed()
            return
        sink = self._grid.sink()
        if not isinstance(sink, ResultStore):
            raise config.ConfigError("[sink] cannot be read back by id. Use one that can, such as sqlite.")
        self._source, self._sink = source, sink
        self._observers = self._stack.enter_context(self._grid.span_makers())
        for plugin in (source, sink):
            self._stack.callback(plugin.close)
            plugin.open()

    def _embed(self) -> None:
        function = self._grid.settings.function
        memory = plugins.load(TaskSource, "memory")
        queue = {"endless": True, "lease_seconds": _EMBEDDED_LEASE}
        self._source = self._stack.enter_context(memory(memory.Config.model_validate(queue), function))
        self._sink = answers = self._stack.enter_context(Answers(Plugin.Config(), function))
        options, file = self._grid.settings.agent, self._grid.file
        self._observers = observers = self._stack.enter_context(self._grid.observers())
        lines = self._stack.enter_context(handler_logs(options, file.resolve().parent if file else Path.cwd(), _stream))
        invoker = self._stack.enter_context(self._grid.invoker(observers, lines))
        if invoker.output.is_wanted and (missing := missing_output(invoker)):
            log.warning("[agent] handler_logs: %s.", missing)
        # An answer that is handed over in memory gains nothing by waiting for others.
        options = options.model_copy(update={"linger": min(options.linger, _EMBEDDED_LINGER)})
        self._agent = agent = Agent(self._source, invoker, self._sink, options, observers=observers)
        end_with(lines, lambda: agent.deadline)
        thread = threading.Thread(target=self._run, args=(agent, answers), name="htcgrid-embedded", daemon=True)
        self._stack.callback(thread.join)
        thread.start()

    def _run(self, agent: Agent, answers: Answers) -> None:
        try:
            agent.run()
        except BaseException as error:  # noqa: BLE001 - it is raised again where answers are waited for
            self._error = error
        answers.wake()


def _stream(name: str) -> HandlerLogs:
    return HandlerLogs(TextTarget(name))


def _length(events: Iterable[Any]) -> int | None:
    return len(events) if isinstance(events, Sized) else None


def _answers(outcomes: Generator[Outcome, None, None]) -> Iterator[Any]:
    with closing(outcomes):
        for outcome in outcomes:
            if outcome.failure is not None:
                raise FunctionError(outcome)
            yield _answer(outcome)


def _answer(outcome: Outcome) -> Any:
    try:
        return parsed(outcome.payload)
    except ValueError as error:
        raise HtcgridError(f"The answer of task {outcome.task_id} cannot be read as JSON: {error}.") from None
