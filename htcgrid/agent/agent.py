"""The agent: receive, invoke, put, ack, and the order in which all of that ends."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from htcgrid.agent.cancelling import try_to_cancel
from htcgrid.agent.extender import Extender
from htcgrid.agent.init_errors import InitErrors
from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.outcomes import Outcomes
from htcgrid.agent.receiver import Receiver
from htcgrid.agent.shared import Shared
from htcgrid.agent.shutdown import Shutdown
from htcgrid.agent.slot import Slot
from htcgrid.agent.slots import Slots
from htcgrid.agent.statistics import Statistics, Summary
from htcgrid.agent.storer import STORE_SECONDS, Storer
from htcgrid.agent.suspects import Suspects
from htcgrid.spi import (
    AgentEnded,
    AgentFigures,
    AgentStarted,
    Invoker,
    Observers,
    Outcome,
    Plugin,
    QueueStats,
    ResultSink,
    TaskSource,
    Unavailable,
    Usage,
)

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1

_STOP_SECONDS = 3.0
"""How long the plane has after the grace time to stop running tasks."""


class Stuck(Unavailable):
    """A plugin's call has not returned after the grace time; the leases that it holds will expire."""


class Agent:
    """Runs the tasks of a source on a plane and puts results into a sink; all three are open and stay open."""

    def __init__(
        self,
        source: TaskSource,
        invoker: Invoker,
        sink: ResultSink,
        options: AgentOptions | None = None,
        report: Callable[[str], None] = log.warning,
        failed: Callable[[Sequence[Outcome]], None] = lambda _outcomes: None,
        observers: Observers | None = None,
    ) -> None:
        slots = invoker.max_concurrency
        options = options or AgentOptions()
        self._shared = Shared(options, Shutdown(), Statistics(slots), report, failed, observers or Observers())
        self._invoker = invoker
        is_shared = source.lease_seconds is not None
        self._leases = LeaseTable(slots, sink.max_batch, is_shared=is_shared, budget=options.prefetch_bytes)
        self._suspects = Suspects()
        self._init_errors = InitErrors(self._leases, self._shared)
        outcomes = Outcomes(self._leases, self._suspects, self._init_errors, self._shared)
        self._receiver = Receiver(source, sink, self._leases, self._suspects, self._shared)
        self._extender = Extender(source, invoker, self._leases, self._shared)
        self._slots = Slots(
            invoker,
            self._leases,
            self._shared,
            lambda: Slot(invoker, self._leases, outcomes, self._extender, self._shared),
            self._thread,
        )
        self._storer = Storer(source, sink, self._leases, self._shared)
        self._stopping: list[threading.Thread] = []
        self._figures = _Figures(self._leases, source, (source, invoker, sink))

    def run(self) -> Summary:
        """Run until the source is exhausted, or for ever if it never is; returns the summary.

        Raises the first error that stopped the agent, after returning the leases that can be returned.
        """
        log.info("The agent starts with %d environments.", self._invoker.max_concurrency)
        self._shared.statistics.begin()
        self._shared.observers.tell(AgentStarted(time.time(), self._invoker.max_concurrency, self._figures))
        try:
            return self._run()
        finally:
            self._shared.observers.tell(AgentEnded(time.time(), self._figures))

    def _run(self) -> Summary:
        receiver = self._thread("receiver", self._receiver.run)
        self._slots.look()
        extender = self._thread("extender", self._extender.run)
        storer = self._thread("storer", self._storer.run)

        # Threads end in the order in which they feed each other: the receiver, the slots, then the storer, which needs
        # the outcomes of all that ran. Leases are extended until the last one is acked or returned.
        receiver = self._receive(receiver)
        slots = self._slots.threads
        if self._shared.shutdown.is_set():
            left = max(0.0, self._shared.shutdown.deadline - time.monotonic())
            log.info("The agent receives no more tasks. Those that run have %.1f s.", left)
        self._leases.close()
        self._join([receiver, *slots], _STOP_SECONDS, self._stop)
        self._leases.return_now(*self._suspects.close())
        self._leases.return_now(*self._leases.running())  # the plane failed while these ran, or does not stop them
        self._init_errors.close()
        self._leases.end()
        self._join([storer], _STOP_SECONDS + STORE_SECONDS)
        self._extender.close()
        self._join([extender, *self._stopping], _STOP_SECONDS + STORE_SECONDS)
        self._raise_what_went_wrong([receiver, *slots, storer, extender, *self._stopping])
        summary = self.summary()
        log.info("The agent ends: %d tasks succeeded, %d failed.", summary.succeeded, summary.failed)
        return summary

    def drain(self, grace: float | None = None) -> None:
        """Receive no more tasks, finish or return those that run, then end. Any thread or signal handler may call it."""
        self._shared.shutdown.drain(self._shared.options.grace if grace is None else grace)

    def summary(self) -> Summary:
        """The counts so far; any thread may call it."""
        return self._shared.statistics.summary(self._leases.retried, self._leases.returned)

    @property
    def deadline(self) -> float:
        """The end of the grace time on the monotonic clock; infinite until the agent is asked to stop."""
        return self._shared.shutdown.deadline

    @property
    def held(self) -> int:
        """How many tasks it holds."""
        return len(self._leases)

    def _receive(self, receiver: threading.Thread) -> threading.Thread:
        """Receive until no more tasks come. Initialisation errors are decided last: a task with a lost lease then comes again."""
        while True:
            self._watch(receiver)
            undecided = self._leases.not_loaded
            self._init_errors.close()
            if not undecided or self._shared.shutdown.is_set():
                return receiver
            receiver = self._thread("receiver", self._receiver.run)

    def _watch(self, receiver: threading.Thread) -> None:
        """Wait until the receiver ends or the agent is to stop; follow the plane meanwhile."""
        while receiver.is_alive() and not self._shared.shutdown.is_set():
            # Not `shutdown.wait`: a signal handler that interrupts that call cannot set the shutdown.
            receiver.join(_LOOK_SECONDS)
            self._init_errors.look()
            self._follow_the_plane()

    def _follow_the_plane(self) -> None:
        try:
            self._slots.look()
        except Exception as error:  # noqa: BLE001 - it is raised again by run
            self._shared.fail(error)

    def _join(
        self, threads: Sequence[threading.Thread], seconds: float, at_deadline: Callable[[], None] | None = None
    ) -> None:
        """Wait for these until `seconds` after the end of the grace time, at which `at_deadline` is started in a thread."""
        shutdown = self._shared.shutdown
        while any(thread.is_alive() for thread in threads):
            now = time.monotonic()
            if now > shutdown.deadline + seconds:
                return
            if at_deadline is not None and now > shutdown.deadline:
                self._stopping.append(self._thread("stop", at_deadline))
                at_deadline = None
            for thread in threads:  # one deadline for all of them: there may be a thousand
                thread.join(max(0.0, now + _LOOK_SECONDS - time.monotonic()))

    def _stop(self) -> None:
        """Make the plane stop running tasks. This is repeated, because a task that has just begun may have been missed."""
        end = self._shared.shutdown.deadline + _STOP_SECONDS
        while time.monotonic() < end and (running := self._leases.running()):
            try_to_cancel(self._invoker, [lease.task.id for lease in running])
            time.sleep(_LOOK_SECONDS)

    def _raise_what_went_wrong(self, threads: Sequence[threading.Thread]) -> None:
        if self._shared.shutdown.error is not None:
            raise self._shared.shutdown.error
        stuck = sorted({self._call_of(thread) for thread in threads if thread.is_alive()})
        if stuck:
            past = f"{_STOP_SECONDS + STORE_SECONDS:g} s past the grace time"
            raise Stuck(
                f"{' and '.join(stuck)} did not return within {past}, so the run was cut off. Nothing is lost: tasks "
                "without a result run again once their leases have expired."
            )

    def _call_of(self, thread: threading.Thread) -> str:
        """The plugin's method that a thread is calling."""
        name = thread.name.removeprefix("htcgrid-")
        back_offs = {
            "receiver": self._receiver.back_off,
            "storer": self._storer.back_off,
            "extender": self._extender.back_off,
        }
        if name not in back_offs:
            return f"{type(self._invoker).__name__}.{'cancel' if name == 'stop' else 'invoke'}"
        method = back_offs[name].calling
        if method is None:
            return f"The {name} thread"
        return f"{type(getattr(method, '__self__', self)).__name__}.{method.__name__}"

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised again by run
                self._shared.fail(error)

        thread = threading.Thread(target=guarded, name=f"htcgrid-{name}", daemon=True)
        thread.start()
        return thread


class _Figures(AgentFigures):
    def __init__(self, leases: LeaseTable, source: TaskSource, plugins: Sequence[Plugin]) -> None:
        self._leases = leases
        self._source = source
        self._plugins = plugins

    def slots(self) -> int:
        return self._leases.slots

    def busy(self) -> int:
        return self._leases.busy_slots()

    def held(self) -> int:
        return len(self._leases)

    def held_bytes(self) -> int:
        return self._leases.bytes.held

    def queue(self) -> QueueStats:
        return self._source.stats(brief=False)

    def usage(self) -> Sequence[Usage]:
        return [used for plugin in self._plugins if (used := plugin.usage()) is not None]
