"""Calls that are late, repeated or empty, and very long times."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from htcgrid.spi import Lease, Rejected, TaskQueue, TaskSource

from htcgrid_contracts.common import eventually, not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered

T = TypeVar("T")

MONTH = 2_592_000.0
"""Seconds of the longest timeout that a function can have; in milliseconds more than 31 bits hold."""

_REASON = "ended by signal 9\0: see the log; " + "a line of the log\n" * 250


class LateCallRules(SourceHelpers):
    """Asked of every source."""

    def test_a_call_with_nothing_in_it_does_nothing(self, source: TaskSource, given: Given) -> None:
        """A call with an empty list must do nothing and raise nothing. Read: spi, rules for all three."""
        given(*numbered(1))
        held = self.held(source, 1)
        calls: dict[str, Callable[[], object]] = {
            "ack([])": lambda: source.ack([]),
            "nack([])": lambda: source.nack([]),
            "nack([], 1.0)": lambda: source.nack([], 1.0),
            "extend([], 10.0)": lambda: list(source.extend([], 10.0)),
            "dead_letter([], ...)": lambda: source.dead_letter([], "the contract's reason"),
        }
        if isinstance(source, TaskQueue):
            calls["put([])"] = lambda: source.put([])
        if source.redrives:
            calls["redrive([])"] = lambda: source.redrive([])
        for name, call in calls.items():
            found = self._quiet(name, call)
            assert not found, f"{name} returned {found}"
        self.nothing_comes(source, 0.1, on_lease=True)
        source.ack(held)

    def test_very_long_times_are_taken(self, source: TaskSource, given: Given) -> None:
        """A delay or a lease of a month must not be an error. The plugin may cut it to the most that its service
        allows, or reject a delay with an error that says the limit.
        Read: spi.TaskSource.nack, spi.TaskSource.extend."""
        given(*numbered(2))
        leases = self.held(source, 2)
        for lease in leases:
            gone = self._quiet(f"extend(..., {MONTH:g})", lambda lease=lease: list(source.extend([lease], MONTH)))  # type: ignore[misc]
            assert not gone, f"a lease was extended by {MONTH:g} s in time, and is said to be lost"
        if self.returns(source):
            self._quiet(f"nack(..., {MONTH:g})", lambda: self._unless_rejected(source, leases[:1]))
        began = time.monotonic()
        while time.monotonic() - began < 1.0 * self.wait_factor:
            came = source.receive(1, 0.2)
            assert not came, f"{came[0].task.id} was returned, or extended, for {MONTH:g} s, and came at once"
            time.sleep(0.01)
        if source.lease_seconds is not None:
            gone = list(source.extend(leases[1:], 60 * self.wait_factor))
            assert not gone, f"a lease that was extended by {MONTH:g} s was lost at once"

    def test_a_wait_may_be_long_or_a_part_of_a_second(self, source: TaskSource, given: Given) -> None:
        """`receive` must accept any `wait`, also above the limit of the service or between its steps.
        Read: spi.TaskSource.receive."""
        given()
        began = time.monotonic()
        assert not source.receive(1, 0.9), "a task was leased, but the source has none"
        took = time.monotonic() - began
        assert took > 0.4 or source.exhausted, f"receive(1, 0.9) came back without a task after {took:.2f} s"
        if self.finite:
            return
        self.publish(source, numbered(1))
        leases = self._quiet("receive(1, 600)", lambda: source.receive(1, 600.0))
        assert len(leases) == 1, f"a task was there, and receive(1, 600) leased {len(leases)}"

    def test_a_returned_task_is_not_ours_any_more(self, source: TaskSource, given: Given) -> None:
        """An `extend` after `nack` must not hide the task from other agents: the two calls may cross.
        Read: spi.TaskSource.extend, spi.TaskSource.nack."""
        if not self.returns(source):
            not_asked("`nack` is the default: what is returned waits for its lease to expire")
        given(*numbered(1))
        leases = self.held(source, 1)
        source.nack(leases)
        gone = self._quiet("extend after nack", lambda: set(source.extend(leases, 60 * self.wait_factor)))
        assert gone <= {leases[0].task.id}, f"extend of one lease names {sorted(gone)}"
        (again,) = self.take(source, 1)
        assert again.attempt == 2, f"handed out for the second time, it says attempt {again.attempt}"

    # --- what is cancelled, and what is a dead letter ---

    def test_what_was_cancelled_stays_so_whatever_its_holder_does(self, given: Given) -> None:
        """A cancelled task must stay cancelled, whatever its agent calls next. The agent learns of the cancel only at
        its next `extend`. Read: spi.TaskQueue.cancel, spi.TaskSource.extend."""
        source = given()
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: its tasks cannot be cancelled")
        source.put(numbered(2))
        self.publish(source, numbered(1, session_id="s-1"))
        leases = self.held(source, 3)
        session = next(filter(None, (lease.task.attributes.get("session_id") for lease in leases)))
        source.cancel(session_id=session)
        source.cancel(task_ids=[each.task.id for each in leases if each.task.attributes.get("session_id") != session])
        cancelled = {lease.task.id for lease in leases}
        for _ in range(2):  # an answer may be lost
            gone = {each for lease in leases for each in source.extend([lease], 60 * self.wait_factor)}
            assert gone == cancelled, (
                f"three leased tasks are cancelled, one with its session, and extend says {sorted(gone)}; it says so each time it "
                f"is asked"
            )
        returned, done = leases[0], leases[2]
        self._quiet("nack of a cancelled task", lambda: source.nack([returned]))
        self._quiet("ack of a cancelled task", lambda: source.ack([done]))
        self.nothing_comes(source, 0.5 * self.wait_factor)

    def test_a_late_call_leaves_a_dead_letter_as_it_is(self, source: TaskSource, given: Given) -> None:
        """Calls that come after `dead_letter` must not change the dead letter. The agent repeats a call when its answer
        was lost. Read: spi.TaskSource.dead_letter, spi.TaskSource.nack."""
        size = min(source.max_batch, 2)
        given(*numbered(size))
        leases = self.held(source, size)
        source.dead_letter(leases[:1], "the contract's reason")
        self._quiet("a second dead_letter", lambda: source.dead_letter(leases, "the contract's reason"))
        self.all_ended(source, leases, "dead_letter")
        self._quiet("a late nack", lambda: source.nack(leases))
        self._quiet("a late extend", lambda: list(source.extend(leases, 60 * self.wait_factor)))
        self.nothing_comes(source, 0.5 * self.wait_factor)
        if type(source).dead_letters is not TaskSource.dead_letters:
            expected = {each.task.id for each in leases}
            what = f"{size} dead letters in `dead_letters`"
            eventually(lambda: self._dead(source) == expected, 10 * self.wait_factor, what)
            self._quiet("a late ack", lambda: source.ack(leases))
            time.sleep(0.1)
            assert self._dead(source) == expected, (
                "a late ack of a dead letter has removed it: an operator has not seen it"
            )

    def test_a_dead_letter_may_have_any_reason(self, source: TaskSource, given: Given) -> None:
        """`dead_letter` must accept any text as the reason: it may be what a handler printed.
        Read: spi.TaskSource.dead_letter."""
        given(*numbered(1))
        leases = self.held(source, 1)
        self._quiet(
            f"dead_letter with a reason of {len(_REASON)} characters, a NUL among them,",
            lambda: source.dead_letter(leases, _REASON),
        )
        if type(source).dead_letters is TaskSource.dead_letters:
            return
        found: list[str] = []

        def is_listed() -> bool:
            found[:] = [each.reason for each in source.dead_letters() if each.task.id == leases[0].task.id]
            return bool(found)

        eventually(is_listed, 10 * self.wait_factor, "the dead letter in `dead_letters`")
        assert found[0].startswith("ended by signal 9"), (
            f"the reason is {_REASON[:30]!r}..., and listed is {found[0][:60]!r}"
        )

    # --- helpers ---

    def _dead(self, source: TaskSource) -> set[str]:
        return {each.task.id for each in source.dead_letters()}

    def _unless_rejected(self, source: TaskSource, leases: Sequence[Lease]) -> None:
        """Return these with a delay of a month, unless the source rejects it and says its limit."""
        with suppress(Rejected):
            source.nack(leases, MONTH)

    def _quiet(self, what: str, call: Callable[[], T]) -> T:
        """Checks that the call raises nothing; returns its value."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
            raise AssertionError(f"{what} is allowed, and raised {type(error).__name__}: {error}") from None
