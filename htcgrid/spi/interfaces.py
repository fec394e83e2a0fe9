"""The plugin interface: three abstract classes, and a fourth in `observer.py` beside this file.

A compute plane subclasses `Invoker`, a place that tasks come from `TaskSource`, a place that results go to `ResultSink`.
Four methods are abstract; everything else has a default. This file is the specification; `values.py` and `errors.py` beside
it have what crosses it. `htcgrid verify NAME` runs the conformance kit over a plugin.

- **Ordinary blocking calls.** The agent owns every thread. It may call any method from several threads at once, except
  `open` and `close`, which it calls once each, first and last.
- **One attempt.** A method tries once and never sleeps: the agent repeats calls, with jitter. Switch off an SDK's own.
- **Two errors.** `Unavailable` says "not now, try again"; `Rejected` says "never". Anything else is reported as a bug.
- **Payloads are bytes.** They hold one JSON document. They are passed on as they are, never parsed.
- **Limits are attributes.** `max_batch`, `max_concurrency`, `lease_seconds`: the agent keeps to them. The plugin sees to a
  service's own, as of a delay, a page, a request. A call with nothing in it does nothing.
- **Secrets stay out** of messages, results and `repr`. A key of a `Config` that holds one is a pydantic `SecretStr`, which
  nothing prints and `htcgrid deploy` refuses to send.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence

from htcgrid.spi.credentials import CredentialSource
from htcgrid.spi.errors import Rejected
from htcgrid.spi.handler_output import HandlerOutput
from htcgrid.spi.observer import Observers
from htcgrid.spi.plugin import Plugin
from htcgrid.spi.stats import DeadTask, QueueStats, StoreStats
from htcgrid.spi.values import Capability, Lease, Outcome, Result, Task, Unstarted


class TaskSource(Plugin):
    """A place that tasks come from: a file, a queue, a stream."""

    max_batch: int = 1
    """The most leases that one `receive`, `ack`, `nack` or `extend` takes. The agent cuts to it."""

    lease_seconds: float | None = None
    """How long a lease lasts without `extend`; None where it lasts as long as this process."""

    most_leased: int | None = None
    """The most tasks that are leased at a time, by all agents together; None without such a limit. `check` reads it."""

    @abstractmethod
    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        """Lease up to `max_tasks` tasks, `max_batch` at most. Returns as soon as it has any, also one whose delay or lease ends
        while it waits, or that another agent returns or puts; and with none after about `wait` seconds. A task that is leased
        is not handed out again until its lease expires or is returned, and then with `attempt` one higher."""

    @abstractmethod
    def ack(self, leases: Sequence[Lease]) -> None:
        """Done for good: never handed out again. A late or second ack is quiet."""

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Return: handed out again after about `delay` seconds, rounded up if at all, counted as one more attempt. The default does
        nothing: right where leases expire soon. A late or second nack, or one of a lost lease, is quiet."""

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        """Keep these leases for `seconds` from now; returns the ids of tasks that are no longer ours. Those were cancelled, or
        their lease was lost to another receiver, who stores them: the agent stops them and stores nothing. The default, for
        sources whose leases never expire: none."""
        return ()

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        """In place of `ack`, as quiet, after the last try of what ended its environment; keeps the reason, or a part. Default: ack."""
        self.ack(leases)

    def dead_letters(self) -> Iterable[DeadTask]:
        """The dead letters, a few at a time in memory; no other call waits for whoever reads, who may leave it. None by default."""
        return ()

    redrives: bool = False
    """Whether failed tasks can be put in again, by `redrive`."""

    def redrive(self, tasks: Sequence[Task]) -> None:
        """Accept these failed tasks again, durably. Each has a generation above that of its failed run. A task of that id and
        an earlier generation that is still there, or is a dead letter, is replaced. One of the same generation and content
        stays as it is, so that a redrive that was cut off is completed by giving it again."""
        raise Rejected(f"{type(self).__name__} takes no failed tasks again.")

    def stats(self, *, brief: bool = False) -> QueueStats:
        """How much is there now, or an estimate. The default knows nothing. `brief` asks for `states` alone, at little cost; else
        all of the queue may be read, but none of the payloads."""
        return QueueStats()

    def is_pending(self, session_id: str) -> bool | None:
        """Whether a task of this session is waiting, delayed or leased; None, the default, where it cannot tell."""
        return None

    @property
    def exhausted(self) -> bool:
        """Whether nothing more will come. A source that never ends says False, the default. A finite one says True when all it
        had is acked or leased, and nothing returned waits to be handed out again."""
        return False


