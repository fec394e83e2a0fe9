from typing import Any

import pytest
from htcgrid.spi import Function
from pydantic import ValidationError

from htcgrid_eks.options import Options

BAD: list[tuple[str, Any]] = [
    ("image", ""),
    ("image", "-privileged"),
    ("image", "a b"),
    ("image", "a\0"),
    ("agent_image", ""),
    ("namespace", "Grid"),
    ("namespace", "../kube-system"),
    ("namespace", "a" * 64),
    ("name", "UPPER"),
    ("context", "a\0b"),
    ("pods", 0),
    ("pods", -1),
    ("pods", 10**30),
    ("containers", 33),
    ("start_seconds", float("inf")),
    ("start_seconds", float("nan")),
    ("start_seconds", 1e300),
    ("orphan_seconds", float("inf")),
    ("agent_memory", 2**70),
    ("cpu", "fast"),
    ("cpu", "-1"),
    ("cpu", "0"),
    ("agent_cpu", ""),
    ("user", 0),
    ("user", 2**31),
    ("command", ["a\0"]),
    ("pull_secrets", ["Not A Name"]),
    ("variables", ["a/b"]),
    ("layers", ["s3://bucket/layer.zip"]),
    ("node_selector", {"a b": "c"}),
    ("node_selector", {"a": "c d"}),
    ("annotations", {"": "c"}),
    ("annotations", {"a": "x" * 300_000}),
    ("tolerations", [{"kye": "spot"}]),
    ("tolerations", [{"key": "spot", "effect": "Never"}]),
    ("min_available", "half"),
    ("min_available", "-1"),
    ("min_available", "101%"),
    ("role_arn", "admin"),
    ("code", "s3://bucket"),
    ("autoscale", {"min": 5, "max": 1}),
    ("autoscale", {"max": 10**12}),
    ("kubeconfig", "a\0"),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda value: str(value)[:40].replace("\0", "NUL"))
def test_what_kubernetes_would_not_take_is_refused_with_the_key(key: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"image": "pricing:1", key: value})
    assert {str(error["loc"][0]) for error in caught.value.errors()} == {key}


def test_what_kubernetes_takes_is_taken() -> None:
    Options.model_validate(
        {
            "image": "123.dkr.ecr.eu-west-1.amazonaws.com/team/pricing@sha256:" + "0" * 64,
            "namespace": "grid-1",
            "cpu": "0.5",
            "agent_cpu": "250m",
            "pull_secrets": ["registry.example.com"],
            "node_selector": {"kubernetes.io/arch": "arm64", "pool": ""},
            "annotations": {"example.com/note": "any text: {}\n"},
            "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
            "min_available": "2",
            "role_arn": "arn:aws-cn:iam::123456789012:role/path/grid",
            "autoscale": {"min": 1, "max": 1, "by": "cpu"},
        }
    )


def test_layers_that_are_not_on_s3_say_where_they_belong() -> None:
    with pytest.raises(ValidationError, match=r"'layer': write \"s3://bucket/key.zip\". Layers that are folders here"):
        Options.model_validate({"image": "i", "code": "s3://bucket/code.zip", "layers": ["layer"]})


def test_two_functions_with_long_names_do_not_share_their_objects() -> None:
    options = Options.model_validate({"image": "i"})
    names = [options.base_name(Function(name="a" * 55 + end)) for end in ("", "1", "2")]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 48
    assert options.base_name(Function(name="Price_v1")) == "htcgrid-price-v1"
