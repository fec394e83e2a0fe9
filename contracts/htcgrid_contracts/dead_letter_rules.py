"""Reading dead letters while others work."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from htcgrid.spi import GENERATION, HtcgridError, Lease, TaskQueue, TaskSource

from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered

_ABANDONED = 24
"""More than the connections of a usual pool."""
_MORE_THAN_A_PAGE = 240


class DeadLetterRules(SourceHelpers):
    """Asked of sources whose dead letters can be read."""

    def test_who_reads_dead_letters_holds_up_no_call(self, source: TaskSource, given: Given) -> None:
        """Other calls must work while `dead_letters` is read. A command reads them one by one while agents go on.
        Read: spi.TaskSource.dead_letters."""
        letters = self._dead_letters(source, given)
        self.publish(source, numbered(1))
        (held,) = self.held(source, 1)
        reading = iter(source.dead_letters())
        first = next(reading)

        def others() -> None:
            source.ack([held])
            if isinstance(source, TaskQueue):
                source.put(numbered(1))
            if source.redrives:
                source.redrive([replace(first.task, attributes={**first.task.attributes, GENERATION: "1"})])

        try:
            in_threads([others], 10 * self.wait_factor)
        except AssertionError as error:
            raise AssertionError(
                f"another thread was within `dead_letters`, and ack, put or redrive waited: {error}"
            ) from None
        seen = {first.task.id, *(each.task.id for each in reading)}
        expected = {lease.task.id for lease in letters}
        assert seen == expected, (
            f"the first of {len(expected)} dead letters was run again while `dead_letters` was read, which then gave "
            f"{len(seen & expected)} of them"
        )

    def test_two_may_read_dead_letters_at_once(self, source: TaskSource, given: Given) -> None:
        """Two readers must be able to read `dead_letters` at the same time: two commands, or two threads of one.
        Read: spi.TaskSource.dead_letters."""
        letters = self._dead_letters(source, given)
        reading = iter(source.dead_letters())
        first = next(reading)
        list(source.dead_letters())
        seen = [first.task.id, *(each.task.id for each in reading)]
        assert sorted(seen) == sorted(lease.task.id for lease in letters), (
            f"of {len(letters)} dead letters a reader was given {len(seen)}, since another began to read"
        )

    def test_a_reading_of_dead_letters_may_be_left(self, source: TaskSource, given: Given) -> None:
        """A caller must be able to stop reading `dead_letters` before the end, for example once it has found its task.
        Read: spi.TaskSource.dead_letters."""
        self._dead_letters(source, given)
        for number in range(_ABANDONED):
            try:
                next(iter(source.dead_letters()), None)
                source.stats(brief=True)
            except HtcgridError as error:
                raise AssertionError(
                    f"{number} readings of dead letters were left, and the next call raised: {error}"
                ) from None

    def test_what_is_run_again_while_dead_letters_are_read_hides_no_other(
        self, source: TaskSource, given: Given
    ) -> None:
        """When dead letters are redriven while they are read, the others must be read all the same. Pages must begin after
        the last one that was read, and not at a number of rows. Read: spi.TaskSource.dead_letters."""
        if type(source).dead_letters is TaskSource.dead_letters or not source.redrives:
            not_asked("`dead_letters` is the default, or `redrives` is False")
        size = min(_MORE_THAN_A_PAGE, 60 * source.max_batch)
        given(*numbered(size))
        self.set_aside(source, size)
        expected = {task.id for task in self.published}
        eventually(
            lambda: {each.task.id for each in source.dead_letters()} >= expected,
            10 * self.wait_factor,
            f"each of {size} dead letters in `dead_letters`",
        )
        reading = iter(source.dead_letters())
        first = [each.task for each in islice(reading, size * 6 // 11)]
        source.redrive([replace(task, attributes={**task.attributes, GENERATION: "1"}) for task in first])
        seen = {task.id for task in first} | {each.task.id for each in reading}
        assert expected <= seen, (
            f"there are {size} dead letters; once {len(first)} were read these were redriven, and {len(expected - seen)} of "
            f"the others were never read"
        )

    # --- helpers ---

    def _dead_letters(self, source: TaskSource, given: Given) -> Sequence[Lease]:
        """Makes three dead letters and lists them."""
        given(*numbered(3))
        if type(source).dead_letters is TaskSource.dead_letters:
            not_asked("`dead_letters` is the default: its dead letters are read in other ways")
        leases = self.held(source, 3)
        for lease in leases:
            source.dead_letter([lease], "the contract's reason")
        if isinstance(source, TaskQueue):
            dead = (3, None)
            eventually(
                lambda: source.stats(brief=True).states.dead in dead,
                10 * self.wait_factor,
                "3 dead letters in the stats",
            )
        return leases
