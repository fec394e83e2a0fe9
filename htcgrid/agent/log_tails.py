"""Handler logs of planes that do not pass on everything that handlers print: the log tail of each outcome is written."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from htcgrid.spi import Capability, Invoker, Lease, Outcome, Unstarted

Invoke = Callable[[Sequence[Lease], float], Iterable[Outcome | Unstarted]]


def missing_output(plane: Invoker) -> str:
    """What such a plane leaves out, as a text for the user; empty if it passes on everything."""
    if Capability.OUTPUT in plane.capabilities:
        return ""
    if Capability.LOGS in plane.capabilities:
        return "this plane gives only the last 4 KB of what a task prints, when it ends; those are written, and no more"
    return "this plane gives nothing of what handlers print, so nothing is written"


def invoke_of(plane: Invoker) -> Invoke:
    """`plane.invoke`, or a function that also writes log tails if output is wanted and the plane has only these."""
    if not plane.output.is_wanted or Capability.OUTPUT in plane.capabilities:
        return plane.invoke

    def invoke(batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        leases = {lease.task.id: lease for lease in batch}
        for report in plane.invoke(batch, timeout):
            if isinstance(report, Outcome) and report.log_tail:
                plane.output.write(leases.get(report.task_id), report.environment, report.log_tail)
            yield report

    return invoke
