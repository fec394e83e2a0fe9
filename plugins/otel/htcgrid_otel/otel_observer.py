"""The observer: notes when attempts begin, has their spans made as they end, and says which trace a session has."""

import os
import time
from collections.abc import Iterable, Sequence
from hashlib import sha256

from htcgrid.spi import (
    AgentStarted,
    Answered,
    Function,
    Lease,
    Lost,
    Observation,
    Observer,
    Plugin,
    Received,
    Rejected,
    Retried,
    Returned,
    Sent,
    Started,
    Stored,
    TraceContext,
)
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from htcgrid_otel.sending import SpanSender
from htcgrid_otel.spans import SpanMaker

_MOST_BEGUN = 200_000
"""For how many attempts at most it remembers when they began: the ends of the oldest were never told."""


class OtelObserver(Observer):
    """Spans of submits, receives, attempts and puts, by OTLP over HTTP. OpenTelemetry's own variables set it up."""

    class Config(Plugin.Config):
        """It has no keys: `OTEL_EXPORTER_OTLP_ENDPOINT` names the receiver."""

    makes_spans = True

    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._sender: SpanSender | None = None
        self._spans: SpanMaker | None = None

    def open(self) -> None:
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return
        try:
            self._begin()
        except ValueError as error:  # OpenTelemetry's own, of a value that it does not take
            said = str(error).removesuffix(".")
            raise Rejected(
                f"The observer `otel` cannot be set up by the variables OTEL_...: {said}. Correct the variable, or unset it."
            ) from None

    def _begin(self) -> None:
        resource = _resource(self.function)
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        self._sessions: dict[str, tuple[TraceContext, TraceContext | None]] = {}
        self._sent: dict[str, tuple[float, int]] = {}
        """Of each session that is being put into the queue: when that began, and how many tasks are there."""
        self._begun: dict[str, float] = {}
        self._opened, self._has_agent = time.time(), False
        ids = RandomIdGenerator()
        trace_id = ids.generate_trace_id()
        self.trace = TraceContext(f"{trace_id:032x}", f"{ids.generate_span_id():016x}", self._is_sampled(trace_id))
        self._sender = SpanSender()
        self._spans = SpanMaker(self.function, resource, self.trace, self._sender.add, self._sender.has_room)

    def close(self) -> None:
        sender, self._sender = self._sender, None
        spans, self._spans = self._spans, None
        self.trace = None
        if sender is None:
            return
        if spans is not None:
            for session in list(self._sent):
                self._send_ends(spans, session, time.time())
            if self._has_agent:
                spans.ran(self._opened, time.time())
        sender.close()

    def session_trace(self, session: str) -> TraceContext | None:
        """The same for each submit of a session; in the trace of the program's own span where it has begun one."""
        if self._spans is None:
            return None
        digest = sha256(f"{self.function.function_name}\0{session}".encode("utf-8", "surrogatepass")).hexdigest()
        current = trace.get_current_span().get_span_context()
        parent = None
        if current.is_valid:
            parent = TraceContext(f"{current.trace_id:032x}", f"{current.span_id:016x}", current.trace_flags.sampled)
        trace_id = parent.trace_id if parent else digest[:32]
        is_sampled = parent.is_sampled if parent else self._is_sampled(int(trace_id, 16))
        found = TraceContext(trace_id, digest[32:48], is_sampled)
        self._sessions[session] = found, parent
        return found

    def observe(self, observations: Sequence[Observation]) -> None:
        spans = self._spans
        if spans is None:
            return
        for each in observations:
            match each:
                case Stored():
                    for result in each.results:
                        self._begun.pop(result.task.id, None)
                        spans.attempt(Lease(result.task, result.attempt), result.outcome, each.time)
                    spans.put(each.results, each.time, each.seconds)
                case Started():
                    self._note(each.leases, each.time)
                case Received():
                    spans.received(each.leases, each.time, each.seconds)
                case Sent():
                    self._send(spans, each)
                case Answered():
                    spans.answered(Lease(each.result.task, each.result.attempt), each.result.outcome, each.time)
                case AgentStarted():
                    self._has_agent = True
                case _:
                    self._other_end(spans, each)

    def _other_end(self, spans: SpanMaker, each: Observation) -> None:
        """Of an attempt that is not the last one."""
        match each:
            case Retried(outcome=outcome) if outcome is not None:
                for lease in each.leases:
                    self._begun.pop(lease.task.id, None)
                    spans.attempt(lease, outcome, each.time)
            case Retried():
                self._cut_off(spans, each.leases, "plane_lost", each.time)
            case Lost():
                self._cut_off(spans, each.leases, "lease_lost", each.time)
            case Returned():
                self._cut_off(spans, each.leases, "returned", each.time)

    def _note(self, leases: Iterable[Lease], began: float) -> None:
        begun = self._begun
        for lease in leases:
            begun[lease.task.id] = began
        while len(begun) > _MOST_BEGUN:
            del begun[next(iter(begun))]

    def _cut_off(self, spans: SpanMaker, leases: Iterable[Lease], error: str, ended: float) -> None:
        for lease in leases:
            if (began := self._begun.pop(lease.task.id, None)) is not None:
                spans.cut_off(lease, error, began, ended)

    def _send(self, spans: SpanMaker, sent: Sent) -> None:
        began, tasks = self._sent.get(sent.session, (sent.time - sent.seconds, 0))
        self._sent[sent.session] = began, tasks + len(sent.tasks)
        if sent.is_last:
            self._send_ends(spans, sent.session, sent.time)

    def _send_ends(self, spans: SpanMaker, session: str, ended: float) -> None:
        began, tasks = self._sent.pop(session)
        known = self._sessions.pop(session, None)
        span, parent = known or (self.session_trace(session), None)
        self._sessions.pop(session, None)
        if span is not None and tasks:
            spans.sent(span, parent, session, tasks, began, ended)

    def _is_sampled(self, trace_id: int) -> bool:
        return self._sampler.should_sample(None, trace_id, "htcgrid").decision is Decision.RECORD_AND_SAMPLE


def _resource(function: Function) -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES; the function's name where they name no service."""
    found = Resource.create({"faas.name": function.function_name, "faas.max_memory": function.memory << 20})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: function.function_name}))
    return found
