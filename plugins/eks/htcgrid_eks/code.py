"""The function's code on its way into a pod: packed from a folder, unpacked in the volume that Lambda containers see.

With layers the volume has two folders, `task` and `opt`, which the containers have as /var/task and /opt.
"""

import argparse
import base64
import hashlib
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

from htcgrid.planes import code_archive
from htcgrid.spi import Function

TASK_ROOT = "/var/task"
LAYERS_ROOT = "/opt"
TASK, LAYERS = code_archive.TASK, code_archive.LAYERS
pack, unpack = code_archive.pack, code_archive.unpack


def described(function: Function) -> str:
    """The start of a message: what is packed."""
    return f"The code in {function.code}{', with its layers,' if function.layers else ''}"


def ways_out(function: Function) -> str:
    """Where code and layers can be, if they are not sent with the pod."""
    if not function.layers:
        return 'Put it into the image and write code = "image", or a zip of it on S3 and write code = "s3://bucket/key.zip".'
    return (
        'Put code and layers into the image (`htcgrid build` copies them, the layers to its /opt) and write code = "image"; or '
        "put a zip of the code and one of each layer on S3, and write "
        'code = "s3://bucket/key.zip" and layers = ["s3://bucket/layer.zip"] for the plane. In both cases leave [function] layers out here: --set function.layers=[].'
    )


def as_text(archive: bytes) -> str:
    """As a ConfigMap's `binaryData` has it."""
    return base64.b64encode(archive).decode()


def digest(data: bytes) -> str:
    """A short digest that changes with the data."""
    return hashlib.sha256(data).hexdigest()[:16]


def fetch(place: str) -> bytes:
    """A zip from a file, or from S3 as `s3://bucket/key` with the credentials that boto3 finds."""
    parts = urlsplit(place)
    if parts.scheme != "s3":
        return Path(place).read_bytes()
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 - only where the code is on S3

    body: bytes = boto3.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
    return body


def main() -> None:
    """What the init container `code` runs."""
    parser = argparse.ArgumentParser(description="Unpack a zip, from a file or s3://bucket/key, into a folder.")
    parser.add_argument("place")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "layers", nargs="*", help="zips of layers: the code goes into `task` of the folder, they into `opt`"
    )
    arguments = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: os._exit(1)
    )  # the first process of a container has no default action for it
    if not arguments.layers:
        unpack(fetch(arguments.place), arguments.folder)
        return
    for place, within in [(arguments.place, TASK), *((layer, LAYERS) for layer in arguments.layers)]:
        (arguments.folder / within).mkdir(exist_ok=True)  # an empty zip makes no folder, and a container mounts it
        unpack(fetch(place), arguments.folder / within)


if __name__ == "__main__":
    main()
