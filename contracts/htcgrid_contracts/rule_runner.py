"""What is done where rules are tested: the time limit of each, and what is told of one that is broken, without secrets."""

import signal
import traceback
from collections.abc import Generator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

KIT = Path(__file__).parent
_FRAMES = 8
"""The most frames of a traceback that are shown."""
_MOST_OVERDUE = 3
_AGAIN_SECONDS = 5.0
"""After its deadline a rule is interrupted again every so many seconds until it ends, since its cleaning up may hang too."""


class RuleRunner:
    """A pytest plugin that ends each rule at its deadline, and puts the text of a broken one in words for the author."""

    def __init__(self, deadline: float, secrets: AbstractSet[str]) -> None:
        self._deadline = deadline
        self._secrets = secrets
        self._overdue = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None]:
        if self._overdue >= _MOST_OVERDUE:
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
    kit = [number for number, frame in enumerate(frames) if Path(frame.filename).parent == KIT]
    return traceback.format_list(frames[kit[-1] if kit else 0 :][-_FRAMES:])
