"""A handler with Powertools for AWS Lambda in a pod, as the role that is assumed for it outside the cluster."""

from __future__ import annotations

import json

import kubernetes_layered as layered
from orders_aws import orders_aws
from powertools import EXAMPLE, invoke, layer


def test_the_example_runs_in_a_pod(node_address: str, namespace: str, agent_image: str) -> None:
    image = layered.image_with_code("powertools", EXAMPLE, layer())
    plane = {"plugin": "eks", "namespace": namespace, "image": image, "agent_image": agent_image, "code": "image"}
    options = [part for key, value in plane.items() for part in ("--set", f'planes.cluster.{key}="{value}"')]
    with orders_aws(node_address) as aws:
        done = invoke(aws.url, "--plane", "cluster", "--set", "function.layers=[]", *options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"batchItemFailures": [{"itemIdentifier": "3"}]}
        [stored] = aws.items()
    assert json.loads(stored["data"]["S"]) == {"id": "a", "charged": 3}
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert "a" in [line.get("order") for line in said]