class Invoker(Plugin):
    """A compute plane: where handlers run."""

    max_batch: int = 1
    """The most tasks one `invoke` takes. Above 1 only where an environment can be fed ahead cheaply."""

    max_concurrency: int = 1
    """How many `invoke` calls can do work at a time, 1 at least. The agent runs as many threads, which come and go with it: it
    looks after `open` and ten times a second. Where it falls, calls under way run to their end."""

    capabilities: frozenset[Capability] = frozenset()
    """What the plane does. Read after `open`, which may find that the service does less."""

    standing: tuple[int, int] | None = None
    """The most agents of a standing grid, and how many environments each has, where `deploy` makes one. `check` reads it."""

    credentials: CredentialSource = CredentialSource()
    """What hands out the credentials that handlers find in their environment; set before `open`."""

    observers: Observers = Observers()
    """Who is told when an execution environment starts and ends; set before `open`."""

    output: HandlerOutput = HandlerOutput()
    """What takes all that handlers print, where the plane has `Capability.OUTPUT`; set before `open`."""

    @abstractmethod
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        """Run the handler for each task, one after the other in one environment, and report each once. Outcomes come as they
        are ready, in any order. `timeout` is in seconds, for each task by itself. The handler's context is AWS Lambda's: a
        request id for each invocation, the function's name and memory, the time that is left. Failures of the handler are
        outcomes. A task that was not begun when another of its batch takes long, or ends the environment, is reported as
        `Unstarted` at once, so that another environment can have it. At `Unavailable` tasks already reported stay reported, and
        the rest are tried again. `Rejected` stops the agent: it says never. `Throttled` has the agent make fewer calls."""

    def cancel(self, task_ids: Collection[str]) -> None:
        """Stop those of these tasks that run here now, and none that comes later; each is reported as `cancelled`. Any thread
        may call it. The default: none."""


class ResultSink(Plugin):
    """A place that results go to."""

    max_batch: int = 1
    """The most results that one `put` takes."""

    keeps_order: bool = False
    """Whether it has a `scan`."""

    @abstractmethod
    def put(self, results: Sequence[Result]) -> None:
        """Store these results. They are durable when it returns: the tasks are acked right after. A result whose task id is
        there already leaves one result. `Rejected` with `task_ids` names those that can never be stored; the others are. After
        `Unavailable` the same results are put again."""

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        """Which of these tasks have a result already: they are acked without running. Must be cheap. The default: none."""
        return ()

    def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
        """Results with ascending numbers in the order they were stored, of a session or of all; only those above `after`. A few
        at a time in memory, and no `put` waits for whoever reads. A later call with the last number seen misses none."""
        raise Rejected(f"{type(self).__name__} keeps no order in which results could be read. Name the tasks.")

    def every_result(self) -> Iterator[Result]:
        """As `scan`, in any order; answers and events may be left out, since `htcgrid report` reads figures alone."""
        return (result for _, result in self.scan())

    lists_failures: bool = False
    """Whether its failures can be listed, by `failed`, and are replaced as that says."""

    def failed(self) -> Iterator[Result]:
        """Every result that is a failure now, a few at a time in memory. `Result.task` has its attributes, generation included,
        and the event where that is kept with the failure. `put` replaces a failure by a result of a later generation, and
        nothing else; `stored` names no task whose result is a failure of an earlier generation than its own."""
        raise Rejected(f"{type(self).__name__} cannot list its failures.")

    def has_failed(self) -> bool:
        """Whether any result is a failure: the exit code of a run says so."""
        return any(True for _ in self.failed()) if self.lists_failures else False

    keeps_runs: bool = False
    """Whether it keeps what ran beside its results, the manifest. Read after `open`."""

    def add_run(self, document: bytes) -> None:
        """Keep this document of JSON, a few kilobytes, durably. Several agents may add at the same time."""
        raise Rejected(f"{type(self).__name__} does not keep what ran.")

    def runs(self) -> Iterator[bytes]:
        """Every document that was added, in the order in which the runs began or were added. The default: none."""
        return iter(())

    def open_to_read(self) -> None:
        """In place of `open`, with the same errors, where nothing will be put: beside a run that writes into it."""
        self.open()

    def wait_for_more(self, seconds: float) -> bool | None:
        """Wait `seconds` at most until something was stored since this thread's last call; whether it was. A thread's first call
        says True at once. The default, where the store cannot tell: None, at once."""
        return None

    def stats(self) -> StoreStats:
        """What is stored now; `htcgrid status` shows it. The default knows nothing."""
        return StoreStats()
