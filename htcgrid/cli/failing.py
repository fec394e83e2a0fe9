"""What a run shows of its failures, and when there are too many of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from htcgrid.config import is_standard_stream
from htcgrid.spi import HtcgridError, Outcome, ResultSink

if TYPE_CHECKING:
    from htcgrid.failures.groups import Groups

_MOST_SHOWN = 5
"""How many groups have their first failure shown during the run."""


class Failing:
    """Called with all failures that are stored; shows the first of each group at once."""

    def __init__(self, say: Callable[[str], None], watch: Callable[[int], None] = lambda _failed: None) -> None:
        self._say = say
        self._watch = watch
        self._groups: Groups | None = None
        self._shown = 0

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        # Imported here, since most runs have no failure.
        from htcgrid.failures.groups import Groups  # noqa: PLC0415
        from htcgrid.failures.shown import first_of_a_group  # noqa: PLC0415

        groups = self._groups = self._groups or Groups()
        for outcome in outcomes:
            group = groups.add(outcome)
            if group is not None and self._shown < _MOST_SHOWN:
                self._shown += 1
                self._say(first_of_a_group(group))
        self._watch(groups.total)

    def text(self, commands: Mapping[str, str]) -> str:
        """The groups, then the commands that show more or run them again; empty if no task failed."""
        if self._groups is None:
            return ""
        from htcgrid.failures.shown import groups_text  # noqa: PLC0415 - as above

        listed = (f"  {what:>9}:  {command}" for what, command in commands.items())
        return "\n".join([groups_text(self._groups.ordered()), *listed])

    def document(self, commands: Mapping[str, str]) -> dict[str, Any]:
        """The same for the JSON line."""
        if self._groups is None:
            return {}
        from htcgrid.failures.shown import MOST_SHOWN  # noqa: PLC0415 - as above

        groups = [group.document(number) for number, group in enumerate(self._groups.ordered()[:MOST_SHOWN], 1)]
        return {"failure_groups": groups, "commands": dict(commands)}


def commands(sink: ResultSink, options: str) -> dict[str, str]:
    """The commands to use next, if the sink can list its failures."""
    if not sink.lists_failures or is_standard_stream(sink):
        return {}
    return {"see more": f"htcgrid failures{options}", "run again": f"htcgrid redrive{options}"}


def has_failures(sink: ResultSink, say: Callable[[str], None]) -> bool | None:
    """Whether the sink has a failure of any run; None if that cannot be read."""
    try:
        return sink.has_failed()
    except HtcgridError as error:
        say(
            f"whether earlier runs have left failures in the sink is not known, so the exit code is this run's: {error}"
        )
        return None
