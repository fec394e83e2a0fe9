"""What a plugin's author tells the kit about the plugin to be verified."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from htcgrid.spi import Function, Plugin

from htcgrid_contracts.common import secrets_of
from htcgrid_contracts.rule_runner import RuleRunner


@dataclass(frozen=True, slots=True)
class Subject:
    """The plugin to be verified, and what its author tells the kit about its service.

    `make` returns a new one, not opened, with an empty queue or store where that is possible; `missing` returns one whose
    config names what does not exist. `take_away`, `bring_back`, `throttle`, `end_throttle`, `resize` and
    `publish_invalid` are the methods of the contracts. `marks` returns the path at which handlers see a folder. `deployed` is
    the timeout of the kit's handler on a plane that serves only what was deployed; `emulator` says that AWS's emulator runs it.
    `largest_event` and `largest_answer` are in bytes: 0 where there is no limit, None where it is AWS's. `away_seconds` is how
    long one attempt may take to find out that the service is away. `deadline` is the time limit of each rule, in seconds.

    It can be sent to another process if its functions can be pickled: those of a module, their `functools.partial`, and
    methods of what can be pickled.
    """

    kind: type[Plugin]
    make: Callable[[Function], Plugin]
    wait_factor: float = 1.0
    drain: bool = False
    missing: Callable[[Function], Plugin] | None = None
    take_away: Callable[[], None] | None = None
    bring_back: Callable[[], None] | None = None
    throttle: Callable[[], None] | None = None
    end_throttle: Callable[[], None] | None = None
    resize: Callable[[int], None] | None = None
    publish_invalid: Callable[[], None] | None = None
    marks: Callable[[Path], str] | None = None
    deployed: float | None = None
    emulator: bool = False
    too_large: int | None = None
    largest_event: int | None = None
    largest_answer: int | None = None
    away_seconds: float = 5.0
    deadline: float = 60.0


SUBJECT = pytest.StashKey[Subject]()


def ask(subject: Subject, config: pytest.Config) -> None:
    """Have the rules of this run of pytest tested on the subject."""
    secrets: set[str] = set()

    def noting(make: Callable[[Function], Plugin]) -> Callable[[Function], Plugin]:
        def made(function: Function) -> Plugin:
            plugin = make(function)
            secrets.update(secrets_of(plugin))
            return plugin

        return made

    missing = None if subject.missing is None else noting(subject.missing)
    config.stash[SUBJECT] = replace(subject, make=noting(subject.make), missing=missing)
    config.pluginmanager.register(RuleRunner(subject.deadline, secrets))
