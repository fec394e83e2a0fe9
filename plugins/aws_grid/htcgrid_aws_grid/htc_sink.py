"""The `htc_grid` sink: outputs and states as HTC-Grid's clients read them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from htcgrid.spi import FailureKind, Outcome, Rejected, Result, ResultSink, Task
from htcgrid_aws_grid.htc_config import HtcGridConfig
from htcgrid_aws_grid.htc_data import decoded, encoded
from htcgrid_aws_grid.htc_plugin import HtcGridPlugin
from htcgrid_aws_grid.htc_states import session_of
from htcgrid_aws_grid.parallel import each, raise_worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)


class HtcGridSink(HtcGridPlugin, ResultSink):
    """An answer is `<task_id>-output` and a finished row; a failure is `<task_id>-error` and a failed row."""

    Config = HtcGridConfig
    max_batch = 32

    def put(self, results: Sequence[Result]) -> None:
        """Results side by side. Where the row is another's by now, or over, it stays as it is: it has its own end.

        `Rejected` names tasks whose row was deleted while they ran: their output is stored, and nobody looks for it.
        """
        raise_worst(answer for _, answer in each(self.pool, self._store, results))

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        """Results of finished and failed tasks; HTC-Grid keeps no times."""
        over = [(task_id, row.state) for task_id, row in self.states.rows(task_ids).items() if row.final]
        found = each(self.pool, lambda pair: self._load(*pair), over)
        raise_worst(answer for _, answer in found)
        return {answer.task.id: answer for _, answer in found if isinstance(answer, Result)}

    def _store(self, result: Result) -> None:
        task_id, outcome = result.task.id, result.outcome
        failed = outcome.failure is not None
        key = f"{task_id}-error" if failed else f"{task_id}-output"
        self.data.put(key, encoded(outcome.payload))
        held, row = self.states.end(task_id, "failed" if failed else "finished")
        if held:
            return
        if row is None and outcome.failure is not FailureKind.INVALID_EVENT:
            message = (
                f"task {task_id}: its row in table {self.grid.ddb_state_table} was deleted while it ran; "
                f"what it gave is kept at {self.data.name}{key}"
            )
            raise Rejected(message, [task_id])
        log.warning("task %s: its row is %s and stays so", task_id, f"{row.state} of {row.owner}" if row else "missing")

    def _load(self, task_id: str, state: str) -> Result | None:
        task = Task(task_id, b"", {"session_id": session_of(task_id)})
        if state == "cancelled":
            return Result(task, Outcome(task_id, b"null", FailureKind.CANCELLED))
        body = self.data.get(f"{task_id}-output" if state == "finished" else f"{task_id}-error")
        if body is None:
            payload = json.dumps({"errorType": "HtcGrid.Failed", "errorMessage": f"HtcGrid {state}; no document"})
            return Result(task, Outcome(task_id, payload.encode(), FailureKind.EXIT))
        failure = FailureKind.HANDLER_ERROR if state == "failed" else None
        return Result(task, Outcome(task_id, decoded(body), failure))
