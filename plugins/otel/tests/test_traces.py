"""One trace from submit through every attempt, on whichever agent, to the stored result; the handler's spans inside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from htcgrid.client import Grid
from htcgrid.spi import Function, Lease, Outcome, Rejected, Result, Sent, Stored, Task, TraceContext
from htcgrid.spi.tracing import attempt_of, caller_of
from opentelemetry.sdk.trace import TracerProvider
from otlp_receiver import Receiver, SeenSpan
from ports import free_port
from program_end import output_at_end

from htcgrid_otel.otel_observer import OtelObserver

HTCGRID = Path(sys.executable).with_name("htcgrid")
HANDLER = """
import os
import pathlib
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("work")

def handler(event, context):
    custom = context.client_context.custom
    if event == "slow" and custom["attempt"] == 1:
        pathlib.Path(os.environ["BEGUN"]).touch()
        time.sleep(60)
    if event == "fails once" and custom["attempt"] == 1:
        raise ValueError("secret-4711")
    parent = TraceContextTextMapPropagator().extract(custom)
    with tracer.start_as_current_span("price", parent):
        return os.environ["_X_AMZN_TRACE_ID"]
"""


@pytest.fixture
def grid(tmp_path: Path, received: Receiver) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "work.py").write_text(HANDLER)
    (tmp_path / "htcgrid.toml").write_text(f"""
