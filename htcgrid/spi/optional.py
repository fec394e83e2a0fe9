"""Optional features of a plugin. There is a protocol only where a command must refuse a plugin without the feature."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from htcgrid.spi.values import Result, Task


@runtime_checkable
class TaskQueue(Protocol):
    """A source that tasks can be put into: `htcgrid submit` and `cancel` use it."""

    def put(self, tasks: Sequence[Task]) -> None:
        """Accept these tasks, durably, all or none.

        A task that is there already with the same event and attributes, in any order, stays as it is, leased or not, and
        is accepted: so the same command completes an interrupted submit. An id that is there with another event or
        other attributes, or twice among these tasks, is `Rejected`. A queue that knows no ids takes them all.
        """
        ...

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        """Cancel a session, or these tasks: waiting ones never run, and `extend` reports running ones to the agent that
        has them. The whole name of the session must match; `""` may be the tasks without a session, or
        none. Without a session and ids, nothing is cancelled.

        Returns each cancelled task once, with its session: those of this call, and those of earlier calls, which may have
        been interrupted. The caller stores a `cancelled` result for each. An agent stores no outcome of them, since their
        leases are lost. A cancelled id is kept for as long as a lease of it may be in use; how much longer is up to the
        queue. A task that is acked or a dead letter is not cancelled any more.
        """
        ...


@runtime_checkable
class ResultStore(Protocol):
    """A sink that can be read: `htcgrid results` and `Grid.map` use it."""

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        """The results of those of these tasks that have one. `Result.task.payload` may be empty. An id may be there twice."""
        ...


@runtime_checkable
class Deployable(Protocol):
    """A plane that can be set up to run by itself: `htcgrid deploy`, `undeploy`, `scale` and `status` use it.

    Each yields lines of progress and returns when its effect is complete.
    """

    carries_settings: bool
    """Whether `deploy` sends the settings to a place where others may read them. They must then not hold secrets."""

    def deploy(self, settings: Mapping[str, Any], *, dry_run: bool = False) -> Iterable[str]:
        """Create or update; with `dry_run` show what would change and change nothing.

        `settings` is the whole config as a document, without defaults: workers that receive tasks by themselves need
        its source, sink and agent.
        """
        ...

    def undeploy(self) -> Iterable[str]:
        """Remove all that `deploy` made, and nothing else."""
        ...

    def scale(self, size: int) -> Iterable[str]:
        """Have `size` workers."""
        ...

    def status(self) -> Mapping[str, str]:
        """What is deployed now, as names and values for the user."""
        ...


@runtime_checkable
class ImageBuilder(Protocol):
    """A plane that can make a container image of the function: `htcgrid build` uses it."""

    def build(self, tag: str, *, wheels: Path | None = None, dry_run: bool = False) -> Iterable[str]:
        """Make an image of the code folder, named `tag`; yields lines of progress.

        If the folder `wheels` is given, Python's requirements are installed only from there. With
        `dry_run` only the Dockerfile is yielded.
        """
        ...
