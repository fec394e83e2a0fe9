"""The built-in plugins, through the one file that anybody writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from htcgrid_contracts import AgentContract, InvokerContract, ResultSinkContract, TaskSourceContract, contract_function
from htcgrid_contracts.wait_rules import WaitRules

from htcgrid.builtin.jsonl_sink import JsonlSink
from htcgrid.builtin.jsonl_source import JsonlSource
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import FailureKind, Function, Outcome, Plugin, Result, Task


class TestProcessInvoker(InvokerContract):
    wait_factor = 1.5  # a busy machine holds a test up for seconds

    @pytest.fixture
    def invoker(self, function: Function) -> ProcessInvoker:
        return ProcessInvoker(ProcessInvoker.Config(workers=2), function)

    def marks(self, folder: Path) -> str:
        return str(folder)

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Plugin:
        return ProcessInvoker(ProcessInvoker.Config(), contract_function(code=tmp_path / "no-such-folder"))


@pytest.mark.slow
class TestProcessInvokerWithReducedSupervision(TestProcessInvoker):
    @pytest.fixture
    def invoker(self, function: Function) -> ProcessInvoker:
        return ProcessInvoker(ProcessInvoker.Config(workers=2, supervision="reduced"), function)


@pytest.mark.slow
class TestMemorySource(TaskSourceContract):
    finite = True
    shared = False

    @pytest.fixture
    def source(self) -> MemorySource:
        return MemorySource(MemorySource.Config(lease_seconds=1), contract_function())


class TestMemorySink(ResultSinkContract):
    failures_have_events = True
    wait_factor = 0.1  # what its known gaps wait for never comes
    known_gaps: ClassVar = {
        "test_a_result_outlives_a_process_that_is_killed_right_after_put": "it is the memory of the process",
        "test_a_result_is_there_after_close_and_open": "it is the memory of the plugin",
        "test_it_can_be_read_beside_a_run_that_writes": "it is the memory of the plugin",
        "test_a_reader_sees_what_is_stored_after_it_was_opened": "it is the memory of the plugin",
        "test_a_reader_is_told_the_same_as_a_writer": "it is the memory of the plugin",
        "test_stored_sees_what_another_has_put": "it is the memory of the plugin",
        "test_scan_misses_none_of_eight_writers": "it is the memory of the plugin",
    }

    @pytest.fixture
    def sink(self) -> MemorySink:
        return MemorySink(MemorySink.Config(), contract_function())


class TestSqliteSource(TaskSourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> SqliteSource:
        return SqliteSource(SqliteSource.Config(path=tmp_path / "grid.db", lease_seconds=1), contract_function())


class TestSqliteSourceThatEnds(WaitRules):
    """With `drain`: the end of a run, which the other rules do not depend on."""

    ends = True

    @pytest.fixture
    def source(self, tmp_path: Path) -> SqliteSource:
        config = SqliteSource.Config(path=tmp_path / "grid.db", lease_seconds=1, drain=True)
        return SqliteSource(config, contract_function())


class TestSqliteSink(ResultSinkContract):
    failures_have_events = True

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Plugin:
        return SqliteSink(SqliteSink.Config(path=tmp_path / "no-such-folder" / "grid.db"), contract_function())

    @pytest.fixture
    def sink(self, tmp_path: Path) -> SqliteSink:
        return SqliteSink(SqliteSink.Config(path=tmp_path / "grid.db"), contract_function())


class TestJsonlSource(TaskSourceContract):
    finite = True
    shared = False
    known_gaps: ClassVar = {
        "test_a_lease_that_is_over_spoils_no_batch": "no note is kept of what was acked, which the sink knows",
        "test_a_late_call_leaves_a_dead_letter_as_it_is": "no note is kept of what was acked",
        "test_a_payload_arrives_as_it_was_sent[white space around]": "a line is an event without its white space",
        "test_a_payload_arrives_as_it_was_sent[line breaks]": "a line is an event",
    }

    @pytest.fixture
    def source(self, tmp_path: Path) -> JsonlSource:
        path = tmp_path / "tasks.jsonl"
        path.touch()
        return JsonlSource(JsonlSource.Config(path=str(path)), contract_function())

    def publish(self, source: JsonlSource, tasks: Sequence[Task]) -> Sequence[Task]:  # type: ignore[override]
        path = Path(source.config.path)
        path.write_bytes(b"\n".join(task.payload for task in tasks))  # the last line has no end, as editors leave it
        session = {"session_id": path.name}
        return [Task(str(line), task.payload, session) for line, task in enumerate(tasks, 1)]

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Plugin:
        return JsonlSource(JsonlSource.Config(path=str(tmp_path / "no-such.jsonl")), contract_function())


class TestJsonlSink(ResultSinkContract):
    failures_have_attributes = False  # the tasks, with their attributes, are in a file of their own
    known_gaps: ClassVar = {
        "test_the_facts_of_an_outcome_are_stored": "a line holds what users read; init_ms and environment are left out",
        "test_an_answer_is_stored_as_it_came[white space around]": "white space around the answer is no part of the line",
        "test_an_answer_is_stored_as_it_came[line breaks]": "a line break in an answer would end the line: it is a space",
    }

    @pytest.fixture
    def sink(self, tmp_path: Path) -> JsonlSink:
        return JsonlSink(JsonlSink.Config(path=str(tmp_path / "results.jsonl")), contract_function())

    def read_back(self, sink: JsonlSink, task_ids: Sequence[str]) -> Sequence[Result]:  # type: ignore[override]
        return [
            stored
            for line in Path(sink.config.path).read_bytes().splitlines()
            if (stored := _parsed(line)).task.id in task_ids
        ]

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Plugin:
        return JsonlSink(JsonlSink.Config(path=str(tmp_path / "no-such" / "results.jsonl")), contract_function())


def _parsed(line: bytes) -> Result:
    document = json.loads(line)
    failure = FailureKind(document["failure"]) if "failure" in document else None
    outcome = Outcome(document["id"], _member(line, "output" if failure is None else "error"), failure)
    return Result(Task(document["id"], b""), outcome, document["attempt"])


def _member(line: bytes, name: str) -> bytes:
    """The bytes of a member, as they stand in the line."""
    start = line.index(b'"%s":' % name.encode()) + len(name) + 3
    text = line[start:].decode().lstrip()
    return text[: json.JSONDecoder().raw_decode(text)[1]].encode()


@pytest.mark.slow
class TestProcessInvokerInTheLoop(AgentContract):
    @pytest.fixture
    def invoker(self) -> ProcessInvoker:
        return ProcessInvoker(ProcessInvoker.Config(workers=2), contract_function())


@pytest.mark.slow
class TestMemorySourceInTheLoop(AgentContract):
    @pytest.fixture
    def source(self) -> MemorySource:
        return MemorySource(MemorySource.Config(lease_seconds=1), contract_function())


@pytest.mark.slow
class TestSqliteInTheLoop(AgentContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> SqliteSource:
        return SqliteSource(SqliteSource.Config(path=tmp_path / "grid.db", lease_seconds=1), contract_function())

    @pytest.fixture
    def sink(self, tmp_path: Path) -> SqliteSink:
        return SqliteSink(SqliteSink.Config(path=tmp_path / "grid.db"), contract_function())
