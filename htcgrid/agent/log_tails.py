"""Handler logs of planes that do not hand over all that handlers print: the log tail of each outcome is written."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from htcgrid.spi import Capability, Invoker, Lease, Outcome, Unstarted

Invoke = Callable[[Sequence[Lease], float], Iterable[Outcome | Unstarted]]


def missing_output(plane: Invoker) -> str:
    """What such a plane leaves out, as a text for the user; empty where it hands over all."""
    if Capability.OUTPUT in plane.capabilities:
        return ""
    if Capability.LOGS in plane.capabilities:
        return "this plane gives only the last 4 KB of what a task prints, when it ends; those are written, and no more"
    return "this plane gives nothing of what handlers print, so nothing is written"


def invoke_of(plane: Invoker) -> Invoke:
    """`plane.invoke`; where output is wanted and the plane gives only log tails, one that writes these."""
    if not plane.output.is_wanted or Capability.OUTPUT in plane.capabilities:
        return plane.invoke

    def invoke(batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        leases = {lease.task.id: lease for lease in batch}
        for report in plane.invoke(batch, timeout):
            if isinstance(report, Outcome) and report.log_tail:
                plane.output.write(leases.get(report.task_id), report.environment, report.log_tail)
            yield report

    return invoke
