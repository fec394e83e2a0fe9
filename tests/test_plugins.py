"""Plugins found by entry point, from real distributions in a folder on the path of a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
from htcgrid.spi import TaskSource

class Source(TaskSource):
    def receive(self, max_tasks, wait):
        return []
    def ack(self, leases):
        pass
    def __len__(self):
        return 0
"""

SCRIPT = """
import sys
from htcgrid.plugins import installed, load
from htcgrid.spi import Function, Invoker, Rejected, ResultSink, TaskSource
kind = {"source": TaskSource, "sink": ResultSink, "plane": Invoker}[sys.argv[1]]
try:
    plugin = load(kind, sys.argv[2])
except Rejected as error:
    print(error)
    sys.exit(2)
print(plugin, type(plugin(plugin.Config(), Function())).__name__)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def install(site: Path, code: str, points: str, distribution: str = "third-party", module: str = "third") -> None:
    info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
    (site / f"{module}.py").write_text(code)


def load(site: Path, name: str, kind: str = "source") -> tuple[int, str]:
    # stevedore keeps a cache of entry points on disk; one for each test.
    env = os.environ | {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(site / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, name], env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_a_plugin_of_another_distribution_is_the_class_its_entry_point_names_though_it_is_falsy(site: Path) -> None:
    install(site, GOOD, "[htcgrid.task_source]\nmine = third:Source\n")
    assert load(site, "mine") == (0, "<class 'third.Source'> Source")


def test_an_unknown_name_lists_what_is_installed(site: Path) -> None:
    install(site, GOOD, "[htcgrid.task_source]\nmine = third:Source\n")
    status, said = load(site, "mien")
    assert status == 2
    assert said.startswith("There is no task source named 'mien'. Installed: ")
    assert {"jsonl", "memory", "mine", "sqlite"} <= set(said.removesuffix(".").partition("Installed: ")[2].split(", "))


@pytest.mark.parametrize(
    ("kind", "name", "package"),
    [
        ("plane", "local_docker", "htcgrid-local-docker"),
        ("plane", "eks", "htcgrid-eks"),
        ("plane", "aws_lambda", "htcgrid-aws-lambda"),
        ("source", "sqs", "htcgrid-aws"),
        ("sink", "dynamodb", "htcgrid-aws"),
        ("observer", "prometheus", "htcgrid-prometheus"),
        ("observer", "otel", "htcgrid-otel"),
    ],
)
def test_an_unknown_name_of_ours_says_what_to_install(
    kind: str, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from htcgrid import plugins  # noqa: PLC0415
    from htcgrid.spi import Invoker, Observer, ResultSink, TaskSource  # noqa: PLC0415

    monkeypatch.setattr(plugins, "installed", lambda _kind=None: [])
    base = {"plane": Invoker, "source": TaskSource, "sink": ResultSink, "observer": Observer}[kind]
    assert plugins._unknown(base, name).endswith(f"Installed: none. To install it: pip install {package}")


def test_two_plugins_of_one_name_are_both_named(site: Path) -> None:
    install(site, GOOD, "[htcgrid.task_source]\nmine = third:Source\n")
    install(site, GOOD, "[htcgrid.task_source]\nmine = fourth:Source\n", "fourth-party", "fourth")
    status, said = load(site, "mine")
    assert status == 2
    assert "The name 'mine' of a task source is taken twice: " in said
    assert "third-party (third:Source)" in said
    assert "fourth-party (fourth:Source)" in said
    assert "Uninstall one of them." in said


def test_one_name_in_two_groups_is_no_clash(site: Path) -> None:
    code = GOOD + "from htcgrid.spi import ResultSink\nclass Sink(ResultSink):\n    def put(self, results): pass\n"
    install(site, code, "[htcgrid.task_source]\nmine = third:Source\n[htcgrid.result_sink]\nmine = third:Sink\n")
    assert load(site, "mine")[0] == 0
    assert load(site, "mine", "sink") == (0, "<class 'third.Sink'> Sink")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import some_sdk_that_is_missing", ["No module named 'some_sdk_that_is_missing'"]),
        ("def broken(:", ["SyntaxError", "third.py"]),
        (
            "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise OSError('no licence') from e",
            ["ZeroDivisionError", "OSError: no licence", "third.py"],
        ),
        ("class Other: pass", ["AttributeError", "Source"]),
    ],
    ids=["import", "syntax", "chain", "name"],
)
def test_an_import_that_fails_is_shown_with_its_whole_cause(site: Path, code: str, said: list[str]) -> None:
    install(site, code, "[htcgrid.task_source]\nmine = third:Source\n")
    status, text = load(site, "mine")
    assert status == 2
    assert text.startswith("The task source 'mine' (third:Source) cannot be imported:\n")
    for words in said:
        assert words in text


def test_a_broken_plugin_harms_no_other(site: Path) -> None:
    install(site, "1 / 0", "[htcgrid.task_source]\nmine = third:Source\n")
    assert load(site, "memory")[0] == 0


BAD = {
    "another version of the interface": (
        GOOD.replace("(TaskSource):", "(TaskSource):\n    spi = 99"),
        "The task source 'mine' is for version 99 of the plugin interface, and this htcgrid has version 1.",
    ),
    "a method missing": (
        "from htcgrid.spi import TaskSource\nclass Source(TaskSource):\n    def ack(self, leases): pass\n",
        "The task source 'mine' lacks receive; see htcgrid/spi/interfaces.py for what each must do.",
    ),
    "the wrong kind": (
        "from htcgrid.spi import ResultSink\nclass Source(ResultSink):\n    def put(self, results): pass\n",
        "its entry point must name a subclass of htcgrid.spi.TaskSource.",
    ),
    "no class": ("Source = 'a text'", "its entry point must name a subclass of htcgrid.spi.TaskSource."),
    "a Config that is none": (
        GOOD.replace("(TaskSource):", "(TaskSource):\n    Config = dict"),
        "The task source 'mine' has a Config that is not a pydantic model.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_plugin_is_refused_that_has(site: Path, case: str) -> None:
    code, said = BAD[case]
    install(site, code, "[htcgrid.task_source]\nmine = third:Source\n")
    status, text = load(site, "mine")
    assert status == 2
    assert said in text
