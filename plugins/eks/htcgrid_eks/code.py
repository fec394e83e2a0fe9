"""The function's code on its way into a pod: packed from a folder, unpacked in the volume that Lambda containers see.

With layers the volume has two folders, `task` and `opt`, which the containers have as /var/task and /opt.
"""

import argparse
import base64
import hashlib
import io
import os
import signal
import stat
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from htcgrid.planes import collect, layers
from htcgrid.spi import Function, Rejected

TASK_ROOT = "/var/task"
LAYERS_ROOT = "/opt"
TASK, LAYERS = "task", "opt"
"""In the volume, where there are layers."""
_UNPACKED_BYTES = 2**30  # the volume `code` of a pod


def pack(function: Function) -> bytes:
    """A zip of the code folder and the layers, the same bytes for the same files."""
    layers.check(function)
    code = collect(function.code).files
    files = {f"{TASK}/{file.name}" if function.layers else file.name: file for file in code}
    for layer in function.layers:
        files |= {f"{LAYERS}/{file.name}": file for file in collect(layer).files}
    size = sum(file.size for file in files.values())
    if size > _UNPACKED_BYTES:
        raise Rejected(
            f"{described(function)} has {size:,} bytes; its volume in a pod takes {_UNPACKED_BYTES:,}. "
            'Leave files out with .htcgridignore, or put the code into the image and write code = "image".'
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | file.mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read())
    return packed.getvalue()


def described(function: Function) -> str:
    """What is packed, for a message."""
    return f"The code in {function.code}{', with its layers,' if function.layers else ''}"


def as_text(archive: bytes) -> str:
    """As a ConfigMap's `binaryData` has it."""
    return base64.b64encode(archive).decode()


def digest(data: bytes) -> str:
    """A short mark that changes with the data."""
    return hashlib.sha256(data).hexdigest()[:16]


def unpack(archive: bytes, folder: Path) -> None:
    """Into a folder, with the modes kept: a `bootstrap` is executed."""
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        for entry in packed.infolist():
            target = Path(packed.extract(entry, folder))
            mode = entry.external_attr >> 16 & 0o777
            if not entry.is_dir():
                target.chmod(mode or 0o644)


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
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))  # the first process of a container has no default for it
    unpack(fetch(arguments.place), arguments.folder)


if __name__ == "__main__":
    main()
