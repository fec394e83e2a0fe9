"""The verdict on each rule, in words for the author and without secrets; and the time limit of each."""

import re
import signal
import traceback
from collections.abc import Callable, Generator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

HELD, BROKEN, NOT_ASKED = "held", "broken", "not asked"
NEEDS = re.compile(r"give |override |set `|configure |`lease_seconds` is \d")
"""How the reason begins where an author can do something to have the rule asked."""

_KIT = Path(__file__).parent
_FRAMES = 8
"""The most frames of a traceback that are shown."""
_MOST_OVERDUE = 3
_AGAIN_SECONDS = 5.0
"""After its deadline a rule is interrupted again every so many seconds until it ends, since its cleaning up may hang too."""


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
    """Turns pytest's reports into verdicts, and ends a rule at its deadline."""

    def __init__(self, deadline: float, secrets: AbstractSet[str], on_verdict: Callable[[Verdict], None]) -> None:
        self._deadline = deadline
        self._secrets = secrets
        self._on_verdict = on_verdict
        self._rules: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._faults: dict[str, str] = {}
        self._overdue = 0
        self.verdicts: list[Verdict] = []
        self.error = ""
        self.unread: Exception | None = None
        """The error of `on_verdict`. It ends the run, since nobody reads the verdicts any more."""

    @property
    def has_stopped(self) -> bool:
        """Whether the rest was left out because several rules in a row took longer than their time limit."""
        return self._overdue >= _MOST_OVERDUE

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            doc = getattr(getattr(item, "function", None), "__doc__", None) or ""
            marks = item.iter_markers("capability")
            self._rules[item.nodeid] = doc, tuple(str(name) for mark in marks for name in mark.args)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.error = str(excrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.error = report.longreprtext

    # --- deadlines ---

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None]:
        if self.has_stopped:
            pytest.skip(f"not asked: {_MOST_OVERDUE} rules before it came to their deadline; mend those first")
        with self._in_time("making the plugin ready"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None]:
        with self._in_time("this rule"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None]:
        with self._in_time("closing the plugin"):
            return (yield)

    @contextmanager
    def _in_time(self, what: str) -> Iterator[None]:
        def interrupt(_number: int, frame: FrameType | None) -> None:
            self._overdue += not overdue
            overdue.append(True)
            stack = "".join(_frames(traceback.extract_stack(frame)))
            pytest.fail(
                f"{what} had not ended after {self._deadline:g} s (--deadline), and was in\n{stack.rstrip()}",
                pytrace=False,
            )

        overdue: list[bool] = []
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, self._deadline, _AGAIN_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    # --- verdicts ---

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed and call.excinfo is not None:
            told = _told(call.excinfo)
            shown = self._shown(told)  # for JUnit's file too
            report.longrepr = shown if shown == told else f"{shown}\n*** stands for a secret of the config"
            report.sections = [(name, self._shown(text)) for name, text in report.sections]
        return report

    def _shown(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._add(report)

    def _add(self, report: pytest.TestReport) -> None:
        doc, names = self._rules[report.nodeid]
        test = report.nodeid.rpartition("::")[2] if "[" not in report.nodeid else _parametrised(report.nodeid)
        why, read = where_to_read(doc)
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
    return test.removeprefix("test_").replace("_", " ", test.partition("[")[0].count("_"))


def where_to_read(doc: str) -> tuple[str, str]:
    """What a rule requires and why, and where it is in the interface."""
    why, _, read = " ".join(doc.split()).partition("Read: ")
    return why.rstrip(), read.removesuffix(".")


def _fault(why: str) -> str:
    """The text without numbers and without the kit's own frames, which is equal for two rules that one fault breaks."""
    of_the_kit = rf'  File "{re.escape(str(_KIT))}/.*\n(?:    .*\n?)*'
    begun = re.sub(r"^[a-z ]+ had not ended after", "not ended after", re.sub(of_the_kit, "", why))
    return re.sub(r"[0-9a-f]{6,}|\d[\d.]*", "#", begun if begun.strip() else why)


def _parametrised(nodeid: str) -> str:
    return nodeid[nodeid.index("::test_") + 2 :]


def _skip_reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ").removeprefix("not asked: ")


def _told(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """What is wrong, in the words of the rule; where the plugin raised a wrong error, its traceback without arguments."""
    error = caught.value
    if isinstance(error, AssertionError | pytest.fail.Exception):
        # What pytest adds below is the expression, which says less than the words above it.
        text = str(error).partition("\nassert ")[0]
        text = text.replace("DID NOT RAISE", "the call went through, and should have raised")
        return text if text and not text.startswith("assert ") else f"{text}\n{_place(error)}"
    return f"{type(error).__name__}: {error}\n{_place(error)}"


def _place(error: BaseException) -> str:
    return "".join(_frames(traceback.extract_tb(error.__traceback__))).rstrip()


def _frames(stack: traceback.StackSummary) -> list[str]:
    """The frames since the rule's call: files, lines and source text, without values."""
    frames = list(stack)
    kit = [number for number, frame in enumerate(frames) if Path(frame.filename).parent == _KIT]
    return traceback.format_list(frames[kit[-1] if kit else 0 :][-_FRAMES:])
