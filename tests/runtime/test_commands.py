"""What the process plane says of functions that it cannot run."""

import os
from pathlib import Path
from typing import Any

import pytest

from htcgrid.builtin import process_command
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime.variables import this_python
from htcgrid.spi import Function, Lease, Outcome, Rejected, Task


def refusal(code: Path, transport: str | None = None, **function: Any) -> str:
    config = ProcessInvoker.Config(workers=1, transport=transport)
    with pytest.raises(Rejected) as refused, ProcessInvoker(config, Function(code=code, **function)):
        pass
    return str(refused.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "nowhere", handler="a.b")


def test_no_handler(tmp_path: Path) -> None:
    assert "handler is missing" in refusal(tmp_path)


def test_another_python(tmp_path: Path) -> None:
    text = refusal(tmp_path, handler="a.b", runtime="python2.7")
    assert "python2.7" in text
    assert this_python() in text


@pytest.mark.parametrize("runtime", ["java21", "ruby3.3", "dotnet8", "go1.x"])
def test_a_runtime_it_has_no_client_for_asks_for_a_command(tmp_path: Path, runtime: str) -> None:
    text = refusal(tmp_path, handler="a.b", runtime=runtime)
    assert runtime in text
    assert "command = [" in text


def test_node_without_its_client_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm install aws-lambda-ric" in refusal(tmp_path, handler="index.handler", runtime="nodejs20.x")


def test_node_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no `node` on the PATH" in refusal(tmp_path, handler="index.handler", runtime="nodejs20.x")


def test_provided_without_a_bootstrap(tmp_path: Path) -> None:
    assert "`bootstrap`" in refusal(tmp_path, runtime="provided.al2023")


def test_provided_runs_a_bootstrap_sh_where_there_is_no_bootstrap(tmp_path: Path) -> None:
    program = tmp_path / "bootstrap.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    function = Function(code=tmp_path, runtime="provided.al2", handler="bootstrap.main")
    assert process_command.command(function) == [str(program)]


def test_a_bootstrap_that_may_not_be_executed(tmp_path: Path) -> None:
    (tmp_path / "bootstrap").write_text("#!/bin/sh\n")
    assert "chmod +x" in refusal(tmp_path, runtime="provided")


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    assert "on the PATH" in refusal(tmp_path, command=("no-such-program",))
    assert os.fspath(tmp_path / "run") in refusal(tmp_path, command=("./run",))


def test_the_longest_command_that_a_config_may_have_is_run(tmp_path: Path) -> None:
    script = "exit 3 # "
    function = Function(code=tmp_path, command=("sh", "-c", script + "\x01" * (32_700 - len(script))))
    with ProcessInvoker(ProcessInvoker.Config(workers=1), function) as plane:
        [outcome] = plane.invoke([Lease(Task("a", b"1"))], 20)
    assert isinstance(outcome, Outcome)
    assert b"exit status 3" in outcome.payload


def test_the_socket_for_another_language(tmp_path: Path) -> None:
    assert 'transport = "http"' in refusal(tmp_path, "socket", command=("sh",))


def test_an_emulator_that_is_not_there(tmp_path: Path) -> None:
    assert "aws-lambda-rie" in refusal(tmp_path, "rie", handler="a.b")
