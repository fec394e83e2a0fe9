"""The plane's own keys in the config file."""

from collections.abc import Mapping

from htcgrid.spi import Plugin
from pydantic import Field


class Options(Plugin.Config):
    """`[planes.NAME]` with `plugin = "aws_lambda"`. Credentials come from boto3's own chain, never from here."""

    region: str = Field(
        "", description="the AWS region; from the profile or AWS_REGION where empty", examples=["eu-west-1"]
    )
    profile: str = Field("", description="a profile of ~/.aws/config; boto3's default chain where empty")
    endpoint_url: str = Field("", description="another address that speaks AWS's API, such as `htcgrid serve` or moto")
    qualifier: str = Field(
        "live", description='the alias that is invoked and that `deploy` moves; or "$LATEST", or a version'
    )
    concurrency: int = Field(100, ge=1, le=10_000, description="the most calls in flight from one agent")

    role: str = Field("", description="ARN of the function's execution role; one is made where empty")
    image: str = Field("", description="URI of a container image in ECR, in place of the zipped code folder")
    bucket: str = Field("", description="an S3 bucket for zips over 50 MB")
    layers: tuple[str, ...] = Field((), description="ARNs of layer versions", max_length=5)
    reserved_concurrency: int | None = Field(None, ge=0, description="set on the function where given")
    tags: Mapping[str, str] = Field(default_factory=dict, description="put on all that `deploy` makes")
