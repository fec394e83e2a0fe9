import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from htcgrid.config import ConfigError

_KINDS = {
    "invoker": {
        "group": "invoker",
        "ending": "Invoker",
        "module": "plane",
        "title": "a compute plane",
        "stands": "handlers run in Python processes on this machine",
        "oracle": "the kit's handler is in a folder, a zip (`handler_zip()`) or an image (`dockerfile()`), "
        "as your plane needs it.",
        "options": " --option workers=2",
    },
    "engine": {
        "group": "invoker",
        "ending": "Invoker",
        "module": "plane",
        "title": "a compute plane on an engine that schedules by itself",
        "stands": "the engine is Python's `ProcessPoolExecutor`, and `worker.py` is what runs in its workers; "
        "`docs/planes-on-engines.md` of htcgrid explains both",
        "oracle": "the kit's handler is in a folder or a zip (`handler_zip()`).",
        "options": " --option workers=2",
    },
    "task-source": {
        "group": "task_source",
        "ending": "Source",
        "module": "source",
        "title": "a task source",
        "stands": "it is a queue in the memory of the process",
        "oracle": "override `publish` so that it puts tasks there without the plugin.",
        "options": " --option lease_seconds=1",
    },
    "result-sink": {
        "group": "result_sink",
        "ending": "Sink",
        "module": "sink",
        "title": "a result sink",
        "stands": "it keeps results in the memory of the process, and the four rules about that are known gaps",
        "oracle": "override `read_back`, so that it reads what is stored without the plugin.",
        "options": "",
    },
    "observer": {
        "group": "observer",
        "ending": "Observer",
        "module": "observer",
        "title": "an observer",
        "stands": "it counts in the memory of the process",
        "oracle": "override `shown`, so that it reads what others read.",
        "options": "",
    },
}


@click.command()
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(list(_KINDS)),
    multiple=True,
    required=True,
    help="The kind of plugin; give it again for a distribution with several. `engine` is an invoker on an engine that "
    "schedules by itself: Dask, Ray, Slurm, a function service.",
)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="The folder to write; ./htcgrid-NAME by default."
)
def command(name: str, kinds: tuple[str, ...], folder: Path | None) -> None:
    """Write a distribution with a working plugin, for you to change.

    \b
    htcgrid new-plugin shed --kind invoker
    htcgrid new-plugin jobs --kind engine
    htcgrid new-plugin post --kind task-source --kind result-sink
    cd htcgrid-shed && make test
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"{name!r} cannot be a plugin's name: begin with a lower-case letter, and write lower-case letters, digits and _, "
            "as in my_queue."
        )
    groups = [_KINDS[kind]["group"] for kind in set(kinds)]
    if len(set(groups)) < len(groups):
        raise ConfigError("--kind invoker and --kind engine are both compute planes: write two distributions.")
    folder = folder or Path(f"htcgrid-{name.replace('_', '-')}")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is there and is not empty; it is left as it is. Name another with --folder.")
    try:
        for path, text in _files(name, list(dict.fromkeys(kinds))).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}. Name another with --folder.") from None
    print(f"Wrote {folder}. Its README.md says what to fill in. Now: cd {folder} && make test")


def _files(name: str, kinds: Sequence[str]) -> dict[str, str]:
    """Every file of the distribution, by its path."""
    package = f"htcgrid_{name}"
    plugins = [_values(name, kind, alone=len(kinds) == 1) for kind in kinds]
    entries = [
        f'[project.entry-points."htcgrid.{each["group"]}"]\n{name} = "{package}.{each["module"]}:{each["class_name"]}"\n'
        for each in plugins
    ]
    whole = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "titles": ", ".join(each["title"] for each in plugins),
        "entry_points": "\n".join(entries),
        "parts": "".join(_filled("part.md", each) for each in plugins),
    }
    made = {
        "pyproject.toml": _filled("pyproject.toml", whole),
        "README.md": _filled("readme.md", whole),
        "Makefile": _filled("makefile", whole),
        ".github/workflows/test.yml": _filled("ci.yml", whole),
        ".gitignore": ".venv/\n__pycache__/\n",
        f"{package}/__init__.py": "",
        f"{package}/py.typed": "",
    }
    for kind, each in zip(kinds, plugins, strict=True):
        made[f"{package}/{each['module']}.py"] = _filled(f"{kind}.py", each)
        made[f"tests/{each['test']}.py"] = _filled(f"test-{each['kind']}.py", each)
        if kind == "engine":
            made[f"{package}/worker.py"] = _filled("engine-worker.py", each)
    return made


def _values(name: str, kind: str, *, alone: bool) -> dict[str, str]:
    """The values for the templates of one plugin. If it is `alone`, its module is `plugin`."""
    values = dict(_KINDS[kind])
    values |= {
        "name": name,
        "kind": "invoker" if kind == "engine" else kind,
        "Title": values["title"][0].upper() + values["title"][1:],
    }
    values["class_name"] = "".join(part.capitalize() for part in name.split("_")) + values.pop("ending")
    values["test"] = "test_contract" if alone else f"test_{values['module']}"
    values["module"] = "plugin" if alone else values["module"]
    return values


def _filled(template: str, values: Mapping[str, str]) -> str:
    text = (files("htcgrid.cli") / "templates" / "plugin" / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(values)
