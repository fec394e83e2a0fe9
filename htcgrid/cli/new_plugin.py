import re
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from htcgrid.config import ConfigError

_KINDS = {
    "invoker": {
        "group": "invoker",
        "ending": "Invoker",
        "title": "a compute plane",
        "stands": "handlers run in Python processes on this machine",
        "oracle": "the kit's handler is in a folder, a zip (`handler_zip()`) or an image (`dockerfile()`), "
        "as your plane wants it.",
        "options": " --option workers=2",
    },
    "task-source": {
        "group": "task_source",
        "ending": "Source",
        "title": "a task source",
        "stands": "it is a queue in the memory of the process",
        "oracle": "override `publish` so that it puts tasks there without the plugin.",
        "options": " --option lease_seconds=1",
    },
    "result-sink": {
        "group": "result_sink",
        "ending": "Sink",
        "title": "a result sink",
        "stands": "it keeps results in the memory of the process, and the four rules about that are known gaps",
        "oracle": "override `read_back`, so that it reads what is stored without the plugin.",
        "options": "",
    },
}


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(_KINDS)), required=True, help="What the plugin is to be.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Where to write it; ./htcgrid-NAME by default."
)
def command(name: str, kind: str, folder: Path | None) -> None:
    """Write a distribution with a working plugin, for you to change.

    \b
    htcgrid new-plugin shed --kind invoker
    cd htcgrid-shed && pip install -e .[test] && pytest
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"{name!r} cannot be a plugin's name: write small letters, digits and _, as in my_queue.")
    folder = folder or Path(f"htcgrid-{name.replace('_', '-')}")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is there and is not empty; it is left as it is. Name another with --folder.")
    try:
        for path, text in _files(name, kind).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}. Name another with --folder.") from None
    print(f"Wrote {folder}. Its README.md says what to fill in. Now: cd {folder} && pip install -e .[test] && pytest")


def _files(name: str, kind: str) -> dict[str, str]:
    """Every file of the distribution, by its path."""
    words = dict(_KINDS[kind])
    words |= {"name": name, "kind": kind, "dashed": name.replace("_", "-")}
    words["Title"] = words["title"][0].upper() + words["title"][1:]
    words["class_name"] = "".join(part.capitalize() for part in name.split("_")) + words.pop("ending")
    templates = files("htcgrid.cli") / "templates" / "plugin"

    def filled(template: str) -> str:
        return Template((templates / f"{template}.txt").read_text(encoding="utf-8")).substitute(words)

    package = f"htcgrid_{name}"
    return {
        "pyproject.toml": filled("pyproject.toml"),
        "README.md": filled("readme.md"),
        f"{package}/__init__.py": "",
        f"{package}/py.typed": "",
        f"{package}/plugin.py": filled(f"{kind}.py"),
        "tests/test_contract.py": filled(f"test-{kind}.py"),
    }
