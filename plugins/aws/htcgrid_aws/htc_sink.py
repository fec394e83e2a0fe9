"""The `htc_grid` sink: outputs and states as HTC-Grid's clients read them."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

from htcgrid.spi import FailureKind, Rejected, Result, ResultSink
from htcgrid_aws import result_documents
from htcgrid_aws.htc_data import decoded, encoded
from htcgrid_aws.htc_plugin import HtcGridPlugin
from htcgrid_aws.htc_states import session_of
from htcgrid_aws.parallel import each, raise_worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from htcgrid_aws.htc_states import Row

log = logging.getLogger("htcgrid.aws.htc_sink")


class HtcGridSink(HtcGridPlugin, ResultSink):
    """An answer is `<task_id>-output` and a finished row; a failure is `<task_id>-error` and a failed row."""

    max_batch = 32

    def put(self, results: Sequence[Result]) -> None:
        """Results side by side. Where the row is another's by now, or over, it stays as it is: it has its own end.

        `Rejected` names tasks whose row was deleted while they ran: their output is stored, and nobody looks for it.
        """
        raise_worst(answer for _, answer in each(self.pool, self._store, results))

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        """Results of tasks that are over; those that HTC-Grid's own agent ran have no times."""
        over = [(task_id, row) for task_id, row in self.states.rows(task_ids).items() if row.final]
        found = each(self.pool, lambda pair: self._load(*pair), over)
        raise_worst(answer for _, answer in found)
        return {answer.task.id: answer for _, answer in found if isinstance(answer, Result)}

    def _store(self, result: Result) -> None:
        task_id, outcome = result.task.id, result.outcome
        failed = outcome.failure is not None
        key = f"{task_id}-error" if failed else f"{task_id}-output"
        self.data.put(key, encoded(outcome.payload))
        held, row = self.states.end(task_id, "failed" if failed else "finished", _metadata(result))
        if held:
            return
        if row is None and not failed:
            message = (
                f"task {task_id}: its row in table {self.grid.ddb_state_table} was deleted while it ran; "
                f"what it gave is kept at {self.data.name}{key}"
            )
            raise Rejected(message, [task_id])
        log.warning("task %s: its row is %s and stays so", task_id, f"{row.state} of {row.owner}" if row else "missing")

    def _load(self, task_id: str, row: Row) -> Result:
        metadata: dict[str, Any] = {"attributes": {"session_id": session_of(task_id)}}
        if row.metadata:
            metadata = json.loads(row.metadata)
        log_tail = base64.b64decode(metadata.pop("log_tail", ""))
        if row.state != "finished":
            metadata.setdefault("failure", FailureKind.CANCELLED if row.state == "cancelled" else FailureKind.EXIT)
        body = self.data.get(f"{task_id}-output" if row.state == "finished" else f"{task_id}-error")
        payload = _told(row.state) if body is None else decoded(body)
        return result_documents.result(task_id, metadata, payload, log_tail)


def _metadata(result: Result) -> str:
    metadata = result_documents.metadata(result)
    if result.outcome.log_tail:
        metadata["log_tail"] = base64.b64encode(result.outcome.log_tail).decode()
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False)


def _told(state: str) -> bytes:
    """The error document of a task that was ended by HTC-Grid itself, which leaves none."""
    return json.dumps({"errorType": f"HtcGrid.{state.capitalize()}", "errorMessage": f"the task was {state}"}).encode()
