from contextlib import suppress
from pathlib import Path

import click

from htcgrid.config import DEFAULT_FILE, ConfigError

_CONFIG = """\
plane = "local"                      # the one line to change; also --plane, or HTCGRID_PLANE

[function]
handler = "handler.handler"
timeout = 30                         # seconds
memory = 512                         # MiB
environment = { GREETING = "Hello" }

[source]
plugin = "jsonl"
path = "tasks.jsonl"

[sink]
plugin = "jsonl"
path = "results.jsonl"

[planes.local]
plugin = "process"
"""

_HANDLER = """\
import os


def handler(event, context):
    print("greeting", event["name"])
    return f"{os.environ['GREETING']}, {event['name']}!"
"""

_TASKS = "".join(f'{{"name": "{name}"}}\n' for name in ("Ada", "Grace", "Edsger", "Barbara"))

_FILES = {DEFAULT_FILE: _CONFIG, "handler.py": _HANDLER, "tasks.jsonl": _TASKS}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def command(folder: Path) -> None:
    """Write a working project into FOLDER: a config, a handler and a few tasks.

    \b
    htcgrid init demo && cd demo && htcgrid run
    """
    there = [name for name in _FILES if (folder / name).exists()]
    if there:
        raise ConfigError(f"{folder}: {', '.join(there)} is there already, and is left as it is. Name another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _FILES.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        for name in _FILES:
            with suppress(OSError):
                (folder / name).unlink()  # none was there: the same command goes on once there is room
        raise ConfigError(f"{folder} cannot be written: {error.strerror}.") from None
    print(f"Wrote {', '.join(_FILES)} into {folder}. Now: cd {folder} && htcgrid run")
