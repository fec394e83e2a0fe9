"""The grid from Python: `Grid.open("htcgrid.toml").map(events)`."""

import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

from htcgrid import config, plugins
from htcgrid.agent.agent import Agent
from htcgrid.spi import HtcgridError, Outcome, ResultSink, ResultStore, Task, TaskQueue, TaskSource

_LOOK_SECONDS = 0.05


class FunctionError(HtcgridError):
    """A task failed. `document` is the Lambda error document, `kind` the kind of failure."""

    def __init__(self, outcome: Outcome) -> None:
        self.task_id = outcome.task_id
        self.kind = outcome.failure
        try:
            self.document: dict[str, Any] = json.loads(outcome.payload)
        except ValueError:
            self.document = {"errorMessage": outcome.payload.decode(errors="replace")}
        super().__init__(f"{self.kind}: {self.document.get('errorType', '')}: {self.document.get('errorMessage', '')}")


class Grid:
    """Submits events and reads their answers.

    Where the config's source is a queue and its sink a store, agents elsewhere do the work. Else an agent
    in this process does, over queues in memory: the same code, on one machine.
    """

    def __init__(self, grid: config.GridConfig) -> None:
        self._grid = grid
        self._stack = ExitStack()
        self._source: Any = None
        self._sink: Any = None
        self._agent: Agent | None = None
        self._error: BaseException | None = None

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
        """Let go; an embedded agent finishes what runs."""
        if self._agent is not None:
            self._agent.drain()
        self._stack.close()
        self._source = self._sink = self._agent = None

    def map(self, events: Iterable[Any], *, ordered: bool = True, progress: bool = False) -> Iterator[Any]:
        """The answer to each event: in the order of events, or as they come with `ordered=False`.

        Raises `FunctionError` where the answer of a failed task would be. Events are what `json.dumps`
        takes. They are submitted before the first answer is given.
        """
        for outcome in self.outcomes(events, ordered=ordered, progress=progress):
            if outcome.failure is not None:
                raise FunctionError(outcome)
            yield json.loads(outcome.payload)

    def outcomes(self, events: Iterable[Any], *, ordered: bool = True, progress: bool = False) -> Iterator[Outcome]:
        """As `map`, but failures are outcomes too."""
        ids = self._submit(events)
        with tqdm(total=len(ids), unit=" tasks", disable=not progress) as bar:
            for outcome in self._in_order(ids) if ordered else self._as_completed(ids):
                bar.update()
                yield outcome

    def _submit(self, events: Iterable[Any]) -> list[str]:
        session = str(uuid.uuid4())
        numbered = enumerate(events, 1)
        ids: list[str] = []
        while batch := list(islice(numbered, self._source.max_batch)):
            tasks = [
                Task(f"{session}_{number}", json.dumps(event).encode(), {"session_id": session})
                for number, event in batch
            ]
            self._source.put(tasks)
            ids.extend(task.id for task in tasks)
        return ids

    def _in_order(self, ids: list[str]) -> Iterator[Outcome]:
        early: dict[str, Outcome] = {}
        coming = self._as_completed(ids)
        for task_id in ids:
            while task_id not in early:
                outcome = next(coming)
                early[outcome.task_id] = outcome
            yield early.pop(task_id)

    def _as_completed(self, ids: list[str]) -> Iterator[Outcome]:
        waiting = dict.fromkeys(ids)
        while waiting:
            found = self._sink.get(list(islice(waiting, self._sink.max_batch)))
            for task_id, result in found.items():
                del waiting[task_id]
                yield result.outcome
            if not found:
                if self._error is not None:
                    raise self._error
                # What has no result yet goes to the back, so that every id is asked for in turn.
                for task_id in list(islice(waiting, self._sink.max_batch)):
                    waiting[task_id] = waiting.pop(task_id)
                time.sleep(_LOOK_SECONDS)

    def _connect(self) -> None:
        source = self._grid.source() if self._grid.settings.source is not None else None
        if source is None or not isinstance(source, TaskQueue):
            self._embed()
            return
        sink = self._grid.sink()
        if not isinstance(sink, ResultStore):
            raise config.ConfigError("[sink] cannot be read back by id. Use sqlite, dynamodb or s3.")
        self._source, self._sink = source, sink
        for plugin in (source, sink):
            self._stack.callback(plugin.close)
            plugin.open()

    def _embed(self) -> None:
        function = self._grid.settings.function
        source, sink = plugins.load(TaskSource, "memory"), plugins.load(ResultSink, "memory")
        self._source = self._stack.enter_context(source(source.Config.model_validate({"endless": True}), function))
        self._sink = self._stack.enter_context(sink(sink.Config(), function))
        invoker = self._stack.enter_context(self._grid.invoker())
        self._agent = Agent(self._source, invoker, self._sink, self._grid.rules())
        thread = threading.Thread(target=self._run, args=(self._agent,), name="htcgrid-embedded", daemon=True)
        self._stack.callback(thread.join)
        thread.start()

    def _run(self, agent: Agent) -> None:
        try:
            agent.run()
        except BaseException as error:  # noqa: BLE001 - it is raised again where answers are waited for
            self._error = error
