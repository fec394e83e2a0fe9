"""Every metric, with its kind, unit, labels and meaning. The documentation and the dashboards are checked against it."""

from dataclasses import dataclass

SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0),
)
MEBIBYTES = (16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 10240, 16384, 32768, 65536)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. A counter's `name` is without the ending `_total`."""

    name: str
    kind: str
    unit: str
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(f"htcgrid_{name}", "counter", unit, text, labels)


def _gauge(name: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(f"htcgrid_{name}", "gauge", unit, text, labels)


def _histogram(name: str, unit: str, text: str, bounds: tuple[float, ...] = SECONDS) -> Metric:
    return Metric(f"htcgrid_{name}", "histogram", unit, text, (), bounds)


TASKS = _counter(
    "tasks", "tasks", "Final results that are stored; the label is `succeeded` or the kind of failure.", "outcome"
)
ALREADY_STORED = _counter(
    "tasks_already_stored", "tasks", "Tasks that had a result from an earlier run, and did not run."
)
ATTEMPTS = _counter(
    "attempts",
    "attempts",
    "Attempts that have ended, retried ones included; `unavailable` means that the plane became unavailable meanwhile.",
    "outcome",
)
RETRIES = _counter("retries", "attempts", "Attempts that failed and are followed by another.", "outcome")
RECEIVED = _counter("leases_received", "leases", "Leases that the source has handed out to this agent.")
ACKED = _counter("leases_acked", "leases", "Tasks that were acknowledged.")
RETURNED = _counter("leases_returned", "leases", "Leases that were returned to the source, those of retries included.")
EXTENDED = _counter("leases_extended", "leases", "Extensions of leases.")
LOST = _counter("leases_lost", "leases", "Leases that were lost to another agent or by a cancel.")
DEAD = _counter("dead_letters", "tasks", "Tasks that became dead letters.")
CALLS = _counter("calls", "calls", "Calls of `htcgrid serve` whose callers waited; they are not tasks.", "outcome")
CALL = _histogram("call_seconds", "seconds", "The time of these calls, their wait for an environment included.")
DURATION = _histogram("task_duration_seconds", "seconds", "The handler's own time in final attempts.")
WAIT = _histogram("task_wait_seconds", "seconds", "The time between a task's receipt by the agent and its start.")
BILLED = _histogram("task_billed_seconds", "seconds", "The billed duration of final attempts.")
MEMORY = _histogram(
    "task_memory_bytes",
    "bytes",
    "The most memory that the environment had used, at each final attempt.",
    tuple(float(each << 20) for each in MEBIBYTES),
)
PUT = _histogram("sink_put_seconds", "seconds", "The time of each call that stored results.")
RECEIVE = _histogram(
    "source_receive_seconds", "seconds", "The time of each call that received leases, its wait included."
)
BUSY = _counter(
    "busy_seconds",
    "seconds",
    "The handlers' time in all attempts. Its rate divided by `htcgrid_slots` is the busy share.",
)
SLOTS = _gauge("slots", "tasks", "How many tasks can run at once.")
AGENTS = _gauge("agents", "agents", "Agents that run in this process.")
ENVIRONMENTS = _gauge(
    "environments", "environments", "Execution environments that are ready: `busy` or `idle`.", "state"
)
STARTED = _counter("environments_started", "environments", "Execution environments that were started.")
ENDED = _counter("environments_ended", "environments", "Execution environments that have ended.")
HELD = _gauge("leases_held", "leases", "Leases that the agent holds now, in any state.")
HELD_BYTES = _gauge("held_bytes", "bytes", "Events and answers that the agent holds now.")
QUEUE = _gauge(
    "queue_tasks",
    "tasks",
    "Tasks in the source by state, where the source knows; asked at most every `queue_seconds`.",
    "state",
)
OLDEST = _gauge(
    "queue_oldest_seconds", "seconds", "The age of the oldest task that waits in the source, where the source knows."
)
UNAVAILABLE = _counter(
    "plugin_unavailable", "calls", "Calls that found the `source`, the `plane` or the `sink` unavailable.", "part"
)
REQUESTS = _counter("service_requests", "requests", "Calls of services that cost money.", "request")
COST = _counter("cost_dollars", "dollars", "The list price of the services that were used, where it is known.")
DROPPED = _counter(
    "observations_dropped", "tasks", "Tasks whose observations these metrics lack, since they came too fast."
)
INFO = _gauge("agent_info", "", "Always 1; the labels say what runs here.", "function", "version")

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
