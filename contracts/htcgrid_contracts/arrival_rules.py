"""What arrives of a task: its payload and attributes as they were sent, or why it is not a task."""

import time
from collections.abc import Collection

import pytest
from htcgrid.spi import Lease, Task, TaskSource

from htcgrid_contracts.common import not_asked
from htcgrid_contracts.payloads import AWKWARD_ATTRIBUTES, AWKWARD_PAYLOADS, large_text
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered
from htcgrid_contracts.typed import misfits


class ArrivalRules(SourceHelpers):
    """Asked of every source."""

    @pytest.mark.parametrize("name", AWKWARD_PAYLOADS)
    def test_a_payload_arrives_as_it_was_sent(self, given: Given, name: str) -> None:
        """A leased task must have the same bytes as were sent. A plugin that parses JSON and writes it again changes
        numbers, the order of keys, or keys that come twice. Read: spi, rules for all three."""
        (task,) = numbered(1)
        task = Task(task.id, AWKWARD_PAYLOADS[name])
        (lease,) = self.take(given(task), 1)
        assert lease.task.id == self.published[0].id
        assert lease.task.payload == task.payload, (
            f"sent {task.payload[:80]!r} ({len(task.payload)} bytes), "
            f"received {lease.task.payload[:80]!r} ({len(lease.task.payload)} bytes)"
        )

    def test_a_large_payload_arrives_whole(self, given: Given) -> None:
        """A large event must arrive complete. The size of a page or a message is not a limit of an event.
        Read: spi, rules for all three."""
        (task,) = numbered(1)
        task = Task(task.id, large_text(self.largest_payload))
        (lease,) = self.take(given(task), 1)
        assert len(lease.task.payload) == len(task.payload), (
            f"sent {len(task.payload)} bytes, received {len(lease.task.payload)}: set `largest_payload` if the place "
            f"takes less"
        )
        assert lease.task.payload == task.payload, "a large payload arrived changed"

    @pytest.mark.parametrize("name", AWKWARD_ATTRIBUTES)
    def test_attributes_arrive_as_they_were_sent(self, given: Given, name: str) -> None:
        """A leased task must have the attributes that were sent: handlers read them in their context.
        Read: spi.Task."""
        (task,) = numbered(1)
        task = Task(task.id, b"{}", AWKWARD_ATTRIBUTES[name])
        source = given(task)
        if self.published[0].attributes != task.attributes:
            not_asked("`publish` says that the place holds no attributes of a task")
        (lease,) = self.take(source, 1)
        assert dict(lease.task.attributes) == dict(task.attributes)

    def test_what_arrives_has_the_types_of_the_interface(self, source: TaskSource, given: Given) -> None:
        """Leases and `stats` must have the types that the interface names. A `memoryview`, a `bytearray` or a `Decimal` may
        be equal to the right value, and still cannot be sent on or printed as JSON. Read: spi.Task, spi.Lease."""
        given(*numbered(2))
        leases = self.held(source, 2)
        gone: object = source.extend(leases[: source.max_batch], 60 * self.wait_factor)
        assert isinstance(gone, Collection), f"`extend` returned {gone!r}: return a list, a set or a tuple of ids"
        values: list[object] = [*leases, source.stats()]
        if type(source).dead_letters is not TaskSource.dead_letters:
            source.dead_letter(leases[:1], "the contract's reason")
            values += source.dead_letters()
        wrong = "; ".join(filter(None, map(misfits, values)))
        assert not wrong, wrong

    def test_what_is_no_task_is_lent_as_invalid(self, given: Given) -> None:
        """What cannot be made a task must be leased with `invalid` set to the reason. The agent then stores a failure
        and acks it, and the tasks behind it are received. Read: spi.Lease, spi.FailureKind.INVALID_EVENT."""
        if self.finite:
            not_asked("finite: override this rule where the place can hold what is not a task")
        source = given()
        self.publish_invalid(source)
        (lease,) = self.take(source, 1)
        assert len(lease.invalid) >= 10, f"say in `invalid` why it is not a task; it says {lease.invalid!r}"
        assert lease.task.id, "a lease that is invalid needs a task id all the same: its failure is stored by it"
        self.keeps_secrets(source, "`Lease.invalid`", lease.invalid)
        source.ack([lease])
        self.publish(source, numbered(1))
        self.publish_invalid(source)
        self.publish(source, numbered(1))
        leases: list[Lease] = []
        deadline = time.monotonic() + 10 * self.wait_factor
        while len(leases) < 3:
            assert time.monotonic() < deadline, f"{len(leases)} of an invalid task and the two beside it came"
            some = source.receive(min(source.max_batch, 3), 1.0)
            source.ack(some)
            leases += some
        good = [each for each in leases if not each.invalid]
        assert len(good) == 2, f"of two good tasks beside one that is invalid {2 - len(good)} were called invalid"
        attempts = [each.attempt for each in leases]
        assert attempts == [1, 1, 1], (
            f"an invalid task and the two beside it came for the first time, at the attempts {attempts}"
        )
        if source.lease_seconds is not None and source.lease_seconds <= self.longest_lease:
            self.nothing_comes(source, self.expiry(source))
