"""The config file, read as TOML."""

import codecs
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from htcgrid.config_errors import ConfigError

_MOST_BYTES = 10_000_000


def parsed_file(file: Path) -> dict[str, Any]:
    """The document of a file. Raises `ConfigError`."""
    try:
        return tomllib.loads(_text(file))
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file. `htcgrid init` writes one.") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise ConfigError(f"{file} is not TOML that can be read: it is nested too deep.") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not TOML: {error}.") from None


def _text(file: Path) -> str:
    """The text, which must be UTF-8. A byte order mark, which some editors write, is left out."""
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{file} is not a file but a pipe or device. Name a file of TOML.")
        if status.st_size > _MOST_BYTES:
            raise ConfigError(
                f"{file} has {status.st_size:,} bytes: that is too long for a config. Name a file of TOML."
            )
        raw = opened.read()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw:
        raise ConfigError(
            f"{file} is not TOML: it is not UTF-8 but looks like UTF-16, or no text at all. Save it as UTF-8."
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{raw[error.start]:02x} on line {line}"
        raise ConfigError(f"{file} is not TOML: {found} is not UTF-8. Save the file as UTF-8.") from None
