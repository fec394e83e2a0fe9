"""What a plugin may offer besides. A protocol is for what a command must refuse where it is missing."""

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
        is accepted: so the same command completes a submit that was cut off. An id that is there with another event or
        other attributes, or twice among these tasks, is `Rejected`. A queue that knows no ids takes them all.
        """
        ...

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        """Cancel a session, or these tasks: waiting ones never run, and `extend` reports running ones, to whichever agent
        has them. A session is one whose whole name is this. With neither a session nor an id, nothing is cancelled.

        Returns each cancelled task once, with its session: those of this call, and those of earlier calls, which may have
        been cut off. The caller stores a `cancelled` result for each. An agent stores no outcome of them, since their
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
    """A plane that can be set up to stand by itself: `htcgrid deploy`, `undeploy`, `scale` and `status` use it.

    Each yields lines of progress as it goes and returns when what it did can be relied on.
    """

    carries_settings: bool
    """Whether `deploy` sends the settings along, where others may read them: then they must hold no secret."""

    def deploy(self, settings: Mapping[str, Any], *, dry_run: bool = False) -> Iterable[str]:
        """Create or update; with `dry_run` show what would change and change nothing.

        `settings` is the whole config as a document, only with what was given in it: workers that take tasks by
        themselves need its source, sink and agent.
        """
        ...

    def undeploy(self) -> Iterable[str]:
        """Remove all that `deploy` made, and nothing else."""
        ...

    def scale(self, size: int) -> Iterable[str]:
        """Have `size` workers."""
        ...

    def status(self) -> Mapping[str, str]:
        """What stands, as names and values to be shown."""
        ...


@runtime_checkable
class ImageBuilder(Protocol):
    """A plane that can make a container image of the function: `htcgrid build` uses it."""

    def build(self, tag: str, *, wheels: Path | None = None, dry_run: bool = False) -> Iterable[str]:
        """Make the image, named `tag`, of the code folder; yields lines of progress.

        Python's requirements are installed from `wheels` alone where that folder is given. With
        `dry_run` only what would be done is yielded: the Dockerfile.
        """
        ...
