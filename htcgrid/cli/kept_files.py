from collections.abc import Iterable
from pathlib import Path

from htcgrid.config import ConfigError
from htcgrid.spi import Plugin


def files_of(plugin: Plugin) -> list[Path]:
    """The files that its config names."""
    return [value for value in dict(plugin.config).values() if isinstance(value, Path)]


def require_another(option: str, output: Path | None, read: Iterable[Path]) -> None:
    """Raises `ConfigError` if the file that a command will write is one of those that it reads."""
    for path in read:
        if output is not None and output.is_file() and path.is_file() and output.samefile(path):
            raise ConfigError(f"{option} {output}: this file is read, and would be replaced. Name another file.")
