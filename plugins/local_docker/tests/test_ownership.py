"""Whose a container is, and whether its agent is alive."""

import os
import subprocess
import sys

import pytest
from htcgrid.spi import Function

from htcgrid_local_docker import ownership


def test_this_process_owns_what_it_makes() -> None:
    assert not ownership.is_left_behind(ownership.labels(Function())[ownership.OWNER])


def test_what_a_dead_process_made_is_left_behind() -> None:
    script = (
        "from htcgrid_local_docker import ownership; from htcgrid.spi import Function;"
        "print(ownership.labels(Function())[ownership.OWNER])"
    )
    owner = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert ownership.is_left_behind(owner)


def test_what_a_process_owns_that_this_user_may_not_see_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc may be mounted with hidepid, which hides the processes of other users."""
    machine, boot, namespace, pid, start = ownership.labels(Function())[ownership.OWNER].split("/")
    read = ownership._read
    monkeypatch.setattr(ownership, "_read", lambda path: "" if path.parts[1:3] == ("proc", "1") else read(path))

    def kill(_pid: int, _signal: int) -> None:
        raise PermissionError

    assert ownership.is_left_behind(f"{machine}/{boot}/{namespace}/{2**22 + 1}/1")
    monkeypatch.setattr(os, "kill", kill)
    assert not ownership.is_left_behind(f"{machine}/{boot}/{namespace}/1/{start}")
    assert ownership.is_left_behind(f"{machine}/{boot}/{namespace}/{pid}/1{start}")


def test_what_was_made_before_the_machine_started_again_is_left_behind() -> None:
    machine, _, *rest = ownership.labels(Function())[ownership.OWNER].split("/")
    assert ownership.is_left_behind("/".join([machine, "another-boot", *rest]))


@pytest.mark.parametrize("owner", ["", "nonsense", "/boot/ns/1/1", "elsewhere/boot/ns/1/1"])
def test_what_cannot_be_told_is_left_alone(owner: str) -> None:
    assert not ownership.is_left_behind(owner)


def test_a_process_of_another_container_is_not_judged() -> None:
    machine, boot, _, pid, _ = ownership.labels(Function())[ownership.OWNER].split("/")
    assert not ownership.is_left_behind(f"{machine}/{boot}/pid:[1]/{pid}/1")
