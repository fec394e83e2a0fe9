"""Makes one call for each thing, at the same time; all calls are made even if some fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from htcgrid.spi import HtcgridError, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")


def each(
    pool: Executor, call: Callable[[Thing], Answer], things: Sequence[Thing]
) -> list[tuple[Thing, Answer | HtcgridError]]:
    """Every thing with its answer or its `HtcgridError`. Other errors are bugs and are raised."""

    def attempt(thing: Thing) -> tuple[Thing, Answer | HtcgridError]:
        try:
            return thing, call(thing)
        except HtcgridError as error:
            return thing, error

    if len(things) == 1:  # no thread is needed
        return [attempt(things[0])]
    return list(pool.map(attempt, things))


def raise_worst(outcomes: Iterable[object]) -> None:
    """Raise a `Rejected` for the whole call; if there is none, an `Unavailable`; if there is none, a `Rejected` for some tasks.

    So a batch is tried again as long as that can help, and then tasks that can never succeed are named.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, HtcgridError)]
    rejected = [error for error in errors if isinstance(error, Rejected)]
    passing = [error for error in errors if isinstance(error, Unavailable)]
    for worst in [error for error in rejected if not error.task_ids] + passing:
        raise worst
    if rejected:
        text = "; ".join(dict.fromkeys(str(error) for error in rejected))
        raise Rejected(text, frozenset().union(*(error.task_ids for error in rejected)))
