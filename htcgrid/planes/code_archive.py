"""Sends the function's code to another machine: packs the folder into a zip, and unpacks it there."""

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
"""The two folders of a zip that has layers; a zip without layers has the code at its top."""


def pack(folder: Path, layers: Sequence[Path] = ()) -> bytes:
    """A zip of the folder and of these layers; a later layer overwrites files of earlier ones. The same files give the same bytes."""
    check_layers(layers)
    files = {f"{TASK}/{file.name}" if layers else file.name: file for file in collect(folder).files}
    for layer in layers:
        files |= {f"{LAYERS}/{file.name}": file for file in collect(layer).files}
    size = sum(file.size for file in files.values())
    if size > UNPACKED_BYTES:
        raise Rejected(
            f"The code in {folder}{', with its layers,' if layers else ''} has {size:,} bytes; at most {UNPACKED_BYTES:,} can "
            "be sent. Leave files out with .htcgridignore, or put the code where the handler runs: on Kubernetes, into the image."
        )
    return zipped({name: (file.read(), file.mode) for name, file in files.items()})


def zipped(contents: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A zip of these files by name, each with its content and mode. The same files give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in sorted(contents.items()):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix on every machine: the mode of any other system would be ignored
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, data)
    return packed.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack into a folder and keep the files' modes: a `bootstrap` is executed. What is there already is replaced."""
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        for entry in packed.infolist():
            if not entry.is_dir():
                _place_of(entry, folder).unlink(missing_ok=True)  # a file that is read-only cannot be written
            target = Path(packed.extract(entry, folder))
            mode = entry.external_attr >> 16 & 0o777
            if not entry.is_dir():
                target.chmod(mode or 0o644)


def _place_of(entry: zipfile.ZipInfo, folder: Path) -> Path:
    """Where `extract` puts it: never outside of the folder."""
    return folder.joinpath(*(part for part in entry.filename.split("/") if part not in {"", ".", ".."}))
