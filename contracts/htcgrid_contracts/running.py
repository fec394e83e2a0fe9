"""The kit on an installed plugin: what `htcgrid verify` runs."""

import io
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from htcgrid.spi import Capability, Invoker, Observer, Plugin, ResultSink, TaskSource

from htcgrid_contracts import side_by_side
from htcgrid_contracts.packing import contract_function
from htcgrid_contracts.subjects import SUBJECT, Subject, ask
from htcgrid_contracts.verdicts import BROKEN, HELD, Reporter, Verdict, rule_of, where_to_read

__all__ = ["SUBJECT", "Subject", "Verdict", "capabilities", "contract_function", "rules", "verify"]

VERIFIED = Path(__file__).parent / "verified.py"
CLASSES: Mapping[type[Plugin], str] = {
    Invoker: "TestInvoker",
    TaskSource: "TestTaskSource",
    ResultSink: "TestResultSink",
    Observer: "TestObserver",
}


def verify(
    subject: Subject,
    *,
    jobs: int = 1,
    junit: Path | None = None,
    on_verdict: Callable[[Verdict], None] = lambda _: None,
    keyword: str = "",
    first: bool = False,
) -> Sequence[Verdict]:
    """Ask every rule of the subject; returns the verdicts in order, each also given to `on_verdict` as it comes.

    `jobs` is how many rules are tested at the same time, each in a process of its own; the subject must then be one that
    can be sent there. `junit` is a file to write as JUnit XML. `keyword` chooses rules as `pytest -k` does; with `first`
    the run ends at the first rule that is broken. Raises KeyboardInterrupt when interrupted.
    """
    reporter = Reporter(_told(subject.kind), on_verdict)
    arguments = [*_arguments(subject.kind, keyword), *(side_by_side.arguments(jobs) if jobs > 1 else ())]
    if junit is not None:
        arguments.append(f"--junit-xml={junit}")
    if first:
        arguments.append("--maxfail=1")
    asked = side_by_side.Sender(subject) if jobs > 1 else _Asked(subject)
    with tempfile.TemporaryDirectory(
        prefix="htcgrid-rules-"
    ) as folder:  # pytest would keep those of its last three runs
        status = pytest.main([*arguments, f"--basetemp={folder}/rules"], plugins=[asked, reporter])
    if reporter.unread is not None:
        raise reporter.unread
    has_ended_early = first and any(verdict.verdict == BROKEN for verdict in reporter.verdicts)
    if status == pytest.ExitCode.INTERRUPTED and not has_ended_early:
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

    `keyword` chooses rules as `verify` does. Raises ValueError if pytest cannot read it.
    """
    told = _told(kind)
    if keyword:
        chosen, said = _Chosen(), io.StringIO()
        with redirect_stderr(said):
            status = pytest.main([*_arguments(kind, keyword), "--collect-only"], plugins=[chosen])
        if status == pytest.ExitCode.USAGE_ERROR:
            raise ValueError(said.getvalue().partition("'-k': ")[2].strip())
        told = {name: each for name, each in told.items() if name in chosen.names}
    return [(rule_of(name), why, read) for name, (why, read, _) in told.items()]


def _told(kind: type[Plugin]) -> Mapping[str, tuple[str, str, tuple[str, ...]]]:
    """For the test of each rule: what it requires and why, where it is in the interface, and the capabilities it is about."""
    from htcgrid_contracts import verified  # noqa: PLC0415 - collected by `verify` only

    contract = getattr(verified, CLASSES[kind])
    found = {}
    for name in [name for each in reversed(contract.__mro__) for name in vars(each) if name.startswith("test_")]:
        test = getattr(contract, name)
        marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "capability"]
        found[name] = *where_to_read(test.__doc__ or ""), tuple(str(each) for mark in marks for each in mark.args)
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


class _Asked:
    """Has the rules tested in this process."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def pytest_configure(self, config: pytest.Config) -> None:
        ask(self._subject, config)
