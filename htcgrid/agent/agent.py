"""The agent: receive, invoke, put, ack, and the order in which all of that ends."""

import threading
import time
from collections.abc import Callable

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
from htcgrid.spi import Invoker, ResultSink, TaskSource


class Agent:
    """Runs the tasks of a source on a plane into a sink; all three are open and stay open."""

    def __init__(
        self,
        source: TaskSource,
        invoker: Invoker,
        sink: ResultSink,
        rules: Rules | None = None,
        report: Callable[[str], None] = lambda _message: None,
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

        def patience() -> Patience:
            return Patience(self._halt, rules.unavailable_limit, report)

        self._delivery = Delivery(source, sink, self._holdings, self._statistics, patience(), rules.linger)
        self._quarantine = Quarantine(self._delivery, rules.init_errors_limit, self.fail)
        self._keeper = Keeper(source, invoker, self._stock, self._holdings, self._delivery, patience())
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
            patience(),
            self._halt,
        )
        self._slots = [
            Slot(
                invoker,
                self._stock,
                self._delivery,
                self._quarantine,
                rules.retries,
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
        intake.join()
        self._quarantine.close()
        for lease in self._stock.close():
            self._delivery.give_back(lease.task.id)
        self._join_within_grace(slots)
        for task_id in [task_id for slot in self._slots for task_id in slot.running]:
            self._delivery.give_back(task_id)  # the plane failed under it
        self._quarantine.close()
        self._delivery.close()
        delivery.join()
        self._keeper.close()
        keeper.join()
        if self._halt.error is not None:
            raise self._halt.error
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

    def _join_within_grace(self, slots: list[threading.Thread]) -> None:
        """Wait for what runs; past the grace time have the plane stop it, and it is given back."""
        stopping = False
        while any(thread.is_alive() for thread in slots):
            until = time.monotonic() + 0.1  # for all together: there may be a thousand
            for thread in slots:
                thread.join(max(0.0, until - time.monotonic()))
            if not stopping and time.monotonic() > self._halt.deadline:
                stopping = True
            if stopping:
                self._invoker.cancel([task_id for slot in self._slots for task_id in list(slot.running)])

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised again by run
                self.fail(error)

        thread = threading.Thread(target=guarded, name=f"htcgrid-{name}", daemon=True)
        thread.start()
        return thread
