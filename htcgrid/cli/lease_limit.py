"""Calculates for `htcgrid check` whether a grid leases more tasks at a time than its source allows."""

import math
from collections.abc import Iterator

from htcgrid.agent.prefetch import most_held
from htcgrid.spi import Invoker, TaskSource

_SHORTEST = 0.001
_STEPS = 60


def advice(source: TaskSource, invoker: Invoker, plane: str) -> Iterator[str]:
    """What to change if the agents of this plane reach the limit: one agent, or all agents of a standing grid."""
    most = source.most_leased
    if most is None:
        return
    agents, slots = invoker.standing or (1, invoker.max_concurrency)
    who = f"planes.{plane}: {agents:,} {'agent' if agents == 1 else 'agents'} of {slots:,} environments"
    if agents * slots > most:
        yield (
            f"{who} run up to {agents * slots:,} tasks at a time, but the source hands out {most:,} at most, to all agents "
            f"together: {agents * slots - most:,} environments stay idle. Have fewer of them, or split the tasks: a queue "
            "for each part of the grid has a limit of its own. Some services raise it on request."
        )
    elif shortest := _shortest(most, agents, slots, source.max_batch):
        yield (
            f"{who} may hold more than {most:,} tasks, the most that the source hands out to all agents together, where "
            f"tasks take less than {_rounded(shortest):g} s: {agents * most_held(slots, _SHORTEST, source.max_batch):,} of "
            f"{_SHORTEST:g} s. Some agents would find the queue empty meanwhile. Put more work into each task, have fewer "
            "agents, or split the tasks: a queue for each part of the grid has a limit of its own."
        )


def _shortest(most: int, agents: int, slots: int, received: int) -> float | None:
    """The shortest task duration with which all agents stay within the limit; None if all durations do."""
    if agents * most_held(slots, _SHORTEST, received) <= most:
        return None
    low, high = _SHORTEST, 60.0
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if agents * most_held(slots, middle, received) > most:
            low = middle
        else:
            high = middle
    return high


def _rounded(seconds: float) -> float:
    """Rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit * (1 - 1e-9)) * unit
