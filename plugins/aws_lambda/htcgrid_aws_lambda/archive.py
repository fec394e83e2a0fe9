"""The code folder as a zip that has the same bytes whenever the files have the same bytes."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from htcgrid.planes import DEFAULTS, PREBUILT, collect
from htcgrid.spi import Rejected

UNZIPPED_BYTES = 262_144_000
"""The most that code and layers may take once unpacked: 250 MB."""
DIRECT_BYTES = 50_000_000
"""The most that goes with the API call itself: 50 MB. More goes by way of S3."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip for AWS Lambda."""

    data: bytes
    files: int
    note: str = ""
    """What of the code folder is left out."""

    @property
    def sha256(self) -> str:
        """As AWS gives it in `CodeSha256`: in base64."""
        return base64.b64encode(hashlib.sha256(self.data).digest()).decode()

    @property
    def name(self) -> str:
        """A file name that changes with the content."""
        return f"{hashlib.sha256(self.data).hexdigest()}.zip"


def build(folders: Iterable[Path], extra: Mapping[str, bytes]) -> Archive:
    """Zip the files of `folders`, earlier ones first where two have the same name, and `extra` programs.

    The first is the code folder; the others hold what was installed for it.
    """
    collected = [collect(folder, PREBUILT if number else DEFAULTS) for number, folder in enumerate(folders)]
    found = [file for each in collected for file in each.files]
    _require_room(sum(file.size for file in found))  # before they are in memory
    contents: dict[str, tuple[bytes, bool]] = {name: (data, True) for name, data in extra.items()}
    for file in found:
        if file.name not in contents:
            contents[file.name] = (file.read(), file.executable)
    return Archive(_zip(contents), len(contents), collected[0].note() if collected else "")


def _require_room(size: int) -> None:
    if size > UNZIPPED_BYTES:
        raise Rejected(
            f"The code takes {size / 1e6:.0f} MB unpacked; AWS Lambda takes {UNZIPPED_BYTES // 1_048_576} MB. "
            "Leave out what is not needed (.htcgridignore), move libraries to `layers`, or name a container image in "
            "`image`."
        )


def _zip(contents: Mapping[str, tuple[bytes, bool]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            data, executable = contents[name]
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is built, so that the mode below is read
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            archive.writestr(entry, data)
    return packed.getvalue()
