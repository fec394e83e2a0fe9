from contextlib import suppress
from pathlib import Path

import click

from htcgrid.config import DEFAULT_FILE, ConfigError
from htcgrid.plugins import load_importer

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
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, metavar="[FOLDER]")
@click.option(
    "--from-htc-grid",
    "grid_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a config for the grid of HTC-Grid's grid_config.json; its Agent_config.tfvars.json may follow.",
)
def command(paths: tuple[Path, ...], grid_file: Path | None) -> None:
    """Write a working project into FOLDER: a config, a handler and a few tasks.

    With --from-htc-grid it writes only a config, with the same meaning as HTC-Grid's, and lists what is left out.

    \b
    htcgrid init demo && cd demo && htcgrid run
    htcgrid init --from-htc-grid grid_config.json Agent_config.tfvars.json
    """
    files = [path for path in paths if grid_file is not None and path.suffix == ".json"]
    folders = [path for path in paths if path not in files]
    if len(folders) > 1:
        raise click.UsageError("Name one folder.")
    folder = folders[0] if folders else Path()
    if folder.exists() and not folder.is_dir():
        raise click.UsageError(f"{str(folder)!r} is a file; name a folder.")
    if grid_file is not None:
        _import(folder, [grid_file, *files])
    else:
        _write_project(folder)


def _import(folder: Path, files: list[Path]) -> None:
    text, left_out = load_importer("htc-grid")(files)
    path = folder / DEFAULT_FILE
    if path.exists():
        raise ConfigError(f"{path} is there already; nothing was written. Name another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
    print(f"Wrote {path}. Left out, or for you to complete:")
    for line in left_out:
        print(f"  {line}")


def _write_project(folder: Path) -> None:
    there = [name for name in _FILES if (folder / name).exists()]
    if there:
        raise ConfigError(f"{folder} has {', '.join(there)} already; nothing was written. Name another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _FILES.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        for name in _FILES:
            with suppress(OSError):
                (folder / name).unlink()  # none existed before, so the same command works when there is space
        raise ConfigError(f"{folder} cannot be written: {error.strerror}.") from None
    print(f"Wrote {', '.join(_FILES)} into {folder}. Now: cd {folder} && htcgrid run")
