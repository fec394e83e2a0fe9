"""The function's code on its way to another machine: a zip of the folder, and what unpacks it there."""

import io
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from htcgrid.runtime.code_files import collect
from htcgrid.runtime.layers import check as check_layers
from htcgrid.spi import Rejected

UNPACKED_BYTES = 2**30
TASK, LAYERS = "task", "opt"
"""The two folders of a zip that has layers; one without has the code itself."""


def pack(folder: Path, layers: Sequence[Path] = ()) -> bytes:
    """A zip of the folder and of these layers, a later one over those before; the same bytes for the same files."""
    check_layers(layers)
    files = {f"{TASK}/{file.name}" if layers else file.name: file for file in collect(folder).files}
    for layer in layers:
        files |= {f"{LAYERS}/{file.name}": file for file in collect(layer).files}
    size = sum(file.size for file in files.values())
    if size > UNPACKED_BYTES:
        raise Rejected(
            f"The code in {folder}{', with its layers,' if layers else ''} has {size:,} bytes; {UNPACKED_BYTES:,} can be sent. "
            "Leave files out with .htcgridignore, or put the code where the handler runs: into the image, on Kubernetes."
        )
    return zipped({name: (file.read(), file.mode) for name, file in files.items()})


def zipped(contents: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A zip of these files by name, each with its content and mode; the same bytes for the same files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in sorted(contents.items()):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made, so that the mode is read
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, data)
    return packed.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Into a folder, with the modes kept: a `bootstrap` is executed."""
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        for entry in packed.infolist():
            target = Path(packed.extract(entry, folder))
            mode = entry.external_attr >> 16 & 0o777
            if not entry.is_dir():
                target.chmod(mode or 0o644)
