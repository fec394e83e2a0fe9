"""Who each container of a standing grid is for AWS, as its own SDK finds: the handler has its role, the agent another.

The cluster of these tests has no webhook of EKS, so the tests give the agent what that would; the handler's part is ours.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_layered as layered
import pytest
import redis
from kubernetes_commands import Kubectl, went_well
from kubernetes_grid import CONFIG, result, submit, until
from moto_aws import empty_aws
from powertools import layer

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAM, NUMBER = "roles", 7_016  # other grids' results are in the same Redis
TOKEN = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
AGENT_ROLE, HANDLER_ROLE = (f"arn:aws:iam::123456789012:role/{name}" for name in ("agent", "pricing"))
LOOK = """
import boto3

def who():
    session = boto3.Session()
    return {"arn": session.client("sts").get_caller_identity()["Arn"], "how": session.get_credentials().method}
"""
HANDLER = f"{LOOK}\ndef handler(event, context):\n    return who()\n"
WEBHOOK: dict[str, Any] = {
    "env": [
        {"name": "AWS_ROLE_ARN", "value": AGENT_ROLE},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": f"{TOKEN}/token"},
        *({"name": name, "value": "eu-west-1"} for name in ("AWS_REGION", "AWS_DEFAULT_REGION")),
    ],
    "volumeMounts": [{"name": "aws-iam-token", "mountPath": TOKEN, "readOnly": True}],
}
"""What EKS's webhook adds to the containers that it does not skip."""
VOLUME = {
    "name": "aws-iam-token",
    "projected": {"sources": [{"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}}]},
}


@pytest.fixture
def aws(node: str) -> Iterator[str]:
    with empty_aws(node) as url:
        yield url


@pytest.fixture
def config(tmp_path: Path, redis_url: str, namespace: str, agent_image: str, aws: str) -> Path:
    (tmp_path / "squares.py").write_text(HANDLER)
    image = layered.image_with_code("roles", tmp_path, layer())
    text = CONFIG.format(url=redis_url, stream=STREAM, namespace=namespace, lambda_image=image, agent_image=agent_image)
    text = text.replace("timeout = 20", f'timeout = 20\nendpoint_url = "{aws}"\nregion = "eu-west-1"')
    role = f'code = "image"\nfunction_role_arn = "{HANDLER_ROLE}"\nrole_arn = "{AGENT_ROLE}"\n'
    (tmp_path / "htcgrid.toml").write_text(text.replace("memory = 128", "memory = 256") + role)
    return tmp_path / "htcgrid.toml"


def test_the_handler_is_its_role_and_the_agent_another(
    config: Path, kubectl: Kubectl, redis_url: str, aws: str
) -> None:
    went_well("deploy", "-c", str(config))
    with redis.Redis.from_url(redis_url) as queue:
        submit(queue, STREAM, [{"number": NUMBER}])
        until(lambda: result(queue, NUMBER) is not None, 120, "the result")
        about, answer = result(queue, NUMBER) or ({}, {})
    assert about["outcome"]["failure"] is None, about
    assert isinstance(answer, dict)
    assert answer["how"] == "assume-role-with-web-identity"
    assert re.fullmatch(r"arn:aws:sts::123456789012:assumed-role/pricing/.+", answer["arn"])
    kubectl("patch", "deployment", "htcgrid-squares", "-p", json.dumps(as_the_webhook_would(aws)))
    kubectl("rollout", "status", "deployment/htcgrid-squares", "--timeout=120s")
    look = ("python3", "-c", f"{LOOK}\nimport json; print(json.dumps(who()))")
    found = json.loads(kubectl("exec", "deployment/htcgrid-squares", "-c", "agent", "--", *look))
    assert found["how"] == "assume-role-with-web-identity"
    assert re.fullmatch(r"arn:aws:sts::123456789012:assumed-role/agent/.+", found["arn"])
    env = (
        "import os; print([name for name in os.environ if 'ROLE' in name], os.path.exists('/var/run/secrets/htcgrid'))"
    )
    shown = kubectl("exec", "deployment/htcgrid-squares", "-c", "agent", "--", "python3", "-c", env)
    assert shown.strip() == "['AWS_ROLE_ARN'] False", "the agent has the handler's token"
    there = kubectl("exec", "deployment/htcgrid-squares", "-c", "lambda-0", "--", "ls", TOKEN, check=False)
    assert there == "", "the handler has the agent's token"
    went_well("undeploy", "-c", str(config))


def as_the_webhook_would(aws: str) -> dict[str, object]:
    """It passes over the containers that the annotation names. The endpoint is moto's."""
    agent = {"name": "agent", **WEBHOOK, "env": [*WEBHOOK["env"], {"name": "AWS_ENDPOINT_URL", "value": aws}]}
    return {"spec": {"template": {"spec": {"volumes": [VOLUME], "containers": [agent]}}}}
