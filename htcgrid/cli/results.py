from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import IO

import click

from htcgrid import plugins
from htcgrid.agent.storer import chunks
from htcgrid.cli.grid_options import grid_options, read_grid, session_option
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.queue_and_store import QueueSource, StoreSink, back_off, queue_of, say, store_of
from htcgrid.cli.streams import OutputLost
from htcgrid.config import ConfigError, GridConfig
from htcgrid.following import Pauses
from htcgrid.spi import Rejected, Result, ResultSink, Unavailable
from htcgrid.spi.limits import REQUEST_BYTES

_FIRST_LOOK, _LONGEST_LOOK = 0.1, 2.0
_BATCH = 1000
_NAMED_AT_ONCE = 100  # all of them are in memory together
_BATCH_BYTES = 8 << 20
_NAMED = 5
_ID_CHARACTERS = REQUEST_BYTES


@click.command()
@click.argument("task_ids", nargs=-1, metavar="[TASK_ID]...")
@grid_options
@session_option("Only the results of this session.")
@click.option(
    "--ids",
    type=click.File(encoding="utf-8-sig", errors="surrogateescape"),
    metavar="FILE",
    help="The ids of the tasks, as `submit --ids` wrote them.",
)
@click.option("--wait", is_flag=True, help="Wait until the session, the queue or these tasks have run.")
@click.option(
    "--follow", is_flag=True, help="Wait for more results until interrupted, or until there are --count results."
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after this many results.")
@click.option(
    "-o", "--output", default="-", metavar="FILE", help='The file to write; one whose name ends in ".gz" is compressed.'
)
def command(
    task_ids: tuple[str, ...],
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    session: str | None,
    ids: IO[str] | None,
    wait: bool,
    follow: bool,
    count: int | None,
    output: str,
) -> int:
    """Print results, one JSON object on each line, as the `jsonl` sink writes them.

    Exit code 1 if a task failed, or if one that was named has no result.

    \b
    htcgrid results --session SESSION --wait -o results.jsonl
    htcgrid results TASK_ID TASK_ID
    """
    named = [*task_ids, *(_ids_in(ids) if ids is not None else ())]
    by_id = bool(named) or ids is not None
    if by_id and (session is not None or follow):
        raise click.UsageError("Name tasks, or give --session or --follow; not both.")
    output = output if output == "-" else str(Path(output).absolute())
    grid = read_grid(file, plane, pairs)
    failed = found = 0
    with ExitStack() as stack:
        store = stack.enter_context(store_of(grid))
        queue = stack.enter_context(queue_of(grid)) if wait and not by_id else None
        writer = stack.enter_context(_writer(output, grid))
        look = Look(grid, store)
        results = look.at(named, wait=wait) if by_id else look.along(session, queue, follow=follow)
        for batch in _batches(_first(results, count)):
            _put(writer, batch)
            found += len(batch)
            failed += sum(result.outcome.failure is not None for result in batch)
    if look.missing:
        more = f" and {len(look.missing) - _NAMED} more" if len(look.missing) > _NAMED else ""
        say(f"no result yet, or no such task: {', '.join(look.missing[:_NAMED])}{more}.")
    elif not found:
        say("there are no results" + (f" of session {session}." if session else "."))
    return SOME_FAILED if failed or look.missing else DONE


def _ids_in(file: IO[str]) -> Iterator[str]:
    """The ids of a file, one on each line. A line that is too long, such as from a device, is refused before all of it is read."""
    try:
        while line := file.readline(_ID_CHARACTERS):
            if len(line) == _ID_CHARACTERS:
                raise ConfigError(
                    f"--ids {file.name}: a line has {_ID_CHARACTERS:,} characters or more. Name a file that `submit --ids` has written."
                )
            if line.strip():
                yield line.removesuffix("\n")  # an id may begin or end with a space
    except OSError as error:
        raise ConfigError(f"--ids {file.name} cannot be read: {error.strerror}.") from None


class Look:
    """Results from the store; None if there is none at this time. It waits while the store or the queue is unavailable."""

    def __init__(self, grid: GridConfig, store: StoreSink) -> None:
        self._store = store
        self._back_off = back_off(grid)
        self._pauses = Pauses(store, _FIRST_LOOK, _LONGEST_LOOK)
        self.missing: list[str] = []
        """The named tasks that had no result, once `at` has ended."""

    def at(self, task_ids: Sequence[str], *, wait: bool) -> Iterator[Result | None]:
        """The results of these tasks, in this order."""
        for chunk in chunks(list(dict.fromkeys(task_ids)), _NAMED_AT_ONCE):
            found = self._found(chunk)
            if wait:
                yield from self._awaited(chunk, found)
            else:
                yield from (found[task_id] for task_id in chunk if task_id in found)
                self.missing += [task_id for task_id in chunk if task_id not in found]

    def _awaited(self, task_ids: Sequence[str], found: Mapping[str, Result]) -> Iterator[Result | None]:
        """All of these in this order. While the first is missing only this one is read, then more and more: a result that is
        read before its turn is read again."""
        left, asked = list(task_ids), len(task_ids)
        while True:
            came = list(takewhile(found.__contains__, left[:asked]))
            yield from map(found.__getitem__, came)
            left = left[len(came) :]
            if not left:
                return
            if len(came) < asked:
                yield None
                if came:
                    self._pauses.reset()
                else:
                    self._pauses.pause()
            asked = 2 * asked if len(came) == asked else 1
            found = self._found(left[:asked])

    def _found(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        return self._back_off.call(lambda: self._store.get(task_ids))

    def along(self, session: str | None, queue: QueueSource | None, *, follow: bool) -> Iterator[Result | None]:
        """All results, or a session's, in the order they were stored; while `queue` holds more, or for ever."""
        store = self._store
        if not store.keeps_order:
            message = (
                "This sink cannot list its results in order. Name the tasks: "
                "`htcgrid submit --ids ids.txt`, then `htcgrid results --ids ids.txt --wait`."
            )
            raise ConfigError(message)
        seen = 0
        while True:
            # The queue is read first: then all results that were stored before it was empty are read.
            goes_on = follow or (queue is not None and self._back_off.call(_pending(queue, session)))
            before = seen
            try:
                for number, result in store.scan(session, seen):
                    seen = number
                    yield result
            except Unavailable as error:
                self._back_off.wait(error)
                continue
            self._back_off.reset()
            if not goes_on:
                return
            yield None
            if seen > before:
                self._pauses.reset()
            else:
                self._pauses.pause()


def _pending(queue: QueueSource, session: str | None) -> Callable[[], bool]:
    """Whether more results will come: of the session, or of the whole queue if that cannot be known for a session."""

    def look() -> bool:
        known = None if session is None else queue.is_pending(session)
        states = queue.stats(brief=True).states
        return bool(states.waiting or states.delayed or states.leased) if known is None else known

    return look


def _first(results: Iterator[Result | None], count: int | None) -> Iterator[Result | None]:
    """The first results, without counting pauses."""
    left = count
    for result in results:
        yield result
        if left is not None and result is not None:
            left -= 1
            if left <= 0:
                return


def _writer(path: str, grid: GridConfig) -> ResultSink:
    plugin = plugins.load(ResultSink, "jsonl")
    return plugin(plugin.Config.model_validate({"path": path}), grid.settings.function)


def _put(writer: ResultSink, batch: list[Result]) -> None:
    try:
        writer.put(batch)
    except Rejected as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise OutputLost(str(error)) from error.__cause__  # as with `| head -1`
        raise


def _batches(results: Iterator[Result | None]) -> Iterator[list[Result]]:
    """Results in lists: those that are available at once are in one list."""
    batch: list[Result] = []
    size = 0
    for result in results:
        if result is not None:
            batch.append(result)
            size += len(result.outcome.payload)
        if batch and (result is None or len(batch) >= _BATCH or size >= _BATCH_BYTES):
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