[function]
name = "pricing"
handler = "work.handler"
code = "code"
timeout = 60
environment = {{ OTEL_EXPORTER_OTLP_ENDPOINT = "{received.url}", BEGUN = "{tmp_path / "begun"}" }}
[planes.local]
plugin = "process"
workers = 1
[source]
plugin = "sqlite"
path = "grid.db"
lease_seconds = 1
drain = true
[sink]
plugin = "sqlite"
path = "grid.db"
[agent]
grace = 0.1
retry_delay = 0.05
attempts = {{ handler_error = 2 }}
[observers.otel]
""")
    return tmp_path


def command(grid: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([HTCGRID, *words], cwd=grid, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def done(process: subprocess.Popen[str]) -> str:
    out, error = output_at_end(process)
    assert process.returncode == 0, error
    return out.strip()


def submitted(grid: Path, *events: str, session: str = "s-1") -> None:
    (grid / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    done(command(grid, "submit", "events.jsonl", "--session", session))


def attempts_of(received: Receiver, task_id: str) -> list[SeenSpan]:
    found = [span for span in received.named("process pricing") if span.attributes["messaging.message.id"] == task_id]
    return sorted(found, key=lambda span: span.attributes["htcgrid.attempt"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_trace_goes_from_submit_through_two_agents_to_the_stored_result(
    grid: Path, received: Receiver, how: signal.Signals
) -> None:
    submitted(grid, "slow")
    first = command(grid, "run", "--quiet")
    received.wait((grid / "begun").exists)
    received.wait(lambda: received.named("receive pricing"))
    first.send_signal(how)
    output_at_end(first, seconds=30)
    done(command(grid, "run", "--quiet"))
    answers = done(command(grid, "results", "--session", "s-1"))

    [send] = received.named("send pricing")
    attempts = attempts_of(received, "s-1_1")
    [put] = received.named("put pricing")
    receives = received.named("receive pricing")
    [inside] = received.named("price")
    assert {span.trace for span in [send, *attempts, put, *receives, inside]} == {send.trace}
    assert send.parent == ""
    assert (send.kind, attempts[0].kind, put.kind, receives[0].kind) == ("PRODUCER", "CONSUMER", "CLIENT", "CLIENT")
    if how is signal.SIGTERM:
        assert [span.attributes["htcgrid.attempt"] for span in attempts] == [1, 2]
        assert [span.attributes.get("error.type") for span in attempts] == ["returned", None]
        assert [span.is_error for span in attempts] == [True, False]
    else:  # nobody is left who could tell of the attempt of an agent that was killed
        assert [span.attributes["htcgrid.attempt"] for span in attempts] == [2]
    assert {(span.parent, *span.links) for span in attempts} == {(send.id, send.id)}
    assert [span.links for span in receives] == [[send.id]] * 2
    assert put.links == [attempts[-1].id]
    assert inside.parent == attempts[-1].id
    assert f"Root=1-{send.trace[:8]}-{send.trace[8:]};Parent={attempts[-1].id};Sampled=1" in answers
    assert send.began <= attempts[-1].began <= inside.began <= inside.ended <= attempts[-1].ended <= put.ended


def test_a_failed_attempt_is_an_error_and_says_what_it_cost(grid: Path, received: Receiver) -> None:
    submitted(grid, "fails once", "good")
    done(command(grid, "run", "--quiet"))
    failed, again = attempts_of(received, "s-1_1")
    assert failed.is_error
    assert failed.attributes["error.type"] == "handler_error"
    assert not again.is_error
    assert failed.attributes["faas.coldstart"]
    assert failed.attributes["htcgrid.billed_ms"] > 0
    assert failed.attributes["htcgrid.max_memory_mb"] > 0
    assert failed.attributes["messaging.message.conversation_id"] == "s-1"
    assert failed.attributes["faas.instance"] == again.attributes["faas.instance"]
    assert failed.resource["service.name"] == failed.resource["faas.name"] == "pricing"
    assert "secret-4711" not in str(received.spans)
    [run] = received.named("run pricing")
    assert run.trace != failed.trace
    [send] = received.named("send pricing")
    assert send.attributes["messaging.batch.message_count"] == 2


def test_tasks_without_a_submit_belong_to_the_run(grid: Path, received: Receiver) -> None:
    (grid / "tasks.jsonl").write_text('"a"\n"b"\n')
    options = ("--source", "jsonl", "--sink", "jsonl", "--set", "source.path=tasks.jsonl", "--set", "sink.path=r.jsonl")
    done(command(grid, "run", "--quiet", *options))
    [run] = received.named("run pricing")
    attempts = received.named("process pricing")
    assert [(span.trace, span.parent, span.links) for span in attempts] == [(run.trace, run.id, [])] * 2
    assert {span.parent for span in received.named("price")} == {span.id for span in attempts}
    [put, *_] = received.named("put pricing")
    assert (put.trace, put.parent) == (run.trace, run.id)


def test_a_submit_that_is_given_again_gives_the_same_trace(grid: Path, received: Receiver) -> None:
    submitted(grid, "a")
    submitted(grid, "a", "b")
    first, again = received.named("send pricing")
    assert (first.trace, first.id) == (again.trace, again.id)


def test_without_the_observer_a_queue_has_what_it_had(grid: Path) -> None:
    text = (grid / "htcgrid.toml").read_text()
    (grid / "htcgrid.toml").write_text(text.replace("[observers.otel]", ""))
    submitted(grid, "a")
    assert b"traceparent" not in (grid / "grid.db").read_bytes()


def test_map_belongs_to_the_span_that_the_program_is_in(
    grid: Path, received: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(grid)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    settings = {"source": {"plugin": "jsonl", "path": "none.jsonl"}}
    with Grid.open("htcgrid.toml", settings) as opened, tracer.start_as_current_span("report") as outer:
        [answer] = opened.map(["a"])
    mine = outer.get_span_context()
    [send], [attempt] = received.named("send pricing"), received.named("process pricing")
    assert send.trace == attempt.trace == f"{mine.trace_id:032x}"
    assert send.parent == f"{mine.span_id:016x}"
    assert attempt.parent == send.id
    assert f"Parent={attempt.id}" in answer


def test_a_call_of_serve_is_inside_its_callers_trace(grid: Path, received: Receiver) -> None:
    port = free_port()
    process = command(grid, "serve", "--port", str(port))
    assert process.stderr is not None
    while "Serving" not in process.stderr.readline():
        assert process.poll() is None
    caller = TraceContext("5" * 32, "6" * 16)
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/pricing/invocations"
    request = urllib.request.Request(url, b'"a"', {"traceparent": caller.traceparent})
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    process.terminate()
    output_at_end(process, seconds=30)
    [span], [inside] = received.named("pricing"), received.named("price")
    assert (span.trace, span.parent, span.links) == (caller.trace_id, caller.span_id, [caller.span_id])
    assert (span.kind, span.attributes["faas.trigger"]) == ("SERVER", "http")
    assert inside.parent == span.id
    assert f"Parent={span.id}" in text


def test_what_is_not_sampled_makes_no_span(grid: Path, received: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    submitted(grid, "a")
    done(command(grid, "run", "--quiet"))
    assert received.spans == []
    assert ";Sampled=0" in done(command(grid, "results", "--session", "s-1"))


def test_a_receiver_that_is_away_costs_the_run_nothing_but_one_warning(
    grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    text = (grid / "htcgrid.toml").read_text()
    (grid / "htcgrid.toml").write_text(text.replace('work.handler"', 'plain.handler"'))
    (grid / "code" / "plain.py").write_text("def handler(event, context):\n    return event\n")
    submitted(grid, *["a"] * 50)
    process = command(grid, "run", "--quiet")
    _, error = output_at_end(process)
    assert process.returncode == 0
    assert error.count("spans were not sent") == 1
    assert "still busy" not in error
    assert "Transient" not in error.replace("The first error: Transient", "")
    answers = done(command(grid, "results", "--session", "s-1"))
    assert len(answers.splitlines()) == 50


@pytest.fixture
def observer(received: Receiver) -> Iterator[OtelObserver]:
    with OtelObserver(OtelObserver.Config(), Function(handler="pricing.handler")) as opened:
        yield opened


def test_a_batch_links_to_each_caller_and_is_a_child_of_none_of_several(
    observer: OtelObserver, received: Receiver
) -> None:
    callers = [TraceContext(str(number) * 32, str(number) * 16) for number in (1, 2)]
    results = [
        Result(
            Task(f"t-{number}", b"1", {"traceparent": caller.traceparent}), Outcome(f"t-{number}", b"2", started=1.0)
        )
        for number, caller in enumerate(callers)
    ]
    observer.observe([Stored(time.time(), results, 0.1)])
    received.wait(lambda: [span for span in received.spans if span.name.startswith("put")])
    [put] = [span for span in received.spans if span.name.startswith("put")]
    run = observer.trace
    assert run is not None
    assert (put.trace, put.parent) == (run.trace_id, run.span_id)
    expected = [attempt_of(Lease(result.task), caller).span_id for result, caller in zip(results, callers, strict=True)]
    assert put.links == expected


def test_the_links_of_a_batch_are_bounded_as_opentelemetry_says(observer: OtelObserver, received: Receiver) -> None:
    results = [Result(Task(f"t-{number}", b"1"), Outcome(f"t-{number}", b"2")) for number in range(300)]
    observer.observe([Stored(time.time(), results, 0.1)])
    received.wait(lambda: [span for span in received.spans if span.name.startswith("put")])
    [put] = [span for span in received.spans if span.name.startswith("put")]
    assert len(put.links) == 128
    assert put.attributes["messaging.batch.message_count"] == 300


def test_a_callers_trace_is_read_as_handlers_are_given_it() -> None:
    aws = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"
    w3c = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
    expected = TraceContext("5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8")
    assert caller_of({"traceparent": w3c}) == expected
    for header in (aws, f"Self=1-67891234-12456789abcdef0123456789;{aws}"):  # the second one by a load balancer
        found = caller_of({"AWSTraceHeader": header, "traceparent": w3c})
        assert found is not None
        assert (found.trace_id, found.span_id, found.is_sampled) == (expected.trace_id, expected.span_id, False)
    assert caller_of({"traceparent": "00-00-00-00"}) is caller_of({}) is None


def test_fewer_spans_may_wait_than_opentelemetry_sends_at_once(
    received: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    with OtelObserver(OtelObserver.Config(), Function(handler="work.handler")) as observer:
        observer.observe([Stored(2.0, [Result(Task("t", b"1"), Outcome("t", b"1"))], 0.1)])
    assert {span.name for span in received.spans} == {"process work", "put work"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "many"),
    ],
)
def test_a_variable_that_opentelemetry_does_not_take_is_refused_in_words(
    received: Receiver, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    observer = OtelObserver(OtelObserver.Config(), Function(handler="work.handler"))
    with pytest.raises(Rejected, match=r"observer `otel` cannot be set up by the variables OTEL_"):
        observer.open()
    observer.close()


def test_the_sdk_can_be_disabled(received: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with OtelObserver(OtelObserver.Config(), Function(handler="pricing.handler")) as opened:
        assert opened.trace is None
        assert opened.session_trace("s") is None
        opened.observe([Sent(1.0, "s", [], 0.0, is_last=True)])
    assert received.spans == []
