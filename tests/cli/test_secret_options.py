"""Commands with a plugin whose config holds secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SINK = """
from pydantic import BaseModel, Field, SecretStr
from htcgrid.builtin.jsonl_sink import JsonlSink

class Login(BaseModel):
    password: str = ""

class SecretSink(JsonlSink):
    class Config(JsonlSink.Config):
        url: SecretStr
        mirror: str = ""
        login: Login = Login()
        key: SecretStr = Field(SecretStr(""), alias="the-key")
        table: str = ""
"""
TABLE = """
[sink]
plugin = "vault"
path = "results.jsonl"
url = "postgresql://app:zecret77@db/grid"
mirror = "redis://:zecret78@cache"
the-key = "zecret79"
table = "answers"
"""


@pytest.mark.parametrize("command", [("run",), ("check",), ("status",), ("report",), ("failures",)])
def test_no_command_shows_a_secret_of_the_sink(command: tuple[str, ...], project: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "vault-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[htcgrid.result_sink]\nvault = vault:SecretSink\n")
    (site / "vault.py").write_text(SINK)
    config = project.folder / "htcgrid.toml"
    before, _, after = config.read_text().partition("[sink]")
    config.write_text(before + TABLE + after.partition("\n\n")[2])
    project.tasks({"n": 1})
    env = {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(site / "cache")}
    ran = project.htcgrid("run", env=env)
    assert (ran.status, ran.summary["results"]) == (0, "vault path=results.jsonl table=answers")
    done = project.htcgrid(*command, env=env)
    assert done.status == 0
    files = [each.read_bytes() for each in project.folder.rglob("*") if each.is_file() and each != config]
    printed = ran.out + ran.err + done.out + done.err + repr(files)
    assert "zecret" not in printed
