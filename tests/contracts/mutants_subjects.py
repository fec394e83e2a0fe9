"""Which plugins are mutated, what is run over them, and how a bug is put into one."""

from __future__ import annotations

import importlib.util
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

BUILTIN = "tests/contracts/test_builtin.py"
AWS = "plugins/aws/tests/test_contract.py"
REDIS = "examples/plugins/redis/tests/test_contract.py"


@dataclass(frozen=True)
class Subject:
    """A plugin: `package` is what is copied, `file` holds the class `name`, `tests` are its contracts."""

    package: str
    file: str
    name: str
    tests: tuple[str, ...]
    seconds: float
    """About what the contract takes where no rule is broken."""
    needs: str = ""
    """A module or a program without which it is left out."""
    deadline: int = 60
    """Seconds for one rule."""
    most_seconds: int = 300

    def is_possible(self) -> bool:
        return (
            not self.needs or shutil.which(self.needs) is not None or importlib.util.find_spec(self.needs) is not None
        )

    def settings(self, root: Path) -> Path:
        """The settings of pytest that its tests are written for."""
        return root / "pyproject.toml"


def _builtin(file: str, name: str, seconds: float) -> Subject:
    return Subject("htcgrid", f"htcgrid/builtin/{file}.py", name, (f"{BUILTIN}::Test{name}",), seconds)


def _aws(file: str, name: str, test: str, seconds: float) -> Subject:
    path = f"plugins/aws/htcgrid_aws/{file}.py"
    return Subject("plugins/aws/htcgrid_aws", path, name, (f"{AWS}::{test}",), seconds, "moto")


def _redis(file: str, name: str, seconds: float) -> Subject:
    path = f"examples/plugins/redis/htcgrid_redis/{file}.py"
    return Subject(
        "examples/plugins/redis/htcgrid_redis", path, name, (f"{REDIS}::Test{name}",), seconds, "redis-server"
    )


SUBJECTS: Mapping[str, Subject] = {
    "memory source": Subject(
        "htcgrid",
        "htcgrid/builtin/memory.py",
        "MemorySource",
        (f"{BUILTIN}::TestMemorySource", "tests/contracts/endless_memory.py::TestEndlessMemorySource"),
        35,
    ),
    "sqlite source": replace(
        _builtin("sqlite_source", "SqliteSource", 30),
        tests=(f"{BUILTIN}::TestSqliteSource", f"{BUILTIN}::TestSqliteSourceThatEnds"),
    ),
    "jsonl source": _builtin("jsonl_source", "JsonlSource", 10),
    "memory sink": _builtin("memory", "MemorySink", 3),
    "sqlite sink": _builtin("sqlite_sink", "SqliteSink", 5),
    "jsonl sink": _builtin("jsonl_sink", "JsonlSink", 4),
    "process": _builtin("process", "ProcessInvoker", 60),
    "sqs": _aws("sqs", "SqsSource", "TestSqsWithTaskTable", 120),
    "dynamodb": _aws("dynamodb", "DynamodbSink", "TestDynamodbFirstStays", 30),
    "s3": _aws("s3", "S3Sink", "TestS3", 30),
    "redis source": _redis("source", "RedisSource", 60),
    "redis sink": _redis("sink", "RedisSink", 10),
}


@dataclass(frozen=True)
class Mutant:
    """A bug. `body` is that of a subclass which takes the place of the plugin's class, `edits` are texts to be replaced:
    file, before, after."""

    plugin: str
    kind: str
    name: str
    body: str = ""
    edits: tuple[tuple[str, str, str], ...] = ()


_HEAD = """

import json, re, threading, time, unicodedata
from dataclasses import replace
from htcgrid.spi import *
from htcgrid.spi import FailureKind, Unavailable, Rejected, Outcome, Unstarted, Task, Lease, States, QueueStats, StoreStats


def _outcome(result, **changes):
    return replace(result, outcome=replace(result.outcome, **changes))


"""


def bug(kind: str, name: str, body: str, plugin: str = "sqlite source") -> Mutant:
    return Mutant(plugin, kind, name, body)


def sink_bug(kind: str, name: str, body: str, plugin: str = "sqlite sink") -> Mutant:
    return Mutant(plugin, kind, name, body)


def plane_bug(kind: str, name: str, body: str) -> Mutant:
    return Mutant("process", kind, name, body)


def report_bug(kind: str, name: str, expression: str) -> Mutant:
    """Each outcome of the process plane is changed."""
    body = f"""
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                yield ({expression}) if isinstance(report, Outcome) else report
    """
    return plane_bug(kind, name, body)


def mutated(mutant: Mutant, subject: Subject, root: Path) -> Mapping[str, str]:
    """The files that the bug changes, with their new texts."""
    texts: dict[str, str] = {}
    for file, before, after in mutant.edits:
        text = texts.get(file) or (root / file).read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise SystemExit(
                f"{mutant.plugin}: {mutant.name}: {file} has {text.count(before)} times {before!r}; 1 expected"
            )
        texts[file] = text.replace(before, after)
    if mutant.body:
        text = texts.get(subject.file) or (root / subject.file).read_text(encoding="utf-8")
        body = textwrap.indent(textwrap.dedent(mutant.body).strip(), "    ")
        name = subject.name
        texts[subject.file] = (
            f"{text}{_HEAD}class _Mutated({name}):\n{body}\n\n\n_Mutated.__name__ = {name!r}\n{name} = _Mutated\n"
        )
    return texts
