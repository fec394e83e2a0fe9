"""How S3 encrypts objects: a bucket's policy may refuse puts that do not name the encryption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from htcgrid_aws import arns
from htcgrid_aws.aws_plugin import AwsConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


class EncryptedConfig(AwsConfig):
    """The keys of plugins that put objects."""

    encryption: Literal["", "AES256", "aws:kms"] = Field(
        "",
        description='what S3 encrypts objects with: "AES256" (SSE-S3) or "aws:kms"; if empty, the bucket\'s default',
    )
    kms_key: str = Field("", description="ARN or id of the KMS key that S3 encrypts objects with; implies aws:kms")

    @model_validator(mode="after")
    def _key_of_kms(self) -> Self:
        if self.kms_key and self.encryption == "AES256":
            raise ValueError('kms_key needs encryption = "aws:kms"; remove one of the two keys')
        return self

    def encrypted(self, key: str = "") -> Mapping[str, str]:
        """Arguments of PutObject; `key` is the KMS key to use if the config names no encryption."""
        key = self.kms_key or (key if self.encryption != "AES256" else "")
        kind = "aws:kms" if key else self.encryption
        arguments = {"ServerSideEncryption": kind, "SSEKMSKeyId": key}
        return {name: value for name, value in arguments.items() if value}

    def keys(self, key: str = "", region: str = "") -> tuple[str, ...]:
        """The ARN of the KMS key for a policy, or nothing."""
        name = self.encrypted(key).get("SSEKMSKeyId", "")
        return (arns.key(name, region or self.region),) if name else ()
