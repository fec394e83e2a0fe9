"""One S3 bucket: objects put whole, got whole, and checked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from htcgrid.spi import Rejected
from htcgrid_aws.aws_errors import client_error, code_of, translated_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_KEY = 1024
"""Bytes of an object's key."""

ABSENT = frozenset(("NoSuchKey", "404"))


class Bucket:
    """A bucket and the prefix of our keys in it. `encrypted` are the arguments of PutObject that say how."""

    def __init__(self, client: Any, name: str, prefix: str = "", encrypted: Mapping[str, str] | None = None) -> None:
        self._client = client
        self.name = name
        self.prefix = prefix
        self._encrypted = dict(encrypted or {})

    def check(self) -> None:
        """`Rejected` where the bucket is missing, elsewhere or not permitted."""
        with translated_errors("s3:ListBucket", f"bucket {self.name}"):
            self._client.head_bucket(Bucket=self.name)

    def key(self, name: str, task_id: str) -> str:
        """The key of a thing of a task; `Rejected` where S3 allows no such key."""
        key = self.prefix + name
        if len(key.encode()) > LONGEST_KEY:
            message = (
                f"task {task_id[:80]}...: its id makes an S3 key of more than {LONGEST_KEY} bytes; use shorter ids"
            )
            raise Rejected(message, [task_id])
        return key

    def address(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.name}/{key}"

    def key_of(self, address: str) -> str | None:
        """The key of an address if it lies in this bucket under this prefix: we read nothing else."""
        start = self.address(self.prefix)
        return address.removeprefix(f"s3://{self.name}/") if address.startswith(start) else None

    def put(self, key: str, body: bytes, content_type: str = "application/json") -> None:
        """Store an object; one of the same key is replaced. Encryption is the bucket's default unless set."""
        with translated_errors("s3:PutObject", self.address(key)):
            self._client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type, **self._encrypted)

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        with translated_errors("s3:GetObject", self.address(key)):
            try:
                body: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
            except ClientError as error:
                if code_of(error) in ABSENT:
                    return None
                raise client_error(error, "s3:GetObject", self.address(key)) from error
        return body
