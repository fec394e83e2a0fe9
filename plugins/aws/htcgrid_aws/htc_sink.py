"""The `htc_grid` sink: outputs and states in the format that HTC-Grid's clients read."""

from __future__ import annotations

import base64
import json
import logging
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from htcgrid.spi import FailureKind, Rejected, Result, ResultSink
from htcgrid_aws import result_documents
from htcgrid_aws.dynamodb_table import READ_BATCH
from htcgrid_aws.htc_data import decoded, encoded
from htcgrid_aws.htc_plugin import HtcGridPlugin
from htcgrid_aws.htc_states import FINAL, session_of
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.run_items import RunItems
from htcgrid_aws.stored_so_far import StoredSoFar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from htcgrid.spi import Function
    from htcgrid_aws.htc_states import Row

log = logging.getLogger("htcgrid.aws.htc_sink")


class HtcGridSink(HtcGridPlugin, ResultSink):
    """An answer is stored as `<task_id>-output` and a finished row; a failure too, or as `<task_id>-error` and a failed row.

    The kind of failure, times and log are in htcgrid's own attribute, so `get` can always tell a failure from an answer.
    """

    max_batch = 32

    def __init__(self, config: HtcGridPlugin.Config, function: Function) -> None:
        super().__init__(config, function)
        self._found: dict[str, list[str]] = {}
        self._so_far = StoredSoFar()

    def put(self, results: Sequence[Result]) -> None:
        """Stores results at the same time. A row that another agent has by now, or that is over, is not changed.

        `Rejected` names tasks whose row was deleted while they ran: their output is stored, but no client looks for it.
        """
        answers = each(self.pool, self._store, self._so_far.left(results))
        self._so_far.note(answers)
        raise_worst(answer for _, answer in answers)

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        """Results of tasks that are over; those that HTC-Grid's own agent ran have no times."""
        over = [(task_id, row) for task_id, row in self.states.rows(task_ids).items() if row.final]
        found = each(self.pool, lambda pair: self._load(*pair), over)
        raise_worst(answer for _, answer in found)
        return {answer.task.id: answer for _, answer in found if isinstance(answer, Result)}

    keeps_runs = True

    def add_run(self, document: bytes) -> None:
        """Adds a row without session and status to the state table, so HTC-Grid's indexes and clients do not see it."""
        RunItems(self.table).add(document)

    def runs(self) -> Iterator[bytes]:
        return RunItems(self.table).all()

    keeps_order = True

    def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
        """The results of a session. They have numbers in the order in which this sink finds them."""
        if not session_id:
            raise Rejected("htc_grid: results can be listed only by session. Name the session, or the tasks.")
        found = self._found.setdefault(session_id, [])
        known = set(found)
        states = self.states.of_session(session_id)
        over = {task_id for task_id, state in states.items() if state in FINAL}
        late = states.keys() - over
        if len(late) <= READ_BATCH:  # the end of a session: an index may be older than the rows
            over |= {task_id for task_id, row in self.states.rows(sorted(late)).items() if row.final}
        found += sorted((task_id for task_id in over if task_id not in known), key=_by_index)
        for start in range(after, len(found), self.max_batch):
            chunk = found[start : start + self.max_batch]
            results = self.get(chunk)
            for number, task_id in enumerate(chunk, start + 1):
                if task_id in results:
                    yield number, results[task_id]

    def _store(self, result: Result) -> None:
        result, is_bootstrap_error = _checked(result)
        task_id, outcome = result.task.id, result.outcome
        failed = outcome.failure is not None
        if outcome.failure is FailureKind.CANCELLED:
            key, state = f"{task_id}-error", "cancelled"
        elif failed and (is_bootstrap_error or self.config.failures == "error" or not self._is_ours(task_id)):
            key, state = f"{task_id}-error", "failed"
        else:
            key, state = f"{task_id}-output", "finished"
        self.data.put(key, encoded(outcome.payload))
        held, row = self.states.end(task_id, state, _metadata(result))
        if held or (row and row.state == state == "cancelled"):
            return
        if row is None and not failed:
            message = (
                f"task {task_id}: its row in table {self.grid.ddb_state_table} was deleted while it ran; "
                f"its output is kept at {self.data.name}{key}"
            )
            raise Rejected(message, [task_id])
        log.warning(
            "task %s: its row is %s and is not changed", task_id, f"{row.state} of {row.owner}" if row else "missing"
        )

    def _is_ours(self, task_id: str) -> bool:
        """Whether a failure may be stored as the output: only if this agent has the row, so that no other agent's output is lost."""
        row = self.states.rows([task_id]).get(task_id)
        return row is not None and row.state == "processing" and row.owner == self.owner

    def _load(self, task_id: str, row: Row) -> Result:
        with result_documents.read_from(
            f"the row of task {task_id} in table {self.grid.ddb_state_table}, or its output,", task_id
        ):
            return self._read(task_id, row)

    def _read(self, task_id: str, row: Row) -> Result:
        metadata: dict[str, Any] = {"attributes": {"session_id": session_of(task_id)}}
        if row.metadata:
            metadata = json.loads(row.metadata)
        log_tail = zlib.decompress(base64.b64decode(packed)) if (packed := metadata.pop("log", "")) else b""
        if row.state != "finished":
            metadata.setdefault("failure", FailureKind.CANCELLED if row.state == "cancelled" else FailureKind.EXIT)
        body = self.data.get(f"{task_id}-output" if row.state == "finished" else f"{task_id}-error")
        payload = _error_document(row.state) if body is None else decoded(body)
        return result_documents.result(task_id, metadata, payload, log_tail)


def _checked(result: Result) -> tuple[Result, bool]:
    """HTC-Grid's `bootstrap` programs send BOOTSTRAP ERROR in place of an answer; HTC-Grid's agent does not store it as an answer."""
    outcome = result.outcome
    if outcome.failure is not None or not outcome.payload.lstrip(b'" ').startswith(b"BOOTSTRAP ERROR"):
        return result, False
    document = {"errorType": "Runtime.BootstrapError", "errorMessage": outcome.payload[:4096].decode(errors="replace")}
    failure = replace(outcome, payload=json.dumps(document).encode(), failure=FailureKind.INIT_ERROR)
    return replace(result, outcome=failure), True


def _by_index(task_id: str) -> tuple[int, str]:
    index = task_id.rpartition("_")[2]
    return (int(index), "") if index.isdecimal() else (0, task_id)


def _metadata(result: Result) -> str:
    metadata = result_documents.metadata(result)
    if result.outcome.log_tail:
        # It is compressed because each KB of the row costs a write unit whenever the row changes.
        metadata["log"] = base64.b64encode(zlib.compress(result.outcome.log_tail)).decode()
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False)


def _error_document(state: str) -> bytes:
    """The error document of a task that HTC-Grid itself has ended, since HTC-Grid writes none."""
    return json.dumps({"errorType": f"HtcGrid.{state.capitalize()}", "errorMessage": f"the task was {state}"}).encode()
