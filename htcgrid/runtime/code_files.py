"""Which files of a code folder are packed for the handler: one rule for all planes.

A file is packed unless a pattern leaves it out: those of `DEFAULTS`, then those of `.htcgridignore` in the code
folder, in the syntax of .gitignore. The last one that matches decides, so `!name` packs what `DEFAULTS` leaves out.
A link is packed as what it leads to, if that is a file or folder of the code folder that is packed as well.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from htcgrid.runtime import code_folder
from htcgrid.spi import Rejected

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".htcgridignore"
DEFAULTS = (
    ".*",  # .env, .aws, .ssh, .netrc, .git, .venv: hidden files are not code, and often secrets
    "!.libs/",  # where older wheels have their shared libraries
    "htcgrid*.toml",
    "_netrc",
    "*.[pP][eE][mM]",
    "!**/certifi/cacert.pem",  # public: without it a handler cannot verify any TLS certificate
    "!**/botocore/cacert.pem",
    "!**/grpc/_cython/_credentials/roots.pem",
    "*.[kK][eE][yY]",
    "*.p12",
    "*.pfx",
    "*.ppk",
    "*.jks",
    "*.kdbx",
    "*.keystore",
    "*.tfstate*",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "__pycache__/",
    "*.pyc",
)
PREBUILT = ("__pycache__/", "*.pyc")
_CACHES = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", IGNORE_FILE})
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A file to pack. `name` is its path in the package, `path` is where it is read."""

    name: str
    path: Path
    size: int
    executable: bool

    @property
    def mode(self) -> int:
        """Everybody may read it, because a handler runs as a user who does not own it."""
        return 0o755 if self.executable else 0o644

    def read(self) -> bytes:
        """Its content. Raises `Rejected`."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise _unreadable(self.path, error) from None


@dataclass(slots=True)
class CodeFiles:
    """The files to pack in the order of their names, and what is left out, with the reason."""

    files: list[CodeFile] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)

    def note(self) -> str:
        """What is left out, in a sentence for the user; empty if nothing is."""
        if not self.left_out:
            return ""
        names = [name if reason == "ignored" else f"{name} ({reason})" for name, reason in self.left_out.items()]
        shown = ", ".join(sorted(names)[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        return (
            f"Left out of the code: {shown}. To pack a file anyway, write !NAME into {IGNORE_FILE} in the code folder."
        )


def collect(folder: Path, leave_out: Sequence[str] = DEFAULTS) -> CodeFiles:
    """The files of a code folder. Raises `Rejected` where there is no such folder, or a file cannot be read.

    `leave_out` is for a folder that the plane has filled itself, with wheels for example: `PREBUILT` for it.
    """
    root = code_folder.existing(folder)
    return _Walk(root, _patterns(root, leave_out)).found()


class _Walk:
    def __init__(self, root: Path, spec: GitIgnoreSpec) -> None:
        self._root = root
        self._spec = spec
        self._found = CodeFiles()

    def found(self) -> CodeFiles:
        try:
            self._enter(self._root, "", linked=False)
        except RecursionError:
            raise Rejected(
                f"{self._root} has folders that are nested too deep to be packed. Name another folder in [function] code, or "
                f"leave the upper one out in {IGNORE_FILE} in the code folder."
            ) from None
        self._found.files.sort(key=lambda file: file.name)
        return self._found

    def _enter(self, folder: Path, inside: str, *, linked: bool) -> None:
        for entry in _entries(folder):
            self._take(entry, f"{inside}{entry.name}", linked=linked)

    def _take(self, entry: os.DirEntry[str], name: str, *, linked: bool) -> None:
        path = Path(entry.path)
        if entry.is_symlink():
            reason = self._reason_to_leave_out(path, linked=linked)
            if reason:
                self._found.left_out[name] = reason
                return
            path = path.resolve()
            linked = True
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from None
        slash = "/" if stat.S_ISDIR(status.st_mode) else ""
        real = path.relative_to(self._root).as_posix()  # another name where a folder above is a link
        if self._ignores(f"{name}{slash}") or self._ignores(f"{real}{slash}"):
            if entry.name not in _CACHES and not entry.name.endswith(".pyc"):
                self._found.left_out[name] = "ignored"
        elif stat.S_ISDIR(status.st_mode):
            self._enter(path, f"{name}/", linked=linked)
        elif stat.S_ISREG(status.st_mode):
            self._found.files.append(
                CodeFile(_as_text(name), path, status.st_size, executable=bool(status.st_mode & 0o100))
            )
        else:
            self._found.left_out[name] = "not a file"

    def _reason_to_leave_out(self, link: Path, *, linked: bool) -> str:
        """Why a link is not followed; empty if it is followed."""
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise RuntimeError for a link to itself
            return "a link to nothing"
        if not target.is_relative_to(self._root):
            return "a link out of the folder"
        if target.is_dir() and (linked or link.parent.resolve().is_relative_to(target)):
            return "a link to a folder around it or within a linked one"
        parts = target.relative_to(self._root).parts
        above = ["/".join(parts[: n + 1]) + "/" for n in range(len(parts) - 1)]
        last = "/".join(parts) + ("/" if target.is_dir() else "")
        return "a link to what is left out" if any(self._ignores(each) for each in [*above, last]) else ""

    def _ignores(self, name: str) -> bool:
        return self._spec.match_file(name)


def _patterns(root: Path, leave_out: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - few commands pack code; the others start without it

    own = root / IGNORE_FILE
    try:
        lines = own.read_text(encoding="utf-8-sig").splitlines() if own.is_file() else []
        return GitIgnoreSpec.from_lines([*leave_out, *lines, IGNORE_FILE])
    except OSError as error:
        raise _unreadable(own, error) from None
    except ValueError as error:
        raise Rejected(f"{own} is not a list of patterns in the syntax of .gitignore: {error}.") from None


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from None


def _as_text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Rejected(f"The file name {name!r} in the code folder is not UTF-8. Rename the file.") from None
    return name


def _unreadable(path: Path, error: OSError) -> Rejected:
    return Rejected(
        f"{path} cannot be packed: {error.strerror}. Make it readable, or name it in {IGNORE_FILE} in the code folder."
    )
