"""The kit on an installed plugin: what `htcgrid verify` runs."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from htcgrid.spi import Capability, Function, Invoker, Plugin, ResultSink, TaskSource

from htcgrid_contracts.packing import contract_function

__all__ = ["SUBJECT", "Subject", "Verdict", "capabilities", "contract_function", "verify"]

VERIFIED = Path(__file__).parent / "verified.py"
CLASSES: Mapping[type[Plugin], str] = {
    Invoker: "TestInvoker",
    TaskSource: "TestTaskSource",
    ResultSink: "TestResultSink",
}

HELD, BROKEN, NOT_ASKED = "held", "broken", "not asked"


@dataclass(frozen=True, slots=True)
class Subject:
    """The plugin to be verified. `make` gives a new one, not opened, on a place that is new where it can be."""

    kind: type[Plugin]
    make: Callable[[Function], Plugin]
    patience: float = 1.0
    drain: bool = False


SUBJECT = pytest.StashKey[Subject]()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one rule: `verdict` is "held", "broken" or "not asked"; `read` says where the rule stands."""

    test: str
    rule: str
    verdict: str
    why: str
    read: str
    seconds: float
    capabilities: tuple[str, ...] = ()


def verify(
    subject: Subject, *, junit: Path | None = None, on_verdict: Callable[[Verdict], None] = lambda _: None
) -> Sequence[Verdict]:
    """Ask every rule of the subject; returns the verdicts in order, each also given to `on_verdict` as it comes.

    `junit` is a file to write as JUnit XML. Raises KeyboardInterrupt when interrupted.
    """
    reporter = _Reporter(subject, on_verdict)
    # Nothing of the user's own pytest settings and plugins, and no output: the caller shows the verdicts.
    arguments = [
        "--disable-plugin-autoload",
        "-p",
        "htcgrid_contracts.pytest_plugin",
        f"{VERIFIED}::{CLASSES[subject.kind]}",
        "-c",
        os.devnull,
        f"--rootdir={VERIFIED.parent}",
        "-p",
        "no:terminal",
    ]
    arguments += ["-p", "no:cacheprovider", "-p", "no:faulthandler", "--import-mode=importlib", "-o", "addopts="]
    if junit is not None:
        arguments.append(f"--junit-xml={junit}")
    status = pytest.main(arguments, plugins=[reporter])
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        message = f"pytest could not run the rules ({status!r}): {reporter.trouble or 'it gave no reason'}"
        raise RuntimeError(message)
    return reporter.verdicts


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


class _Reporter:
    """Turns pytest's reports into verdicts."""

    def __init__(self, subject: Subject, on_verdict: Callable[[Verdict], None]) -> None:
        self._subject = subject
        self._on_verdict = on_verdict
        self._rules: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.verdicts: list[Verdict] = []
        self.trouble = ""

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[SUBJECT] = self._subject

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            doc = getattr(getattr(item, "function", None), "__doc__", None) or ""
            marks = item.iter_markers("capability")
            self._rules[item.nodeid] = doc, tuple(str(name) for mark in marks for name in mark.args)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.trouble = str(excrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.trouble = report.longreprtext

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._add(report)

    def _add(self, report: pytest.TestReport) -> None:
        doc, names = self._rules[report.nodeid]
        test = report.nodeid.rpartition("::")[2] if "[" not in report.nodeid else _parametrised(report.nodeid)
        read = re.search(r"Read: (.*?)\.?\s*$", doc, re.DOTALL)
        why = doc.partition("Read:")[0].strip()
        if report.skipped:
            verdict, why = NOT_ASKED, _skip_reason(report)
        elif report.failed:
            verdict, why = BROKEN, _failure(report)
        else:
            verdict = HELD
        rule = test.removeprefix("test_").replace("_", " ", test.partition("[")[0].count("_"))
        found = Verdict(test, rule, verdict, why, read[1] if read else "", round(report.duration, 3), names)
        self.verdicts.append(found)
        self._on_verdict(found)


def _parametrised(nodeid: str) -> str:
    return nodeid[nodeid.index("::test_") + 2 :]


def _skip_reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ").removeprefix("not asked: ")


def _failure(report: pytest.TestReport) -> str:
    """What the rule says is wrong; the plugin's own traceback where it raised what it may not."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return report.longreprtext
    message: str = crash.message
    if message.startswith(("AssertionError: ", "Failed: ")):
        text = message.partition(": ")[2]
        # What pytest adds below is the expression, which says less than the words above it.
        return text.partition("\nassert ")[0]
    return f"{message}\n{report.longreprtext}"
