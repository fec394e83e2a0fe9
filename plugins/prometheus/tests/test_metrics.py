"""The metrics say what has happened, no more and no less."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from htcgrid.spi import (
    AgentStarted,
    Answered,
    EnvironmentEnded,
    EnvironmentStarted,
    FailureKind,
    Function,
    Lease,
    Outcome,
    QueueStats,
    Received,
    Rejected,
    Result,
    Retried,
    Returned,
    Started,
    States,
    Stored,
    Task,
    Unavailable,
)
from htcgrid_contracts.observer_rules import KitFigures, run_of_an_agent
from prometheus_client.parser import text_string_to_metric_families

from htcgrid_prometheus import catalogue
from htcgrid_prometheus.prometheus_observer import PrometheusObserver


@pytest.fixture
def observer() -> Iterator[PrometheusObserver]:
    with made() as opened:
        yield opened


def made(**options: object) -> PrometheusObserver:
    config = PrometheusObserver.Config.model_validate({"address": "127.0.0.1:0", **options})
    return PrometheusObserver(config, Function(handler="pricing.handler"))


def scraped(observer: PrometheusObserver) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{observer.port}/metrics") as answer:
        text: str = answer.read().decode()
    return text


def values(observer: PrometheusObserver) -> dict[str, float]:
    """Each sample by its name and its labels' values."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(scraped(observer))
        for sample in family.samples
    }


def leases(number: int) -> list[Lease]:
    return [Lease(Task(f"t-{each}", b"1")) for each in range(number)]


def outcome(lease: Lease, failure: FailureKind | None = None, seconds: float = 0.002) -> Outcome:
    return Outcome(lease.task.id, b"1", failure, 1.0, seconds * 1000, 3, 100)


def test_tasks_attempts_and_retries_are_counted_by_their_outcome(observer: PrometheusObserver) -> None:
    some = leases(5)
    results = [Result(lease.task, outcome(lease)) for lease in some[:3]]
    results.append(Result(some[3].task, outcome(some[3], FailureKind.TIMEOUT)))
    results.append(Result(some[4].task, outcome(some[4], FailureKind.INVALID_EVENT)))
    retried = [Retried(1.0, [some[3]], outcome(some[3], FailureKind.EXIT), 0.2), Retried(1.0, [some[3]], None, 0.0)]
    observer.observe([*retried, Stored(2.0, results, 0.01)])
    found = values(observer)
    assert found["htcgrid_tasks_total succeeded"] == 3
    assert found["htcgrid_tasks_total timeout"] == found["htcgrid_tasks_total invalid_event"] == 1
    assert found["htcgrid_attempts_total invalid_event"] == 0, "it never ran"
    assert found["htcgrid_attempts_total exit"] == found["htcgrid_attempts_total unavailable"] == 1
    assert found["htcgrid_retries_total exit"] == found["htcgrid_retries_total unavailable"] == 1
    assert found["htcgrid_task_duration_seconds_count"] == 4
    assert found["htcgrid_busy_seconds_total"] == pytest.approx(5 * 0.002)


def test_histograms_have_base_units_and_their_bounds_belong_to_the_bucket_below(observer: PrometheusObserver) -> None:
    [lease] = leases(1)
    observer.observe([Stored(2.0, [Result(lease.task, outcome(lease, seconds=0.0025))], 0.01)])
    found = values(observer)
    assert found["htcgrid_task_duration_seconds_bucket 0.001"] == 0
    assert (
        found["htcgrid_task_duration_seconds_bucket 0.0025"] == found["htcgrid_task_duration_seconds_bucket +Inf"] == 1
    )
    assert found["htcgrid_task_billed_seconds_sum"] == pytest.approx(0.003)
    assert found["htcgrid_task_memory_bytes_sum"] == 100 * 1024 * 1024
    assert found["htcgrid_task_memory_bytes_bucket 134217728.0"] == 1


def test_the_wait_is_from_receipt_to_start_and_none_is_kept_of_what_goes_back(observer: PrometheusObserver) -> None:
    some = leases(3)
    observer.observe([Received(10.0, some, 0.1), Returned(10.1, some[2:], 0.0), Started(10.5, some[:2], 0)])
    found = values(observer)
    assert found["htcgrid_task_wait_seconds_count"] == 2
    assert found["htcgrid_task_wait_seconds_sum"] == pytest.approx(1.0)
    assert observer._tally._received == {}


def test_environments_are_those_that_started_and_have_not_ended(observer: PrometheusObserver) -> None:
    told = [EnvironmentStarted(1.0, name) for name in ("a", "b", "c")]
    observer.observe([*told, EnvironmentEnded(2.0, "a"), AgentStarted(1.0, 4, KitFigures())])
    found = values(observer)
    assert (found["htcgrid_environments busy"], found["htcgrid_environments idle"]) == (1, 1)
    assert (found["htcgrid_environments_started_total"], found["htcgrid_environments_ended_total"]) == (3, 1)


def test_agents_are_asked_for_what_they_hold_the_queue_and_the_cost(observer: PrometheusObserver) -> None:
    observer.observe([AgentStarted(1.0, 4, KitFigures())])
    found = values(observer)
    assert found["htcgrid_slots"] == 4
    assert (found["htcgrid_leases_held"], found["htcgrid_held_bytes"]) == (3, 300)
    assert found["htcgrid_queue_tasks waiting"] == 5
    assert "htcgrid_queue_tasks delayed" not in found, "the source does not know"
    assert found["htcgrid_queue_oldest_seconds"] == 1.5
    assert found["htcgrid_cost_dollars_total"] == 0.25
    assert found["htcgrid_service_requests_total sqs.ReceiveMessage"] == 3


