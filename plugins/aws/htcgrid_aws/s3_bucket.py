"""One S3 bucket: stores, reads and lists whole objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from htcgrid.spi import Rejected
from htcgrid_aws.aws_errors import client_error, code_of, translated_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST_KEY = 1024
"""The longest key of an object, in bytes."""

UNMET = frozenset(("PreconditionFailed", "ConditionalRequestConflict"))
"""S3's error codes if a condition is not met, or if another client wrote at the same time."""

ABSENT = frozenset(("NoSuchKey", "404"))


class Bucket:
    """A bucket and the prefix of htcgrid's keys in it. `encrypted` are PutObject's arguments for the encryption."""

    def __init__(self, client: Any, name: str, prefix: str = "", encrypted: Mapping[str, str] | None = None) -> None:
        self._client = client
        self.name = name
        self.prefix = prefix
        self._encrypted = dict(encrypted or {})

    def check(self) -> None:
        """Raises `Rejected` if the bucket is missing, in another region or not permitted."""
        with translated_errors("s3:ListBucket", f"bucket {self.name}"):
            self._client.head_bucket(Bucket=self.name)

    def key(self, name: str, task_id: str) -> str:
        """The key with this name, for a task; raises `Rejected` if the key is too long for S3."""
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
        """The key of an address in this bucket with this prefix, else None: no other objects are read."""
        start = self.address(self.prefix)
        return address.removeprefix(f"s3://{self.name}/") if address.startswith(start) else None

    def put(self, key: str, body: bytes, content_type: str = "application/json") -> None:
        """Store an object; one with the same key is replaced. Encryption is the bucket's default unless set."""
        with translated_errors("s3:PutObject", self.address(key)):
            self._client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type, **self._encrypted)

    def put_where(self, key: str, body: bytes, etag: str | None) -> bool:
        """Store an object if there is none with its key, or if the existing one has this tag; returns whether it was stored."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        with translated_errors("s3:PutObject", self.address(key)):
            try:
                self._client.put_object(
                    Bucket=self.name, Key=key, Body=body, ContentType="application/json", **condition, **self._encrypted
                )
            except ClientError as error:
                if code_of(error) in UNMET or (etag is not None and code_of(error) in ABSENT):
                    return False
                raise client_error(error, "s3:PutObject", self.address(key)) from error
        return True

    def names(self, start: str) -> Iterator[str]:
        """The rest of each key that begins with our prefix and `start`."""
        where: dict[str, Any] = {}
        while True:
            with translated_errors("s3:ListBucket", f"bucket {self.name}"):
                answer = self._client.list_objects_v2(Bucket=self.name, Prefix=self.prefix + start, **where)
            yield from (each["Key"].removeprefix(self.prefix + start) for each in answer.get("Contents", ()))
            if not answer.get("IsTruncated"):
                return
            where = {"ContinuationToken": answer["NextContinuationToken"]}

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None if there is no object."""
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes | None, str | None]:
        """The object's bytes, and its tag for `put_where`."""
        with translated_errors("s3:GetObject", self.address(key)):
            try:
                answer = self._client.get_object(Bucket=self.name, Key=key)
                body: bytes = answer["Body"].read()
            except ClientError as error:
                if code_of(error) in ABSENT:
                    return None, None
                raise client_error(error, "s3:GetObject", self.address(key)) from error
        return body, answer["ETag"]
