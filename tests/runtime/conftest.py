import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Outcome, Task


class Plane:
    """A process plane and the shortest way to call it."""

    def __init__(self, invoker: ProcessInvoker) -> None:
        self.invoker = invoker

    def __call__(self, event: Any, timeout: float | None = None, **attributes: str) -> Outcome:
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        lease = Lease(Task(str(uuid4()), payload, attributes))
        (outcome,) = self.invoker.invoke([lease], timeout or self.invoker.function.timeout)
        assert isinstance(outcome, Outcome), outcome
        assert outcome.task_id == lease.task.id
        return outcome

    def answer(self, event: Any, timeout: float | None = None, **attributes: str) -> Any:
        outcome = self(event, timeout, **attributes)
        assert outcome.failure is None, outcome
        return json.loads(outcome.payload)


@pytest.fixture(scope="module")
def plane() -> Iterator[Callable[..., Plane]]:
    """Makes planes of one worker that last as long as the module's tests."""
    with ExitStack() as planes:

        def make(*, function: dict[str, Any], **config: Any) -> Plane:
            invoker = ProcessInvoker(ProcessInvoker.Config(**{"workers": 1, **config}), Function(**function))
            return Plane(planes.enter_context(invoker))

        yield make
