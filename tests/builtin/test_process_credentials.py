"""Credentials on the process plane: who sees them, and who does not."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from htcgrid_contracts.invoker_identity import IssuedCredentials
from htcgrid_contracts.packing import contract_function

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import CredentialSource, Lease, Outcome, Rejected, Task, Unavailable

NAME = f"process{uuid.uuid4().hex}"  # the conformance kit may run beside these tests
SECRET = f"of+{NAME}-".encode()


@pytest.fixture(params=["socket", "http"])
def plane(request: pytest.FixtureRequest) -> Iterator[ProcessInvoker]:
    invoker = ProcessInvoker(ProcessInvoker.Config(workers=1, transport=request.param), contract_function())
    invoker.credentials = IssuedCredentials(3600, NAME)
    with invoker:
        yield invoker


def called(plane: ProcessInvoker, do: str, **event: Any) -> Any:
    payload = json.dumps({"do": do, **event}).encode()
    [outcome] = plane.invoke([Lease(Task("t", payload))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is None, outcome
    return json.loads(outcome.payload)


def processes() -> dict[int, tuple[bytes, bytes]]:
    """The command line and the first environment of each process that this one may look at."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = ((folder / "cmdline").read_bytes(), (folder / "environ").read_bytes())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_a_handler_finds_them_and_no_other_process_does(plane: ProcessInvoker, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert called(plane, "identify", mark=str(mark))["keys"][0] == f"{NAME}-1"
    worker = int(mark.read_text())
    seen = processes()
    assert worker in seen
    assert [pid for pid, (command, _) in seen.items() if SECRET in command] == []
    assert [pid for pid, (_, variables) in seen.items() if SECRET in variables] in ([], [worker])


def test_an_environment_that_ended_is_replaced_by_one_that_has_them(plane: ProcessInvoker) -> None:
    [outcome] = plane.invoke([Lease(Task("t", b'{"do": "end", "at_once": true}'))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert SECRET not in outcome.payload + outcome.log_tail
    assert called(plane, "identify")["keys"][0] == f"{NAME}-1"


@pytest.mark.parametrize("error", [Rejected("no such role"), Unavailable("no answer")])
def test_a_plane_without_the_credentials_that_it_is_to_hand_out_starts_nothing(error: Exception) -> None:
    class Refuses(CredentialSource):
        def current(self, timeout: float) -> Any:
            raise error

    plane = ProcessInvoker(ProcessInvoker.Config(workers=1), contract_function())
    plane.credentials = Refuses()
    with pytest.raises(type(error), match=str(error)):
        plane.open()
    plane.close()
