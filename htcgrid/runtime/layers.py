"""`[function] layers`: folders laid out as Lambda's layers are, which the service unpacks into /opt."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from htcgrid.spi import Function, Rejected

_PYTHON = f"python/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
_PLACES = {
    "PYTHONPATH": (_PYTHON, "python"),
    "NODE_PATH": ("nodejs/node_modules", "nodejs"),
    "PATH": ("bin",),
    "LD_LIBRARY_PATH": ("lib",),
    "RUBYLIB": ("ruby/lib",),
}
"""The folders below /opt that the service's runtimes search, by the variable that names them. From AWS's page on layers."""


def check(folders: Iterable[Path]) -> None:
    """Refuse layers that do not exist."""
    for layer in folders:
        if not layer.is_dir():
            raise Rejected(
                f"[function] layers: there is no folder {str(layer)!r}. Name folders with python/, nodejs/, bin/ or lib/ in "
                "them, such as `htcgrid layer requirements.txt FOLDER` makes."
            )


def search_paths(function: Function) -> Mapping[str, Sequence[str]]:
    """The existing folders, by the variable that they must be added to. A later layer comes first."""
    found: dict[str, list[str]] = {}
    for layer in reversed(function.layers):
        for name, places in _PLACES.items():
            found.setdefault(name, []).extend(
                str(path) for place in places if (path := layer.resolve() / place).is_dir()
            )
    return {name: paths for name, paths in found.items() if paths}


def with_paths(environment: Mapping[str, str], function: Function) -> dict[str, str]:
    """These variables, with the folders of the function's layers on their search paths."""
    return extended(environment, search_paths(function))


def extended(environment: Mapping[str, str], paths: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """These variables, with the folders of `search_paths` behind what each search path has: Lambda searches /opt last."""
    found = dict(environment)
    for name, folders in paths.items():
        present = [found[name]] if found.get(name) else []
        found[name] = os.pathsep.join([*present, *folders])
    return found


def merge(function: Function, folder: Path) -> None:
    """All layers in one folder, as the service unpacks them: a file of a later one replaces that of an earlier one.

    Links stay links. Raises `Rejected` where a file cannot be copied.
    """
    for layer in function.layers:
        try:
            _copy(layer, folder)
        except OSError as error:
            raise Rejected(f"[function] layers: {error.filename} cannot be copied: {error.strerror}.") from error


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        place = target / path.name
        is_folder = path.is_dir() and not path.is_symlink()
        # What is there is removed, since copying follows a link, and would write to where it leads.
        if place.is_symlink() or place.is_file():
            place.unlink()
        elif place.is_dir() and not is_folder:
            shutil.rmtree(place)
        if is_folder:
            place.mkdir(exist_ok=True)
            _copy(path, place)
            shutil.copystat(path, place)
        elif path.is_symlink() or path.is_file():  # neither pipes nor sockets
            shutil.copy2(path, place, follow_symlinks=False)
