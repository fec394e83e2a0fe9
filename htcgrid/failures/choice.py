"""Which failures of a sink the user has chosen."""

from collections.abc import Iterator
from dataclasses import dataclass

from htcgrid.failures.groups import Group, Groups
from htcgrid.spi import FailureKind, Rejected, Result, ResultSink


@dataclass(frozen=True, slots=True)
class Choice:
    """By kind, group, id or session; a failure must match all that are given. With none given, all failures."""

    kinds: frozenset[FailureKind] = frozenset()
    group: int | None = None
    task_ids: frozenset[str] = frozenset()
    session: str | None = None

    @property
    def is_all(self) -> bool:
        return not (self.kinds or self.group or self.task_ids or self.session)

    def of(self, sink: ResultSink) -> Iterator[Result]:
        """The chosen failures, a few at a time in memory. Raises `Rejected` if there is no such group."""
        groups, group = self._group(sink)
        for result in sink.failed():
            if self._fits(result) and (group is None or groups.holds(group, result.outcome)):
                yield result

    def _fits(self, result: Result) -> bool:
        return (
            (not self.kinds or result.outcome.failure in self.kinds)
            and (not self.task_ids or result.task.id in self.task_ids)
            and (self.session is None or result.task.attributes.get("session_id") == self.session)
        )

    def _group(self, sink: ResultSink) -> tuple[Groups, Group | None]:
        """The groups are those of all failures, so that their numbers are those that `htcgrid failures` shows."""
        groups = Groups()
        if self.group is None:
            return groups, None
        for result in sink.failed():
            groups.add(result.outcome)
        group = groups.numbered(self.group)
        if group is None:
            there = len(groups.ordered())
            known = f"there are 1 to {there}" if there else "no result is a failure"
            raise Rejected(
                f"There is no group {self.group}: {known}. `htcgrid failures` shows them; nothing was changed."
            )
        return groups, group