def test_the_cost_of_an_agent_that_has_ended_stays(observer: PrometheusObserver) -> None:
    observer.observe([*run_of_an_agent(), *run_of_an_agent()])
    found = values(observer)
    assert found["htcgrid_agents"] == 0
    assert found["htcgrid_cost_dollars_total"] == 0.5


def test_calls_that_are_waited_for_are_no_tasks(observer: PrometheusObserver) -> None:
    [lease] = leases(1)
    observer.observe([Answered(1.0, Result(lease.task, outcome(lease)), 0.3)])
    found = values(observer)
    assert (found["htcgrid_calls_total succeeded"], found["htcgrid_tasks_total succeeded"]) == (1, 0)
    assert found["htcgrid_call_seconds_sum"] == 0.3


class Queue(KitFigures):
    """Counts how often its queue is asked, which waits until `free`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.free = threading.Event()
        self._error = error

    def queue(self) -> QueueStats:
        self.asked += 1
        self.free.wait(30)
        if self._error is not None:
            raise self._error
        return QueueStats(States(waiting=7))


def test_the_queue_is_asked_seldom_however_often_it_is_scraped(observer: PrometheusObserver) -> None:
    queue = Queue()
    queue.free.set()
    observer.observe([AgentStarted(1.0, 1, queue)])
    assert {values(observer)["htcgrid_queue_tasks waiting"] for _ in range(5)} == {7}
    assert queue.asked == 1


def test_a_queue_that_does_not_answer_holds_up_no_scrape_for_long(observer: PrometheusObserver) -> None:
    queue = Queue()
    observer.observe([AgentStarted(1.0, 1, queue)])
    assert "htcgrid_queue_tasks waiting" not in values(observer)
    assert values(observer)["htcgrid_agents"] == 1
    assert queue.asked == 1
    queue.free.set()


def test_a_queue_that_is_away_takes_no_other_metric_along(observer: PrometheusObserver) -> None:
    queue = Queue(Unavailable("the queue is away"))
    queue.free.set()
    observer.observe([AgentStarted(1.0, 1, queue)])
    found = values(observer)
    assert "htcgrid_queue_tasks waiting" not in found
    assert found["htcgrid_agents"] == 1


def test_the_queue_is_asked_again_after_a_time_without_room_for_a_thread(
    observer: PrometheusObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    queue = Queue()
    queue.free.set()
    observer.observe([AgentStarted(1.0, 1, queue)])
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", full)
        with pytest.raises(RuntimeError, match="can't start"):
            list(observer.families())
    assert values(observer)["htcgrid_queue_tasks waiting"] == 7


def test_what_was_dropped_is_shown(observer: PrometheusObserver) -> None:
    observer.dropped = 12
    assert values(observer)["htcgrid_observations_dropped_total"] == 12


def test_the_page_has_every_metric_of_the_catalogue_and_no_other(observer: PrometheusObserver) -> None:
    observer.observe([each for each in run_of_an_agent() if type(each).__name__ != "AgentEnded"])
    shown = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type, family.documentation)
        for family in text_string_to_metric_families(scraped(observer))
        if family.name.startswith("htcgrid_")
    }
    assert shown == {(metric.shown, metric.kind, metric.text) for metric in catalogue.METRICS}


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed: apt-get install prometheus")
def test_promtool_has_no_complaint(observer: PrometheusObserver) -> None:
    observer.observe([each for each in run_of_an_agent() if type(each).__name__ != "AgentEnded"])
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scraped(observer), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Rejected, match=rf"{address}.*Choose another port"), made(address=address):
            pytest.fail("it was opened")


@pytest.mark.parametrize(
    "address", ["9464", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", ":9464", "agent..local:9464"]
)
def test_an_address_without_a_port_or_with_no_name_of_a_host_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="write an address and a port"):
        made(address=address)


@pytest.mark.parametrize(
    ("address", "port", "notes"),
    [("127.0.0.1:9464", None, 0), ("[::1]:9464", None, 0), ("localhost:9464", None, 0), ("0.0.0.0:9464", 9464, 1)],
)
def test_other_machines_reach_it_only_where_the_config_says_so(address: str, port: int | None, notes: int) -> None:
    observer = made(address=address)
    assert observer.scrape_port == port
    assert len(list(observer.advise(1))) == notes


def test_the_last_figures_are_in_the_textfile(tmp_path: Path) -> None:
    with made(textfile=tmp_path / "htcgrid.prom") as observer:
        observer.observe(run_of_an_agent())
    assert 'htcgrid_tasks_total{outcome="succeeded"} 1.0' in (tmp_path / "htcgrid.prom").read_text()


def test_a_client_that_asks_nothing_holds_up_neither_scrapes_nor_the_end() -> None:
    observer = made()
    with observer, socket.create_connection(("127.0.0.1", observer.port)):
        assert "htcgrid_agents" in scraped(observer)


def test_a_task_costs_less_than_a_quarter_of_what_its_values_cost_to_make(observer: PrometheusObserver) -> None:
    tasks, batch = 40_000, 1000
    made_in = observed_in = float("inf")
    for turn in range(3):
        began = time.process_time()
        told = []
        for first in range(0, tasks, batch):
            some = [Lease(Task(f"{turn}-{first + each}", b"1")) for each in range(batch)]
            results = [Result(lease.task, outcome(lease)) for lease in some]
            told.append([Received(1.0, some, 0.1), Started(1.1, some, 0), Stored(2.0, results, 0.01)])
        began_to_observe = time.process_time()
        for each in told:
            observer.observe(each)
        made_in = min(made_in, began_to_observe - began)
        observed_in = min(observed_in, time.process_time() - began_to_observe)
    assert observed_in < made_in / 4
