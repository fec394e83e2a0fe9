"""The verdict on each rule, in the order of the rules, in words for the author."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from htcgrid_contracts.rule_runner import KIT

HELD, BROKEN, NOT_ASKED = "held", "broken", "not asked"
NEEDS = re.compile(r"give |override |set `|configure |`lease_seconds` is \d")
"""How the reason begins where an author can do something to have the rule asked."""

_ENDED = (
    "the process that tested this rule ended in it: the plugin, or what it uses, called os._exit, sent a signal to its own "
    "process, or crashed"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one rule: `verdict` is "held", "broken" or "not asked"; `read` says where the rule is in the interface.

    `same_as` names an earlier rule that was broken by the same fault. `could_be_asked` says whether the author can have a
    rule asked that was not.
    """

    test: str
    rule: str
    verdict: str
    why: str
    read: str
    seconds: float
    capabilities: tuple[str, ...] = ()
    same_as: str = ""
    could_be_asked: bool = False


class Reporter:
    """A pytest plugin that turns reports into verdicts.

    `rules` has for each test of the kit what it requires and why, where it is in the interface, and the capabilities that
    it is about. Verdicts are given in the order of the rules, also where rules are tested at the same time.
    """

    def __init__(
        self, rules: Mapping[str, tuple[str, str, tuple[str, ...]]], on_verdict: Callable[[Verdict], None]
    ) -> None:
        self._rules = rules
        self._on_verdict = on_verdict
        self._faults: dict[str, str] = {}
        self._waiting: list[str] = []
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._ended: set[str] = set()
        self.verdicts: list[Verdict] = []
        self.error = ""
        self.unread: Exception | None = None
        """The error of `on_verdict`. It ends the run, since nobody reads the verdicts any more."""

    # --- hooks of pytest, and of pytest-xdist where rules are tested at the same time ---

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._expect(ids)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.error = str(excrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.error = report.longreprtext

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._reports.setdefault(report.nodeid, []).append(report)
        if report.when not in {"setup", "call", "teardown"}:  # pytest-xdist reports a process that ended so
            report.longrepr = _ENDED
            self._end(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._end(nodeid)

    # --- verdicts ---

    def _expect(self, tests: Sequence[str]) -> None:
        if not self._waiting:
            self._waiting = list(tests)

    def _end(self, nodeid: str) -> None:
        self._ended.add(nodeid)
        while self._waiting and self._waiting[0] in self._ended:
            for report in self._reports.pop(self._waiting.pop(0), ()):
                self._add(report)

    def _add(self, report: pytest.TestReport) -> None:
        test = report.nodeid.rpartition("::")[2] if "[" not in report.nodeid else _parametrised(report.nodeid)
        why, read, names = self._rules[test.partition("[")[0]]
        verdict, same_as = HELD, ""
        if report.skipped:
            verdict, why = NOT_ASKED, _skip_reason(report)
        elif report.failed:
            verdict, why = BROKEN, str(report.longrepr)
            same_as = self._faults.setdefault(_fault(why), rule_of(test))
            same_as = "" if same_as == rule_of(test) else same_as
        asked = verdict == NOT_ASKED and NEEDS.match(why) is not None
        seconds = round(report.duration, 3)
        found = Verdict(test, rule_of(test), verdict, why, read, seconds, names, same_as, asked)
        self.verdicts.append(found)
        try:
            self._on_verdict(found)
        except Exception as error:  # noqa: BLE001 - it is raised again by `verify`
            self.unread = error
            pytest.exit("The verdicts cannot be shown.")


def rule_of(test: str) -> str:
    """The name of a test as a sentence."""
    name, bracket, case = test.removeprefix("test_").partition("[")
    return name.replace("_", " ") + bracket + case


def where_to_read(doc: str) -> tuple[str, str]:
    """What a rule requires and why, and where it is in the interface."""
    why, _, read = " ".join(doc.split()).partition("Read: ")
    return why.rstrip(), read.removesuffix(".")


def _fault(why: str) -> str:
    """The text without numbers and without the kit's own frames, which is equal for two rules that one fault breaks."""
    of_the_kit = rf'  File "{re.escape(str(KIT))}/.*\n(?:    .*\n?)*'
    begun = re.sub(r"^[a-z ]+ had not ended after", "not ended after", re.sub(of_the_kit, "", why))
    return re.sub(r"[0-9a-f]{6,}|\d[\d.]*", "#", begun if begun.strip() else why)


def _parametrised(nodeid: str) -> str:
    return nodeid[nodeid.index("::test_") + 2 :]


def _skip_reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ").removeprefix("not asked: ")
