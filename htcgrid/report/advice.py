"""What a user may change, from the figures of a run. Each rule gives a sentence or nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from htcgrid.report.figures import Figures

_SMALLEST_MB = 128
_SHORT_MS = 1.0
_MOST_HINTS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """Those of the function; None where nobody knows them."""

    memory_mb: float | None = None
    timeout: float | None = None


def advice(figures: Figures, limits: Limits) -> list[str]:
    """The sentences, the most serious first."""
    rules: tuple[Callable[[Figures, Limits], str], ...] = (
        _out_of_memory,
        _timeouts,
        _near_memory,
        _near_timeout,
        _one_long_task,
        _idle,
        _starts,
        _retries,
        _too_much_memory,
        _short_tasks,
    )
    given = [text for rule in rules if (text := rule(figures, limits))]
    return given + _hints(figures)


def _out_of_memory(figures: Figures, limits: Limits) -> str:
    count = figures.kinds["out_of_memory"]
    if not count:
        return ""
    limit = f" of {limits.memory_mb:,.0f} MB" if limits.memory_mb else ""
    return (
        f"{_tasks(count)} ran out of memory: raise [function] memory{limit}, then run those alone again: "
        "htcgrid redrive --kind out_of_memory."
    )


def _timeouts(figures: Figures, limits: Limits) -> str:
    count = figures.kinds["timeout"]
    if not count:
        return ""
    limit = f" of {limits.timeout:g} s" if limits.timeout else ""
    return (
        f"{_tasks(count)} took longer than the timeout{limit}: raise [function] timeout or split such tasks, then "
        "htcgrid redrive --kind timeout."
    )


def _near_memory(figures: Figures, limits: Limits) -> str:
    used = figures.memory.highest
    if not limits.memory_mb or figures.kinds["out_of_memory"] or used < 0.9 * limits.memory_mb:
        return ""
    return f"Memory {limits.memory_mb:,.0f} MB, the most used is {used:,} MB: a slightly larger task would fail."


def _near_timeout(figures: Figures, limits: Limits) -> str:
    longest = figures.longest_success_ms / 1000
    if not limits.timeout or longest < 0.8 * limits.timeout:
        return ""
    return (
        f"Timeout {limits.timeout:g} s, the longest task that succeeded took {longest:.1f} s: a slightly slower machine "
        "would fail it."
    )


def _one_long_task(figures: Figures, _limits: Limits) -> str:
    slowest = figures.slowest.ordered()
    if figures.count < 2 or not slowest or figures.seconds <= 0:
        return ""
    share = slowest[0].duration_ms / 1000 / figures.seconds
    if share < 0.25 or slowest[0].duration_ms < 100:
        return ""
    return (
        f"One task, {slowest[0].task_id}, is {share:.0%} of the whole run: no number of workers makes the run shorter "
        "than this task. Split it, or put it first."
    )


def _idle(figures: Figures, _limits: Limits) -> str:
    environments = figures.environments
    if not environments.is_known or environments.idle_share < 0.3 or figures.seconds < 1:
        return ""
    return (
        f"Workers waited for tasks {environments.idle_share:.0%} of their time, overheads included: fewer workers would do, "
        "or the queue or the store is slow."
    )


def _starts(figures: Figures, _limits: Limits) -> str:
    environments = figures.environments
    total = environments.init_ms + figures.busy_ms
    if environments.starts < 2 or environments.init_ms < 0.2 * total or environments.init_ms < 1000:
        return ""
    return (
        f"{environments.starts:,} starts of environments took {environments.init_ms / total:.0%} of all computing time: "
        "import less in the handler's module, or give each worker more tasks."
    )


def _retries(figures: Figures, _limits: Limits) -> str:
    if figures.retried < 0.05 * figures.count or not figures.retried:
        return ""
    return (
        f"Attempts beyond the first: {figures.retried:,} for {_tasks(figures.count)}. Each is computing time that gave no "
        "result; the table of retries names the tasks."
    )


def _too_much_memory(figures: Figures, limits: Limits) -> str:
    used = figures.memory.highest
    if not limits.memory_mb or not used or figures.kinds["out_of_memory"]:
        return ""
    enough = max(_SMALLEST_MB, -(-int(used * 1.5) // 64) * 64)
    if enough > 0.6 * limits.memory_mb:
        return ""
    return (
        f"Memory {limits.memory_mb:,.0f} MB, the most used is {used:,} MB: [function] memory = {enough} would be enough. "
        "On AWS Lambda less memory costs less, and is less processor too."
    )


def _short_tasks(figures: Figures, _limits: Limits) -> str:
    middle = figures.durations.percentile(0.5)
    if figures.count < 1000 or middle >= _SHORT_MS:
        return ""
    return (
        f"Half of the tasks take less than {max(middle, 0.01):.2g} ms each, less than it costs to hand one out: put several "
        "into one event."
    )


def _hints(figures: Figures) -> list[str]:
    hints = dict.fromkeys(group.hint for group in figures.groups.ordered() if group.hint)
    return [f"{hint[0].upper()}{hint[1:]}." for hint in list(hints)[:_MOST_HINTS]]


def _tasks(count: int) -> str:
    return f"{count:,} task" + ("" if count == 1 else "s")
