"""The places that `htcgrid verify` makes for a plugin, and the user's commands that act on its service."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from htcgrid import config
from htcgrid.spi import Function, Plugin

FRESH, TMP = "{fresh}", "{tmp}"
_LINES, _LINE_LENGTH = 8, 300
"""What is shown of the end of a failed command's output."""


class Places:
    """Makes plugins, each with a new place in its options: `{tmp}` is a new folder, `{fresh}` a new name.

    Several processes may use a copy each. The new names are in a file, so that any of them can remove all places.
    """

    def __init__(self, plugin: type[Plugin], options: Mapping[str, Any], folder: Path) -> None:
        self._plugin = plugin
        self._options = options
        self._folder = folder
        self._word = ""
        self._words = folder / "words"

    @property
    def are_new(self) -> bool:
        """Whether each rule has a place of its own."""
        texts = [value for value in self._options.values() if isinstance(value, str)]
        return any(TMP in text or FRESH in text for text in texts)

    def make(self, function: Function, changed: Mapping[str, Any] | None = None, option: str = "--option") -> Plugin:
        """A new plugin, not opened. `changed` are options that replace others, given with `option`. Raises `ConfigError`."""
        options = {**self._options, **(changed or {})}
        self._word = "k" + uuid.uuid4().hex[:11]  # many services take no name that begins with a digit
        texts = [value for value in options.values() if isinstance(value, str)]
        if any(TMP in text for text in texts):
            (self._folder / self._word).mkdir()
        if any(FRESH in text for text in texts):
            _append(self._words, self._word)
        filled = {key: self.filled(value) if isinstance(value, str) else value for key, value in options.items()}
        try:
            settings = self._plugin.Config.model_validate(filled)
        except ValidationError as error:
            raise config.ConfigError(config.explain(error, option, self._plugin.Config)) from None
        return self._plugin(settings, function)

    def remove(self, command: str) -> None:
        """Remove what was made under the new names: files whose path has one, and what `command` removes."""
        for word in self._words.read_text().split() if self._words.exists() else ():
            for value in self._options.values():
                if isinstance(value, str) and FRESH in value and "://" not in value:
                    _remove_files(Path(value.replace(FRESH, word)), word)
            if command:
                run("--remove", command.replace(FRESH, word))

    def running(self, option: str, command: str | None) -> Callable[[], None] | None:
        """A function that runs the command for the place that was made last; None if no command was given."""
        return None if command is None else partial(self._run, option, command)

    def _run(self, option: str, command: str) -> None:
        run(option, self.filled(command))

    def filled(self, text: str) -> str:
        """The text with the folder and the name of the place that was made last."""
        return text.replace(TMP, str(self._folder / self._word)).replace(FRESH, self._word)


def resizing(command: str | None) -> Callable[[int], None] | None:
    """A function that runs the command of `--resize`, which gives the plane so many environments."""
    return None if command is None else partial(_resize, command)


def _resize(command: str, size: int) -> None:
    run("--resize", command.replace("{size}", str(size)))


def seen_by_handlers(path: str | None) -> Callable[[Path], str] | None:
    """A function that gives the path of `--marks` for a folder."""
    return None if path is None else partial(_seen, path)


def _seen(path: str, folder: Path) -> str:
    return path.replace("{folder}", str(folder))


def run(option: str, command: str) -> None:
    """Run a user's command in a shell; if it fails, the error has what it printed."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602 - it is meant to be
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-_LINES:]
        shown = "\n".join(line[:_LINE_LENGTH] for line in said)
        raise config.ConfigError(f"{option} {command!r} ended with exit code {done.returncode}: {shown}")


def _append(file: Path, word: str) -> None:
    """Add a line at once, so that no line of another process is within it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{word}\n".encode())
    finally:
        os.close(descriptor)


def _remove_files(path: Path, word: str) -> None:
    """Remove the first part of the path that has the name, and files beside it whose names begin with it, such as a log."""
    for part in [*reversed(path.parents), path]:
        if word in part.name:
            for found in part.parent.glob(f"*{word}*"):
                shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
            return
