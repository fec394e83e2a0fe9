"""The kit on an installed plugin: what `htcgrid verify` runs."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from htcgrid.spi import Capability, Function, Invoker, Observer, Plugin, ResultSink, TaskSource

from htcgrid_contracts.common import secrets_of
from htcgrid_contracts.packing import contract_function
from htcgrid_contracts.verdicts import BROKEN, HELD, Reporter, Verdict, rule_of, where_to_read

__all__ = ["SUBJECT", "Subject", "Verdict", "capabilities", "contract_function", "rules", "verify"]

VERIFIED = Path(__file__).parent / "verified.py"
CLASSES: Mapping[type[Plugin], str] = {
    Invoker: "TestInvoker",
    TaskSource: "TestTaskSource",
    ResultSink: "TestResultSink",
    Observer: "TestObserver",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The plugin to be verified, and what its author tells the kit about its service.

    `make` returns a new one, not opened, with an empty queue or store where that is possible; `missing` returns one whose
    config names what does not exist. `take_away`, `bring_back`, `throttle`, `end_throttle`, `resize` and
    `publish_invalid` are the methods of the contracts. `marks` returns the path at which handlers see a folder. `deployed` is
    the timeout of the kit's handler on a plane that serves only what was deployed. `largest_event` and `largest_answer` are in
    bytes: 0 where there is no limit, None where it is AWS's. `deadline` is the time limit of each rule, in seconds.
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
    too_large: int | None = None
    largest_event: int | None = None
    largest_answer: int | None = None
    deadline: float = 60.0


SUBJECT = pytest.StashKey[Subject]()


def verify(
    subject: Subject,
    *,
    junit: Path | None = None,
    on_verdict: Callable[[Verdict], None] = lambda _: None,
    keyword: str = "",
    first: bool = False,
) -> Sequence[Verdict]:
    """Ask every rule of the subject; returns the verdicts in order, each also given to `on_verdict` as it comes.

    `junit` is a file to write as JUnit XML. `keyword` chooses rules as `pytest -k` does; with `first` the run ends
    at the first rule that is broken. Raises KeyboardInterrupt when interrupted.
    """
    secrets: set[str] = set()

    def learned(make: Callable[[Function], Plugin] | None) -> Any:
        """The plugin, after its secrets are noted."""

        def made(function: Function) -> Plugin:
            plugin = given(function)
            secrets.update(secrets_of(plugin))
            return plugin

        given = make or subject.make
        return made if make is not None else None

    subject = replace(subject, make=learned(subject.make), missing=learned(subject.missing))
    reporter = Reporter(subject.deadline, secrets, on_verdict)
    arguments = _arguments(subject.kind, keyword)
    if junit is not None:
        arguments.append(f"--junit-xml={junit}")
    if first:
        arguments.append("--maxfail=1")
    status = pytest.main(arguments, plugins=[_Known(subject), reporter])
    if reporter.unread is not None:
        raise reporter.unread
    if status == pytest.ExitCode.INTERRUPTED and not reporter.has_stopped:
        raise KeyboardInterrupt
    if status not in {
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
        pytest.ExitCode.INTERRUPTED,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    }:
        message = f"pytest could not run the rules ({status!r}): {reporter.error or 'it gave no reason'}"
        raise RuntimeError(message)
    return reporter.verdicts


def _arguments(kind: type[Plugin], keyword: str) -> list[str]:
    """Nothing of the user's own pytest settings and plugins, and no output: the caller shows the verdicts."""
    arguments = ["--disable-plugin-autoload", f"{VERIFIED}::{CLASSES[kind]}", "-c", os.devnull]
    arguments += [f"--rootdir={VERIFIED.parent}", "--import-mode=importlib", "-o", "addopts="]
    for plugin in ("htcgrid_contracts.pytest_plugin", "no:terminal", "no:cacheprovider", "no:faulthandler"):
        arguments += ["-p", plugin]
    return [*arguments, "-k", keyword] if keyword else arguments


def rules(kind: type[Plugin], keyword: str = "") -> Sequence[tuple[str, str, str]]:
    """Each rule for a kind of plugin: its name, what it requires and why, and where it is in the interface.

    `keyword` chooses rules as `verify` does.
    """
    from htcgrid_contracts import verified  # noqa: PLC0415 - collected by `verify` only

    contract = getattr(verified, CLASSES[kind])
    names = [name for each in reversed(contract.__mro__) for name in vars(each) if name.startswith("test_")]
    if keyword:
        chosen = _Chosen()
        pytest.main([*_arguments(kind, keyword), "--collect-only"], plugins=[chosen])
        names = [name for name in names if name in chosen.names]
    found = []
    for name in dict.fromkeys(names):
        why, read = where_to_read(getattr(contract, name).__doc__ or "")
        found.append((rule_of(name), re.sub(r"\s+", " ", why), read))
    return found


def capabilities(claimed: frozenset[Capability], verdicts: Sequence[Verdict]) -> Mapping[str, str]:
    """Each capability as "proven", "broken", "not proven" (claimed, and no rule could be asked) or "not claimed"."""
    shown = {}
    for capability in Capability:
        found = {verdict.verdict for verdict in verdicts if capability.value in verdict.capabilities}
        if capability not in claimed:
            shown[capability.value] = "not claimed"
        elif BROKEN in found:
            shown[capability.value] = "broken"
        else:
            shown[capability.value] = "proven" if HELD in found else "not proven"
    return shown


class _Chosen:
    """Learns which rules pytest would ask."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.names = {item.name.partition("[")[0] for item in session.items}


class _Known:
    """Gives the subject to the contracts."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[SUBJECT] = self._subject
