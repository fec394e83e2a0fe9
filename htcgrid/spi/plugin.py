"""What every plugin has, whatever its kind."""

from __future__ import annotations

import os
from abc import ABC
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from htcgrid.spi.function import Function
from htcgrid.spi.keys import Keys
from htcgrid.spi.stats import Usage

SPI_VERSION = 1
"""The version that a plugin states in its `spi` attribute. It is increased when plugins must be changed to keep working."""


class Plugin(ABC):  # noqa: B024 - what is abstract differs by kind
    """What every plugin has: a `Config`, a life from `open` to `close`, and the function it serves.

    Constructing a plugin only keeps what it is given: no connection, no file, no thread. `open` does the rest and raises
    `Rejected` (wrong for good: exit code 2) or `Unavailable` (exit code 3). `close` is quiet when called twice or before
    `open`.
    """

    spi: ClassVar[int] = SPI_VERSION

    class Config(Keys):
        """The plugin's own keys in the config file. Subclass it; unknown keys are refused. Give numbers their bounds."""

    def __init__(self, config: Config, function: Function) -> None:
        self.config = config
        self.function = function
        self.agent = f"{os.uname().nodename}-{os.getpid()}"
        """The name of the agent that uses this plugin, as the service shows it: unique among agents, and the same
        for all plugins of one agent. `[agent] name` is put in front of it after `__init__` and before `open`."""

    def open(self) -> None:  # noqa: B027 - a plugin without connections needs none
        """Prepare the plugin: connect, check that everything the config names exists, start servers."""

    def close(self) -> None:  # noqa: B027
        """Release everything `open` acquired. What was leased and not acked expires or is returned."""

    def advise(self, attempts: int) -> Iterable[str]:
        """What does not fit the function, or does not fit an agent that tries a task `attempts` times, and what to do about it.

        `htcgrid check` prints it. The plugin is open only if the user asked for that; otherwise only the config is checked.
        """
        return ()

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The least rights that each use of the plugin needs; `htcgrid permissions` prints them.

        An IAM policy for each of `agent`, `submitter`, `reader` and `deployer` that it knows, and the text of Kubernetes
        documents as `cluster`. It may be called before `open`: what only AWS knows, such as the account, is then `*`.
        """
        return {}

    def usage(self) -> Usage | None:
        """What was used since the plugin was made; None where its calls cost nothing. The summary of a run shows it."""
        return None

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
