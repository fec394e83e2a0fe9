"""From observations to spans, after OpenTelemetry's conventions for messaging and for functions.

A span is made when what it is of has ended, since the observations say when it began. So the SDK's own spans, which are
begun and ended with locks and callbacks, are not needed, and a task costs half.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version

from htcgrid.spi import FailureKind, Function, Lease, Outcome, Result, Task, TraceContext
from htcgrid.spi.tracing import attempt_of, caller_of
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

_SYSTEM = "htcgrid"
_NEVER_RAN = (FailureKind.CANCELLED, FailureKind.INVALID_EVENT)
_UNSET = Status(StatusCode.UNSET)
_PROCESS = (SpanKind.CONSUMER, "pubsub")
"""The kind of an attempt's span, and what triggers it: an agent's task."""
_ANSWER = (SpanKind.SERVER, "http")
"""The same of a call that was waited for."""
Attributes = Mapping[str, str | int | float | bool]
_Mutable = dict[str, str | int | float | bool]


def context_of(span: TraceContext) -> SpanContext:
    """As OpenTelemetry has it."""
    flags = TraceFlags(TraceFlags.SAMPLED if span.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(int(span.trace_id, 16), int(span.span_id, 16), is_remote=True, trace_flags=flags)


def _facts_of(outcome: Outcome, ended: float) -> tuple[_Mutable, str, float, float]:
    """What an outcome says of its invocation: attributes, the kind of failure, from when, until when."""
    began = outcome.started or ended - outcome.duration_ms / 1000
    attributes: _Mutable = {
        "faas.coldstart": outcome.init_ms is not None,
        "faas.instance": outcome.environment,
        "htcgrid.billed_ms": outcome.billed_ms,
        "htcgrid.max_memory_mb": outcome.max_memory_mb,
    }
    if outcome.init_ms is not None:
        attributes["htcgrid.init_ms"] = outcome.init_ms
    error = outcome.failure.value if outcome.failure is not None else ""
    return attributes, error, began, began + outcome.duration_ms / 1000


class SpanMaker:
    """Makes the spans of one process, and passes each to `emit`. `run` is the span of tasks without a trace.

    `has_room` is asked before an attempt's span is made, and counts those that are not.
    """

    def __init__(
        self,
        function: Function,
        resource: Resource,
        run: TraceContext,
        emit: Callable[[ReadableSpan], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._name = function.function_name
        self._resource = resource
        self._run = run
        self._emit = emit
        self._has_room = has_room
        self._ids = RandomIdGenerator()
        self._scope = InstrumentationScope("htcgrid", version("htcgrid"))
        self._most_links = SpanLimits().max_links or 128

    def sent(
        self, span: TraceContext, parent: TraceContext | None, session: str, tasks: int, began: float, ended: float
    ) -> None:
        """A submit: the span that its tasks have as their caller."""
        attributes = {
            **self._messaging("send", "send"),
            "messaging.message.conversation_id": session,
            "messaging.batch.message_count": tasks,
        }
        self._make(f"send {self._name}", SpanKind.PRODUCER, span, parent, attributes, began, ended)

    def received(self, leases: Sequence[Lease], ended: float, seconds: float) -> None:
        """A call of the source, with a link to each submit of which it brought tasks."""
        of_tasks = (caller_of(lease.task.attributes) for lease in leases if lease.task.attributes)
        callers = dict.fromkeys(caller for caller in of_tasks if caller is not None)
        links = [Link(context_of(caller)) for caller in callers if caller.has_span]
        self._batch("receive", "receive", callers, links, len(leases), ended - seconds, ended)

    def put(self, results: Sequence[Result], ended: float, seconds: float) -> None:
        """A call of the sink, with a link to each attempt whose result it stored."""
        callers: dict[TraceContext, None] = {}
        links = []
        for result in results[: self._most_links]:
            caller = self._caller(result.task)
            callers[caller] = None
            if caller.is_sampled and result.outcome.failure not in _NEVER_RAN:
                span = attempt_of(Lease(result.task, result.attempt), caller)
                links.append(Link(context_of(span), {"messaging.message.id": result.task.id}))
        callers.update(dict.fromkeys(self._caller(result.task) for result in results[self._most_links :]))
        self._batch("put", "send", callers, links, len(results), ended - seconds, ended)

    def attempt(self, lease: Lease, outcome: Outcome, ended: float) -> None:
        """One invocation, from its outcome."""
        if (outcome.failure not in _NEVER_RAN or outcome.environment) and self._caller(lease.task).is_sampled:
            self._attempt(lease, *_facts_of(outcome, ended), _PROCESS)

    def answered(self, lease: Lease, outcome: Outcome, ended: float) -> None:
        """One call of `htcgrid serve` whose caller has waited."""
        self._attempt(lease, *_facts_of(outcome, ended), _ANSWER)

    def cut_off(self, lease: Lease, error: str, began: float, ended: float) -> None:
        """One invocation that has no outcome: its lease or its plane was lost, or the agent ended."""
        self._attempt(lease, {}, error, began, ended, _PROCESS)

    def ran(self, began: float, ended: float) -> None:
        """The whole run."""
        self._make(f"run {self._name}", SpanKind.INTERNAL, self._run, None, {}, began, ended)

    def _attempt(
        self, lease: Lease, attributes: _Mutable, error: str, began: float, ended: float, role: tuple[SpanKind, str]
    ) -> None:
        kind, trigger = role
        task = lease.task
        caller = self._caller(task)
        if not caller.is_sampled or not self._has_room():
            return
        name = self._name
        attributes |= {"faas.trigger": trigger, "htcgrid.attempt": lease.attempt}
        if role is _PROCESS:
            name = f"process {name}"
            attributes |= {**self._messaging("process", "process"), "messaging.message.id": task.id}
        else:
            attributes["faas.invocation_id"] = task.id
        if session := task.attributes.get("session_id"):
            attributes["messaging.message.conversation_id"] = session
        if generation := task.attributes.get("generation"):
            attributes["htcgrid.generation"] = generation
        status = _UNSET
        if error:
            attributes["error.type"] = error
            status = Status(StatusCode.ERROR, error)
        links = [Link(context_of(caller))] if caller.has_span and caller != self._run else []
        span = attempt_of(lease, caller)
        self._make(name, kind, span, caller, attributes, began, ended, links, status=status)

    def _batch(
        self,
        name: str,
        kind: str,
        callers: Iterable[TraceContext],
        links: Sequence[Link],
        number: int,
        began: float,
        ended: float,
    ) -> None:
        """In the trace of its tasks where they have one in common, else in that of the run."""
        of_tasks = list(callers)
        parent = of_tasks[0] if len(of_tasks) == 1 else self._run
        span = TraceContext(parent.trace_id, f"{self._ids.generate_span_id():016x}", parent.is_sampled)
        attributes = {**self._messaging(name, kind), "messaging.batch.message_count": number}
        self._make(f"{name} {self._name}", SpanKind.CLIENT, span, parent, attributes, began, ended, links)

    def _caller(self, task: Task) -> TraceContext:
        return (caller_of(task.attributes) if task.attributes else None) or self._run

    def _messaging(self, name: str, kind: str) -> dict[str, str | int | float | bool]:
        return {
            "messaging.system": _SYSTEM,
            "messaging.destination.name": self._name,
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
        }

    def _make(
        self,
        name: str,
        kind: SpanKind,
        span: TraceContext,
        parent: TraceContext | None,
        attributes: Attributes,
        began: float,
        ended: float,
        links: Sequence[Link] = (),
        *,
        status: Status = _UNSET,
    ) -> None:
        if not span.is_sampled:
            return
        self._emit(
            ReadableSpan(
                name,
                context_of(span),
                context_of(parent) if parent is not None and parent.has_span else None,
                self._resource,
                attributes,
                links=BoundedList.from_seq(self._most_links, links) if links else (),
                kind=kind,
                status=status,
                start_time=int(began * 1e9),
                end_time=int(max(began, ended) * 1e9),
                instrumentation_scope=self._scope,
            )
        )
