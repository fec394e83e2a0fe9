"""What a run shows of its failures, and when there are too many of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from htcgrid.config import is_standard_stream
from htcgrid.failures.groups import Groups
from htcgrid.failures.shown import MOST_SHOWN, first_of_a_group, groups_text
from htcgrid.spi import HtcgridError, Outcome, ResultSink

_MOST_TOLD = 5
"""First failures of a group that are shown while the run goes on."""


class Failing:
    """Told of every failure that is stored; says the first of each group at once."""

    def __init__(self, say: Callable[[str], None], watch: Callable[[int], None] = lambda _failed: None) -> None:
        self._say = say
        self._watch = watch
        self.groups = Groups()
        self._told = 0

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            group = self.groups.add(outcome)
            if group is not None and self._told < _MOST_TOLD:
                self._told += 1
                self._say(first_of_a_group(group))
        self._watch(self.groups.total)

    def text(self, commands: Mapping[str, str]) -> str:
        """The groups, then the commands to see more and to run them again; empty where none failed."""
        groups = self.groups.ordered()
        if not groups:
            return ""
        return "\n".join([groups_text(groups), *(f"  {what:>9}:  {command}" for what, command in commands.items())])

    def document(self, commands: Mapping[str, str]) -> dict[str, Any]:
        """The same for the JSON line."""
        groups = [group.document(number) for number, group in enumerate(self.groups.ordered()[:MOST_SHOWN], 1)]
        return {"failure_groups": groups, "commands": dict(commands)} if groups else {}


def commands(sink: ResultSink, options: str) -> dict[str, str]:
    """What to give next, where the sink can be asked for its failures."""
    if not sink.lists_failures or is_standard_stream(sink):
        return {}
    return {"see more": f"htcgrid failures{options}", "run again": f"htcgrid redrive{options}"}


def has_failures(sink: ResultSink, say: Callable[[str], None]) -> bool | None:
    """Whether the sink holds any failure, of whatever run; None where it cannot be asked."""
    try:
        return sink.has_failed()
    except HtcgridError as error:
        say(
            f"whether earlier runs have left failures in the sink is not known, so the exit code is this run's: {error}"
        )
        return None
