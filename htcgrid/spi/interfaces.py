"""The plugin interface: three abstract classes, and a fourth in `observer.py` beside this file.

A compute plane subclasses `Invoker`, a place that tasks come from `TaskSource`, a place that results go to `ResultSink`.
Four methods are abstract; everything else has a default. This file is the specification; `values.py` and `errors.py` beside
it have what crosses it. `htcgrid verify NAME` runs the conformance kit over a plugin.

- **Ordinary blocking calls.** The agent owns every thread. It may call any method from several threads at once, except
  `open` and `close`, which it calls once each, first and last. `close` ends what runs, where `cancel` can.
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
        while it waits, or that another agent returns or puts; and with none after about `wait` seconds, where 0 is one look. What is
        leased is not handed out again until its lease expires or is returned, and then with `attempt` one higher."""

    @abstractmethod
    def ack(self, leases: Sequence[Lease]) -> None:
        """These tasks are done: they are never handed out again. A late or second ack is ignored."""

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Return: handed out again after about `delay` seconds, rounded up if at all, as one more attempt. The default does
        nothing, which is right if leases expire soon. A late or second nack, or one of a lost lease, is ignored."""

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        """Keep these leases for `seconds` from now; returns the ids of tasks that this agent does not have any more. They were
        cancelled, or another receiver has their lease and stores them: the agent stops them and stores nothing. The default,
        for sources whose leases never expire, returns none."""
        return ()

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        """Replaces `ack` after the last try of a task that ended its environment; keeps (part of) the reason. Default: ack."""
        self.ack(leases)

    def dead_letters(self) -> Iterable[DeadTask]:
        """The dead letters, a few at a time in memory. No call waits for the reader, who may stop early. Default: none."""
        return ()

    redrives: bool = False
    """Whether failed tasks can be put in again, by `redrive`."""

    def redrive(self, tasks: Sequence[Task]) -> None:
        """Accept these failed tasks again, durably. Each has a generation above that of its failed run. A task of that id and
        an earlier generation is replaced: leases of it are lost. So is a dead letter. One of the same generation and content
        stays, so that a redrive can be completed by repeating it; if it is a dead letter already, it may also run again."""
        raise Rejected(f"{type(self).__name__} takes no failed tasks again.")

    def stats(self, *, brief: bool = False) -> QueueStats:
        """How many tasks it holds now, or an estimate. The default knows nothing. `brief` asks for `states` only, at little cost;
        otherwise the whole queue may be read, but no payloads."""
        return QueueStats()

    def is_pending(self, session_id: str) -> bool | None:
        """Whether a task of this session is waiting, delayed or leased; None, the default, if that is unknown."""
        return None

    @property
    def exhausted(self) -> bool:
        """Whether no more tasks will come. An endless source returns False, the default. A finite one returns True when all its
        tasks are acked or leased, and no returned task waits to be handed out again."""
        return False


class Invoker(Plugin):
    """A compute plane: where handlers run."""

    max_batch: int = 1
    """The most tasks one `invoke` takes. Above 1 only if an environment can cheaply get tasks in advance."""

    max_concurrency: int = 1
    """How many `invoke` calls can do work at a time, 1 at least. The agent reads it after `open` and ten times a
    second, and runs as many threads. When it falls, running calls are finished."""

    capabilities: frozenset[Capability] = frozenset()
    """What the plane can do. It is read after `open`, which may find that the service can do less."""

    standing: tuple[int, int] | None = None
    """The most agents of a standing grid, and how many environments each has, where `deploy` makes one. `check` reads it."""

    credentials: CredentialSource = CredentialSource()
    """Gives out the credentials that handlers find in their environment; set before `open`."""

    observers: Observers = Observers()
    """These are notified when an execution environment starts and ends; set before `open`."""

    output: HandlerOutput = HandlerOutput()
    """Receives everything that handlers print, if the plane has `Capability.OUTPUT`; set before `open`."""

    @abstractmethod
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        """Run the handler for each task, one after the other in one environment, and report each once. Outcomes come as they
        are ready, in any order. `timeout` is in seconds, for each task by itself. The handler's context is AWS Lambda's: a
        request id for each invocation, the function's name and memory, the time that is left. Failures of the handler are
        outcomes. A task that was not begun when another of its batch takes long, or ends the environment, is reported as
        `Unstarted` at once, so that another environment can run it. After `Unavailable`, reported tasks stay reported, and
        the others are tried again. `Rejected` stops the agent. After `Throttled` the agent makes fewer calls at a time."""

    def cancel(self, task_ids: Collection[str]) -> None:
        """Stop those of these tasks that run here now, but none that begins later; each is reported as `cancelled`. Any thread
        may call it, and again for tasks that run on, as after `Unavailable`. The default stops none."""


class ResultSink(Plugin):
    """A place that results go to."""

    max_batch: int = 1
    """The most results that one `put` takes."""

    keeps_order: bool = False
    """Whether it has a `scan`."""

    @abstractmethod
    def put(self, results: Sequence[Result]) -> None:
        """Store these results. They are durable when it returns: the tasks are acked right after. There is
        one result for each task id, also when one is put again. `Rejected` with `task_ids` names those that can never be
        stored; the others are stored. After `Unavailable` the same results are put again."""

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        """Which of these tasks have a result already: they are acked without running. Must be cheap. Default: none."""
        return ()

    def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
        """Results of a session, or all, with ascending numbers in the order they were stored; only numbers above `after`. A few
        at a time in memory, and no `put` waits for the reader. A later call with the last number seen misses none."""
        raise Rejected(f"{type(self).__name__} keeps no order in which results could be read. Name the tasks.")

    def every_result(self) -> Iterator[Result]:
        """As `scan`, in any order. Answers and events may be left out, because `htcgrid report` reads only figures."""
        return (result for _, result in self.scan())

    lists_failures: bool = False
    """Whether `failed` can list its failures, and `put` replaces them as described there."""

    def failed(self) -> Iterator[Result]:
        """Every result that is a failure now, a few at a time in memory. `Result.task` has its attributes, with its generation,
        and its event if that is kept with failures. `put` replaces only failures, and only by a result of a later generation;
        `stored` does not return a task whose result is a failure of an earlier generation than the task's."""
        raise Rejected(f"{type(self).__name__} cannot list its failures.")

    def has_failed(self) -> bool:
        """Whether any result is a failure; the exit code of a run depends on it."""
        return any(True for _ in self.failed()) if self.lists_failures else False

    keeps_runs: bool = False
    """Whether it keeps manifests (the record of each run) beside its results. It is read after `open`."""

    def add_run(self, document: bytes) -> None:
        """Keep this manifest, a JSON document of a few kilobytes, durably. Several agents may add one at the same time."""
        raise Rejected(f"{type(self).__name__} does not keep what ran.")

    def runs(self) -> Iterator[bytes]:
        """Every manifest, in the order in which the runs began or were added. The default returns none."""
        return iter(())

    def open_to_read(self) -> None:
        """Replaces `open`, with the same errors, if nothing will be put. A run may write into the sink meanwhile."""
        self.open()

    def wait_for_more(self, seconds: float) -> bool | None:
        """Wait at most `seconds` until something was stored since this thread's last call; returns whether it was. A thread's
        first call returns True at once. The default, for stores that cannot know this, returns None at once."""
        return None

    def stats(self) -> StoreStats:
        """What is stored now; `htcgrid status` shows it. The default knows nothing."""
        return StoreStats()
