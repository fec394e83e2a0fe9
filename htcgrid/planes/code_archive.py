"""The function's code on its way to another machine: a zip of the folder, and what unpacks it there."""

import io
import stat
import zipfile
from pathlib import Path

from htcgrid.planes.code_files import collect
from htcgrid.spi import Rejected

UNPACKED_BYTES = 2**30


def pack(folder: Path) -> bytes:
    """A zip of the folder, the same bytes for the same files."""
    found = collect(folder)
    if found.size > UNPACKED_BYTES:
        raise Rejected(
            f"The code in {folder} has {found.size:,} bytes; {UNPACKED_BYTES:,} can be sent. Leave files out with "
            ".htcgridignore, or put the code where the handler runs: into the image, on Kubernetes."
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in found.files:
            entry = zipfile.ZipInfo(file.name)
            entry.external_attr = (stat.S_IFREG | file.mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read())
    return packed.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Into a folder, with the modes kept: a `bootstrap` is executed."""
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        for entry in packed.infolist():
            target = Path(packed.extract(entry, folder))
            mode = entry.external_attr >> 16 & 0o777
            if not entry.is_dir():
                target.chmod(mode or 0o644)
