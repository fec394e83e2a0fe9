"""Every key of every table with everything that a user may write: refused with a sentence, or it works."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import odd_values
import pytest

from htcgrid import config
from htcgrid.agent.options import AgentOptions
from htcgrid.spi import Function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Done, Project


def keys() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every key of the core's own tables, and of the plugins that it brings."""
    for key in config.Settings.model_fields:
        yield "", {}, key
    for key in Function.model_fields:
        yield "function", {"handler": "job.handler"}, key
        yield "functions.other", {"handler": "job.handler"}, key
    for key in AgentOptions.model_fields:
        yield "agent", {}, key
    yield from odd_values.keys_of("htcgrid")


@pytest.mark.parametrize(("table", "beside", "key"), list(keys()), ids=lambda part: str(part)[:30])
def test_every_key_takes_or_refuses_with_a_sentence(
    table: str, beside: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd_values.check(table, beside, key)


NUMBERS: dict[str, list[Any]] = {
    "function.timeout": [1e-300, 2_592_000, "5"],
    "function.memory": [512, 16_777_216],
    "function.ephemeral_storage": [1, 16_777_216],
    "agent.grace": [0, 31_536_000],
    "agent.unavailable_limit": [0, 31_536_000],
    "agent.init_errors_limit": [1, 1_000_000],
    "agent.linger": [0, 60],
    "agent.attempts.exit": [1, 1_000_000],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in NUMBERS.items() for value in values])
def test_a_task_runs_with_the_smallest_and_the_largest_value(
    project: Project, inside: Callable[..., Done], key: str, value: object
) -> None:
    project.tasks({"x": 1})
    done = inside("run", "--plane", "single", "--set", f"{key}={value}")
    assert "Traceback" not in done.err
    [result] = project.results()
    assert result["status"] == "succeeded" or result["failure"] == "timeout", done.err


TEXT = {
    "function.name": "n\n\x1b[31m💥",
    "function.handler": "job.handler",
    "function.code": "a folder with spaces é",
    "function.architecture": "riscv",
    "function.environment": '{"a b" = "1", "é" = "\\n💥"}',
    "source.path": "tâches\n.jsonl",
    "sink.path": "résultats\n.jsonl",
    "planes.single.inherit": '["", "NOT THERE", "=", "é"]',
}


@pytest.mark.parametrize("key", TEXT)
def test_a_task_runs_with_odd_names(project: Project, inside: Callable[..., Done], key: str) -> None:
    project.tasks({"x": 1})
    folder = project.folder / TEXT["function.code"]
    folder.mkdir()
    (folder / "job.py").write_text((project.folder / "job.py").read_text())
    (project.folder / TEXT["source.path"]).write_text("1\n")
    done = inside("run", "--plane", "single", "--set", f"{key}={TEXT[key]}")
    assert (done.status, done.summary["succeeded"]) == (0, 1), done.err
