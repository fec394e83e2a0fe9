"""The code folder as a zip that has the same bytes whenever the files have the same bytes."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from htcgrid.planes import DEFAULTS, PREBUILT, code_archive, collect
from htcgrid.spi import Rejected

UNZIPPED_BYTES = 262_144_000
"""The most that code and layers may take once unpacked: 250 MB."""
DIRECT_BYTES = 50_000_000
"""The most that goes with the API call itself: 50 MB. More goes by way of S3."""


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
    contents = {name: (data, 0o755) for name, data in extra.items()}
    for file in found:
        if file.name not in contents:
            contents[file.name] = (file.read(), file.mode)
    return Archive(code_archive.zipped(contents), len(contents), collected[0].note() if collected else "")


def _require_room(size: int) -> None:
    if size > UNZIPPED_BYTES:
        raise Rejected(
            f"The code takes {size / 1e6:.0f} MB unpacked; AWS Lambda takes {UNZIPPED_BYTES // 1_048_576} MB. "
            "Leave out what is not needed (.htcgridignore), move libraries to `layers`, or name a container image in "
            "`image`."
        )
