"""The function's code, ready to be sent: a zip made here, or an image that is in ECR already."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from htcgrid.planes import code_folder, requirements
from htcgrid.spi import Function, Rejected
from htcgrid_aws.aws_errors import code_of

from htcgrid_aws_lambda import archive
from htcgrid_aws_lambda.desired import Desired, bootstrap


def build(function: Function, wanted: Desired) -> archive.Archive | None:
    """The zip of the code folder with its requirements; None where an image holds the code."""
    if wanted.image:
        return None
    code_folder.existing(function.code)
    extra = (
        {"bootstrap": bootstrap(function)} if function.command and not (function.code / "bootstrap").exists() else {}
    )
    listed = function.code / "requirements.txt"
    with tempfile.TemporaryDirectory(prefix="htcgrid-") as installed:
        if wanted.python and listed.is_file():
            requirements.install(listed, Path(installed), wanted.python, wanted.architecture)
        built = archive.build([function.code, Path(installed)], extra)
    if not built.files:
        raise Rejected(f"[function] code = {str(function.code)!r} holds no file that could be sent to AWS Lambda.")
    return built


class Shipment:
    """How the code gets to AWS: within the call, through S3 where it is large, or by the URI of its image."""

    def __init__(self, wanted: Desired, built: archive.Archive | None, s3: Any, bucket: str) -> None:
        self._wanted = wanted
        self._built = built
        self._s3 = s3
        self._bucket = bucket
        if built is not None and len(built.data) > archive.DIRECT_BYTES and not bucket:
            raise Rejected(
                f"The zipped code has {len(built.data) / 1e6:.0f} MB; AWS Lambda takes 50 MB in one call. "
                "Name an S3 `bucket` of the same region for it to go through, or use a container image (`image`)."
            )

    def same_as(self, current: Mapping[str, Any]) -> bool:
        """Whether this code is on AWS already; `current` is what GetFunction answers.

        An image named by a tag may have changed behind it, so only a digest can be the same.
        """
        if self._built is not None:
            return bool(current["Configuration"].get("CodeSha256") == self._built.sha256)
        image = self._wanted.image
        return "@sha256:" in image and current.get("Code", {}).get("ImageUri") == image

    def describe(self) -> str:
        """What is sent, for a line of progress."""
        if self._built is None:
            return f"image {self._wanted.image}"
        return f"{self._built.files} files, {len(self._built.data) / 1e6:.1f} MB zipped"

    def send(self) -> dict[str, Any]:
        """Put a large zip into the bucket; the arguments that tell CreateFunction or UpdateFunctionCode of it."""
        if self._built is None:
            return {"ImageUri": self._wanted.image}
        if not self._bucket:
            return {"ZipFile": self._built.data}
        key = f"{prefix(self._wanted.name)}{self._built.name}"
        if not self._is_there(key):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=self._built.data)
        return {"S3Bucket": self._bucket, "S3Key": key}

    def _is_there(self, key: str) -> bool:
        try:
            self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if code_of(error) in {"404", "NoSuchKey", "NotFound"}:
                return False
            raise
        return True


def prefix(function: str) -> str:
    """Where in the bucket the zips of a function are."""
    return f"htcgrid/{function}/"
