"""The agent: receive, invoke, put, ack, and the order in which all of that ends."""

import threading
import time
from collections.abc import Callable, Sequence

from htcgrid.agent.delivery import Delivery
from htcgrid.agent.halt import Halt
from htcgrid.agent.holdings import Holdings
from htcgrid.agent.intake import Intake
from htcgrid.agent.keeper import Keeper
from htcgrid.agent.patience import Patience
from htcgrid.agent.policy import Rules
from htcgrid.agent.quarantine import Quarantine
from htcgrid.agent.slot import Pace, Slot
from htcgrid.agent.statistics import Statistics, Summary
from htcgrid.agent.stock import Stock
from htcgrid.agent.suspects import Suspects
from htcgrid.spi import Invoker, Outcome, ResultSink, TaskSource, Unavailable

_LOOK_SECONDS = 0.1

_STOP_SECONDS = 3.0
"""What the plane has past the grace time to stop what runs."""

_STORE_SECONDS = 2.0
"""What source and sink have after that to take the last results and leases."""


class Stuck(Unavailable):
    """A call of a plugin does not return, though the grace time is over; what it holds is left to lapse."""


class Agent:
    """Runs the tasks of a source on a plane into a sink; all three are open and stay open."""

    def __init__(
        self,
        source: TaskSource,
        invoker: Invoker,
        sink: ResultSink,
        rules: Rules | None = None,
        report: Callable[[str], None] = lambda _message: None,
        failed: Callable[[Sequence[Outcome]], None] = lambda _outcomes: None,
    ) -> None:
        rules = rules or Rules()
        slots = invoker.max_concurrency
        self._invoker = invoker
        self._rules = rules
        self._halt = Halt()
        self._stock = Stock()
        self._holdings = Holdings()
        self._statistics = Statistics(slots)
        pace = Pace()

        def patience(slack: float = 0.0) -> Patience:
            return Patience(self._halt, rules.unavailable_limit, report, slack)

        self._suspects = Suspects()
        self._stopping: list[threading.Thread] = []
        # What is stopped at the end of the grace time comes to the delivery after it.
        self._patience = {"intake": patience(), "delivery": patience(_STORE_SECONDS), "keeper": patience()}
        self._delivery = Delivery(
            source, sink, self._holdings, self._statistics, self._patience["delivery"], rules.linger, self.fail, failed
        )
        self._quarantine = Quarantine(self._delivery, rules.init_errors_limit, rules.init_errors_quiet, self.fail)
        self._keeper = Keeper(source, invoker, self._stock, self._holdings, self._delivery, self._patience["keeper"])
        self._intake = Intake(
            source,
            sink,
            slots,
            self._stock,
            self._holdings,
            self._delivery,
            self._quarantine,
            self._statistics,
            pace,
            self._patience["intake"],
            self._halt,
        )
        self._slots = [
            Slot(
                invoker,
                self._stock,
                self._delivery,
                self._quarantine,
                self._suspects,
                rules.retries,
                rules.unavailable_limit,
                pace,
                patience(),
                self._halt,
            )
            for _ in range(slots)
        ]

    def run(self) -> Summary:
        """Until the source is exhausted, or for ever if it never is; then what it came to.

        Raises the first error that a plugin could not go on with, after giving back what can be.
        """
        self._statistics.begin()
        intake = self._thread("intake", self._intake.run)
        slots = [self._thread(f"slot-{number}", slot.run) for number, slot in enumerate(self._slots)]
        keeper = self._thread("keeper", self._keeper.run)
        delivery = self._thread("delivery", self._delivery.run)

        # Who feeds another ends first: intake, slots, then delivery, which must have the outcomes of
        # all that ran; the leases are kept alive until the last one is acked or given back.
        self._watch(intake)
        self._quarantine.close()
        for lease in self._stock.close():
            self._delivery.give_back(lease.task.id)
        self._join([intake, *slots], _STOP_SECONDS, self._stop)
        for lease in self._suspects.close():
            self._delivery.give_back(lease.task.id)
        for task_id in self._running():
            self._delivery.give_back(task_id)  # the plane failed under it, or does not stop it
        self._quarantine.close()
        self._delivery.close()
        self._join([delivery], _STOP_SECONDS + _STORE_SECONDS)
        self._keeper.close()
        self._join([keeper, *self._stopping], _STOP_SECONDS + _STORE_SECONDS)
        self._raise_what_went_wrong([intake, *slots, delivery, keeper, *self._stopping])
        return self.summary()

    def drain(self, grace: float | None = None) -> None:
        """From any thread or a signal handler: take nothing more, finish or give back what runs, end."""
        self._halt.drain(self._rules.grace if grace is None else grace)

    def fail(self, error: BaseException) -> None:
        """Stop because of this; `run` raises it."""
        self._halt.fail(error, self._rules.grace)

    def summary(self) -> Summary:
        """What it has come to so far; from any thread."""
        return self._statistics.summary()

    @property
    def held(self) -> int:
        """How many tasks it has in hand."""
        return len(self._holdings)

    def _watch(self, intake: threading.Thread) -> None:
        """Until nothing more comes in."""
        while intake.is_alive() and not self._halt.is_set():
            # Not a wait for the halt: a signal handler that interrupted that could not set it.
            intake.join(_LOOK_SECONDS)
            self._quarantine.look(len(self._holdings) - len(self._quarantine))

    def _join(
        self, threads: Sequence[threading.Thread], seconds: float, at_deadline: Callable[[], None] | None = None
    ) -> None:
        """Until they have ended, or for so long past the grace time; when that is up something may be started."""
        while any(thread.is_alive() for thread in threads):
            now = time.monotonic()
            if now > self._halt.deadline + seconds:
                return
            if at_deadline is not None and now > self._halt.deadline:
                self._stopping.append(self._thread("stop", at_deadline))
                at_deadline = None
            for thread in threads:  # the time is for all together: there may be a thousand
                thread.join(max(0.0, now + _LOOK_SECONDS - time.monotonic()))

    def _stop(self) -> None:
        """Have the plane stop what runs, again and again, since what began just now may not have been there yet."""
        while time.monotonic() < self._halt.deadline + _STOP_SECONDS and (running := self._running()):
            self._invoker.cancel(running)
            time.sleep(_LOOK_SECONDS)

    def _running(self) -> list[str]:
        return [task_id for slot in self._slots for task_id in list(slot.running)]

    def _raise_what_went_wrong(self, threads: Sequence[threading.Thread]) -> None:
        if self._halt.error is not None:
            raise self._halt.error
        stuck = sorted({self._call_of(thread) for thread in threads if thread.is_alive()})
        if stuck:
            past = f"{_STOP_SECONDS + _STORE_SECONDS:g} s past the grace time"
            raise Stuck(
                f"{' and '.join(stuck)} had not returned {past}, so the run was cut off. Nothing is lost: tasks "
                "without a result run again once their leases have lapsed."
            )

    def _call_of(self, thread: threading.Thread) -> str:
        """The plugin's method that a thread is in."""
        name = thread.name.removeprefix("htcgrid-")
        if name not in self._patience:
            return f"{type(self._invoker).__name__}.{'cancel' if name == 'stop' else 'invoke'}"
        method = self._patience[name].doing
        if method is None:
            return f"The {name} thread"
        return f"{type(getattr(method, '__self__', self)).__name__}.{method.__name__}"

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised again by run
                self.fail(error)

        thread = threading.Thread(target=guarded, name=f"htcgrid-{name}", daemon=True)
        thread.start()
        return thread
