"""The plane's keys in the config file."""

import re
from collections.abc import Mapping

from htcgrid_aws.session import SessionConfig
from pydantic import Field, ValidationInfo, field_validator

_FORMS = {
    "region": (re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+"), 'a region, as in "eu-west-1"'),
    "endpoint_url": (
        re.compile(r"https?://[^\s/@]+(/\S*)?"),
        'an address without a password, as in "http://localhost:5000"',
    ),
    "qualifier": (
        re.compile(r"\$LATEST|[-a-zA-Z0-9_]{1,128}"),
        'an alias of letters, digits, - and _, a version, or "$LATEST"',
    ),
    "role": (
        re.compile(r"arn:aws[-a-z]*:iam::[0-9]+:role/[-\w+=,.@/]+", re.ASCII),
        'the ARN of a role, as in "arn:aws:iam::123456789012:role/grid"',
    ),
    "image": (
        re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9._/:@]*"),
        'the URI of an image, as in "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pricing:1"',
    ),
    "bucket": (
        re.compile(r"[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]"),
        "a bucket: 3 to 63 lower-case letters, digits, - and .",
    ),
}
_LAYER = re.compile(r"arn:aws[-a-z]*:lambda:[-a-z0-9]+:[0-9]+:layer:[-a-zA-Z0-9_]+:[0-9]+")
_TAGS = 49  # AWS has 50 on a function; one of them is ours


class Options(SessionConfig):
    """`[planes.NAME]` with `plugin = "aws_lambda"`. Credentials come from boto3's own chain, never from here."""

    qualifier: str = Field(
        "live", description='the alias that is invoked and that `deploy` moves; or "$LATEST", or a version'
    )
    concurrency: int = Field(100, ge=1, le=10_000, description="the most calls in flight from one agent")

    role: str = Field("", description="ARN of the function's execution role; if empty, `deploy` creates one")
    image: str = Field("", description="URI of a container image in ECR, in place of the zipped code folder")
    bucket: str = Field("", description="an S3 bucket for zips over 50 MB")
    layers: tuple[str, ...] = Field((), description="ARNs of layer versions", max_length=5)
    reserved_concurrency: int | None = Field(
        None, ge=0, le=1_000_000, description="the function's reserved concurrency; it is set only if this key is given"
    )
    tags: Mapping[str, str] = Field(default_factory=dict, description="tags of everything that `deploy` creates")

    @field_validator(*_FORMS)
    @classmethod
    def _has_its_form(cls, value: str, info: ValidationInfo) -> str:
        form, expected = _FORMS[str(info.field_name)]
        if value and not form.fullmatch(value):
            raise ValueError(expected)
        return value

    @field_validator("layers")
    @classmethod
    def _are_layers(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        for layer in layers:
            if not _LAYER.fullmatch(layer):
                raise ValueError(
                    f"{layer!r} is not the ARN of a version of a layer, as in arn:aws:lambda:REGION:ID:layer:NAME:1"
                )
        return layers

    @field_validator("tags")
    @classmethod
    def _are_tags(cls, tags: Mapping[str, str]) -> Mapping[str, str]:
        if len(tags) > _TAGS:
            raise ValueError(f"{len(tags)} tags; AWS takes {_TAGS} beside the one that htcgrid sets")
        for name, value in tags.items():
            if not 1 <= len(name) <= 128 or name.lower().startswith("aws:") or len(value) > 256:
                raise ValueError(f"{name!r}: a tag has 1 to 128 characters, a value 256, and no tag begins with aws:")
        return tags
