"""The folder of the handler."""

from pathlib import Path

from htcgrid.spi import Rejected


def existing(folder: Path) -> Path:
    """The folder's absolute path. Raises `Rejected` if it does not exist."""
    if not folder.is_dir():
        raise Rejected(f"[function] code = {str(folder)!r}: there is no such folder. Name the folder of the handler.")
    return folder.resolve()
