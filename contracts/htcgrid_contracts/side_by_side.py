"""Rules that are tested at the same time, each in one of several processes: pytest-xdist, which gets the subject here.

This is also the pytest plugin that each of these processes loads by its name.
"""

import pickle
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from htcgrid_contracts.subjects import Subject, ask

_SENT = "htcgrid_subject"


def arguments(jobs: int) -> Sequence[str]:
    """What pytest is told, so that it tests `jobs` rules at the same time, in their order.

    A process that a rule ends is replaced, however often, since that is a verdict on the rule and not on the others.
    """
    wanted = ["-p", "xdist", "-n", str(jobs), "--dist=load", "--maxschedchunk=1", "--max-worker-restart=1000"]
    return [*wanted, "-p", __name__]


class Sender:
    """A pytest plugin of the process that starts the others: it gives each the subject."""

    def __init__(self, subject: Subject) -> None:
        self._sent = pickle.dumps(subject)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[_SENT] = self._sent

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Two processes may end in the same moment: xdist then sends what the first one leaves to the second one, and takes it
        for an error of its own that it cannot. The rules of the second one are passed on once its end is read."""
        send = node.sendcommand

        def send_if_it_lives(name: str, **arguments: object) -> None:
            with suppress(OSError):
                send(name, **arguments)

        node.sendcommand = send_if_it_lives


def pytest_configure(config: pytest.Config) -> None:
    sent = getattr(config, "workerinput", {}).get(_SENT)
    if sent is not None:
        subject: Subject = pickle.loads(sent)  # noqa: S301 - from the process that has started this one
        ask(subject, config)
