"""The AWS region and the endpoint that a handler finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project

HANDLER = """
import os

def handler(event, context):
    names = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")
    return [*map(os.environ.get, names), context.invoked_function_arn.split(":")[3]]
"""
NONE = {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}


@pytest.fixture
def found(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    (project.folder / "where.py").write_text(HANDLER)
    return project


def answer(project: Project, *options: str, env: dict[str, str]) -> list[str | None]:
    done = project.htcgrid("invoke", "{}", "--set", "function.handler=where.handler", *options, env={**NONE, **env})
    value: list[str | None] = json.loads(done.out)
    return value


@pytest.mark.parametrize("transport", ["socket", "http"])
@pytest.mark.parametrize(
    ("options", "env", "region"),
    [
        ([], {}, "us-east-1"),
        ([], {"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ([], {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-north-1"}, "eu-north-1"),
        (["--set", "function.region=ap-south-1"], {"AWS_REGION": "eu-north-1"}, "ap-south-1"),
    ],
)
def test_the_region_is_the_functions_then_this_shells_and_the_arn_agrees(
    found: Project, transport: str, options: list[str], env: dict[str, str], region: str
) -> None:
    options = [*options, "--set", f"planes.local.transport={transport}"]
    assert answer(found, *options, env=env) == [region, region, None, region]


def test_the_endpoint_reaches_the_sdk_of_the_handler(found: Project) -> None:
    url = "http://127.0.0.1:4566"
    assert answer(found, "--set", f"function.endpoint_url={url}", env={})[2] == url


def test_a_plane_that_has_a_region_of_its_own_comes_before_this_shell(found: Project) -> None:
    options = ["--plane", "lam", "--set", "planes.lam.plugin=aws_lambda", "--set", "planes.lam.region=eu-north-1"]
    env = {**NONE, "AWS_REGION": "eu-west-3"}
    assert "the AWS region eu-north-1: [planes.lam] region" in found.htcgrid("check", *options, env=env).out
    options += ["--set", "function.region=ap-south-1"]
    assert "the AWS region ap-south-1: [function] region" in found.htcgrid("check", *options, env=env).out


def test_check_says_which_region_and_why(found: Project) -> None:
    assert "the AWS region eu-west-3: AWS_REGION" in found.htcgrid("check", env={**NONE, "AWS_REGION": "eu-west-3"}).out
    assert "the AWS region us-east-1: neither" in found.htcgrid("check", env=NONE).out


def test_a_region_that_cannot_be_one_is_refused_with_the_place(found: Project) -> None:
    done = found.htcgrid("invoke", "{}", env={**NONE, "AWS_REGION": "Frankfurt am Main"})
    assert done.status == 2
    assert "AWS_REGION = 'Frankfurt am Main': this is not an AWS region" in done.err
