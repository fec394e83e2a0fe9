"""Shows the log messages of `htcgrid`, `htcgrid.agent`, ... on standard error: as text above the progress bar on a
terminal, elsewhere as JSON lines.

Messages of other libraries' loggers are not shown: an SDK's messages may contain signed addresses or secrets.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

TREE = "htcgrid"
LEVELS = ("debug", "info", "warning", "error")

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def shown() -> Iterator[None]:
    """Show warnings and errors until the block ends, and more if `log_options` ask for it."""
    handler, tree = _Handler(), logging.getLogger(TREE)
    tree.addHandler(handler)
    tree.setLevel(logging.WARNING)
    try:
        yield
    finally:
        tree.removeHandler(handler)
        tree.setLevel(logging.NOTSET)


def log_options(command: F) -> F:
    """`--verbose` and `--log-level`; the last one given counts."""
    for option in (
        click.option(
            "--log-level",
            type=click.Choice(LEVELS),
            metavar="LEVEL",
            expose_value=False,
            callback=lambda _context, _option, level: _show(level),
            help="Log messages on standard error: debug, info, warning (the default) or error.",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=lambda _context, _option, is_set: _show("info" if is_set else None),
            help="The same as --log-level info.",
        ),
    ):
        command = option(command)
    return command


def _show(level: str | None) -> None:
    if level is not None:
        logging.getLogger(TREE).setLevel(level.upper())


class _Handler(logging.Handler):
    """Writes to the current standard error, because a command may replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr.isatty():
                from tqdm import tqdm  # noqa: PLC0415 - a part of the cold start that few commands need

                tqdm.write(_text(record), file=sys.stderr)  # above a progress bar, if there is one
            else:
                print(json.dumps(_document(record)), file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - the library prints what is wrong with the message; the command continues
            self.handleError(record)


_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")


def _text(record: logging.LogRecord) -> str:
    return _FORMAT.format(record)


def _document(record: logging.LogRecord) -> dict[str, Any]:
    document = {
        "time": round(record.created, 3),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    if record.exc_info:
        document["traceback"] = "".join(traceback.format_exception(*record.exc_info))
    return document
