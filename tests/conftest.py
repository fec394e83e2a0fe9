"""What all tests of the core share: the parts that are not ours, and the rule that CI goes without none."""

import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

PARTS = Path(__file__).parent / "parts"

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


# A busy machine is no bug: an example may take its time.
settings.register_profile("grid", deadline=None)
settings.load_profile("grid")


# Started in the background by a script, pytest ignores Ctrl-C, and so would every program that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the same under nohup


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-parts", action="store_true", help="a test that is skipped fails: all parts must be here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _strict(item.config, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _strict(collector.config, (yield))


def _strict(config: pytest.Config, report: R) -> R:
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("--strict-parts"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if "not asked: " in reason:
            return report  # a rule of the contracts that does not concern this plugin
        report.outcome = "failed"
        report.longrepr = f"--strict-parts: {reason}"
    return report


def part(name: str, *arguments: str) -> Path:
    """The path that a script of `parts` prints; skips the test, with its reason, where it has none."""
    script = [sys.executable, str(PARTS / f"{name}.py"), *arguments]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def rie() -> Path:
    """AWS's Runtime Interface Emulator."""
    return part("rie")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """A `node_modules` with AWS's runtime client for Node; building it is left to who runs the tests."""
    return part("node", "--cached")
