from typing import Any

import pytest
from htcgrid.spi import Function, Rejected
from pydantic import ValidationError

from htcgrid_aws_lambda.desired import desired
from htcgrid_aws_lambda.lambda_options import Options

BAD: list[tuple[str, Any]] = [
    ("region", "Ireland"),
    ("region", "eu-west-1.evil.example/"),
    ("profile", "a\0"),
    ("endpoint_url", "localhost:5000"),
    ("endpoint_url", "http://me:hunter2secret@host"),
    ("qualifier", "a b"),
    ("concurrency", 0),
    ("concurrency", 10**30),
    ("role", "admin"),
    ("image", "a b"),
    ("bucket", "No"),
    ("bucket", "a/../b"),
    ("layers", ["pandas"]),
    ("layers", ["arn:aws:lambda:eu-west-1:1:layer:x:1"] * 6),
    ("reserved_concurrency", -1),
    ("reserved_concurrency", 10**30),
    ("tags", {"aws:x": "y"}),
    ("tags", {"x": "y" * 257}),
    ("tags", {str(n): "" for n in range(60)}),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda value: str(value)[:40].replace("\0", "NUL"))
def test_what_aws_would_not_take_is_refused_with_the_key(key: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate({key: value})
    assert {str(error["loc"][0]) for error in caught.value.errors()} == {key}


def test_what_aws_lambda_cannot_have_is_listed_as_changes_of_the_config() -> None:
    function = Function(handler="pricing.handler", timeout=0.5, memory=64)
    with pytest.raises(Rejected) as caught:
        desired(function, Options(), "")
    assert str(caught.value).splitlines() == [
        "This function does not fit AWS Lambda's limits. Change in the config file:",
        "  [function] timeout = 0.5: whole seconds from 1 to 900",
        "  [function] memory = 64: 128 to 10240 MB",
    ]
