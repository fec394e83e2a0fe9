"""A function on two sides: in containers, and outside on the process plane, which tests/parity holds to AWS's emulator."""

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from uuid import UUID, uuid5

from docker_parts import until
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Invoker, Lease, Outcome, Task

PARITY = Path(__file__).parents[1] / "parity"
LANGUAGES = Path(__file__).parent / "parity"
TIMEOUT = 30
"""Seconds; machines are busy, and nothing here is meant to be too slow but what says `within`."""
TIMEOUTS = [{"do": "exits_with_0"}, {"do": "counts"}, {"do": "sleeps", "seconds": 60, "within": 1}, {"do": "counts"}]
TASK_ROOT = "/var/task"
_LOGS = ("prints", "logs", "writes")
"""Behaviours whose log is compared too."""
_PLAIN = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z": "<time>",
    # Another release of the same Python has other lines there.
    r'File \\"[^"]*importlib[^"]*\\", line \d+': "<importlib>",
}


def _table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_table", PARITY / "test_parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_TABLE = _table()
_LEFT_OUT = {
    "time_of_the_deadline": "it is asked for within milliseconds, of a clock",
    "signals": "the process plane inherits what the shell that runs the tests ignores; test_limits.py asks for it by itself",
}
BEHAVIOURS: Mapping[str, list[Any]] = {
    name: events for name, events in _TABLE.BEHAVIOURS.items() if name not in _LEFT_OUT
}
INITS: Mapping[str, str] = _TABLE.INITS


def known(handlers: str, name: str) -> Mapping[str, list[Any]]:
    """The behaviours of the table that these handlers have a function for, and their own; `name` is what one looks like."""
    names = set(re.findall(name, (LANGUAGES / handlers).read_text(), re.MULTILINE))
    found = {key: events for key, events in BEHAVIOURS.items() if _asked(events) <= names}
    parts = {"echo", "length", "variable", "sleeps", "a_large_answer"}
    own = names - parts - set().union(*map(_asked, found.values()))
    return found | {key: [{"do": key, "timeout": TIMEOUT}] for key in sorted(own)}


def _asked(events: list[Any]) -> set[str]:
    return {event["do"] for event in events if isinstance(event, dict) and "do" in event}


@dataclass(frozen=True)
class Sides:
    """One function here, on the process plane, and there, in a container."""

    here: Invoker
    there: Invoker
    paths: Mapping[str, str]
    """What lies elsewhere in a container: by its path here, where."""
    logs: Path
    """The folder of the containers' log files."""

    def compare(self, behaviour: str, events: list[Any]) -> None:
        """The outcomes are the same, byte for byte, and so is what is printed."""
        expected = self._outcomes(self.here, behaviour, events)
        found = self._outcomes(self.there, behaviour, events)
        assert [self._seen(outcome) for outcome in found] == [self._seen(outcome) for outcome in expected]
        if behaviour.startswith(_LOGS):
            printed = self._plain(expected[-1].log_tail)
            assert printed
            until(lambda: printed in self._logged(), 20, f"{printed!r} is in the log of the container")

    def _outcomes(self, plane: Invoker, behaviour: str, events: list[Any]) -> list[Outcome]:
        outcomes = []
        for number, event in enumerate(events):
            timeout = event.get("within", TIMEOUT) if isinstance(event, dict) else TIMEOUT
            payload = event if isinstance(event, bytes) else json.dumps(_timed(event)).encode()
            task = Task(str(uuid5(UUID(int=0), f"{behaviour} {number}")), payload)
            outcomes.append(_outcome(plane, Lease(task), timeout))
        return outcomes

    def _seen(self, outcome: Outcome) -> tuple[str, str]:
        return outcome.failure or "", self._plain(outcome.payload)

    def _plain(self, data: bytes) -> str:
        text = data.decode(errors="surrogateescape")
        for path, there in self.paths.items():
            text = text.replace(path, there)
        for pattern, plain in _PLAIN.items():
            text = re.sub(pattern, plain, text)
        return text

    def _logged(self) -> str:
        """All that has been printed there; the plane takes it in with the next invocation."""
        _outcome(self.there, Lease(Task("next", b"{}")), TIMEOUT)
        return "".join(self._plain(path.read_bytes()) for path in self.logs.iterdir())


def _timed(event: Any) -> Any:
    return event | {"timeout": TIMEOUT} if isinstance(event, dict) and "timeout" in event else event


def _outcome(plane: Invoker, lease: Lease, timeout: float) -> Outcome:
    """As an agent does: what was given back because its environment had just ended is handed in again."""
    while True:
        (report,) = plane.invoke([lease], timeout)
        if isinstance(report, Outcome):
            return report


@contextmanager
def sides(
    image: str,
    code: Path,
    handler: str,
    runtime: str,
    *,
    architecture: str = "",
    paths: Mapping[str, str] | None = None,
) -> Iterator[Sides]:
    """Both sides, one environment each."""
    function = Function(handler=handler, name="parity", code=code, timeout=TIMEOUT, runtime=runtime)
    outside = ProcessInvoker.Config(workers=1, transport="http")
    with (
        TemporaryDirectory() as logs,
        ProcessInvoker(outside, function) as here,
        LocalDockerInvoker(
            Options(base_image=image, workers=1, logs=Path(logs)),
            function.model_copy(update={"architecture": architecture}),
        ) as there,
    ):
        yield Sides(here, there, {str(code): TASK_ROOT, **(paths or {})}, Path(logs))


def pythons_code(folder: Path) -> Path:
    """The handlers of the table, and those that do not come up."""
    shutil.copytree(PARITY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PARITY / "inits", folder, dirs_exist_ok=True)
    (folder / "wrong_syntax.py").write_text("def handler(event, context)\n    return 1\n")
    folder.chmod(0o755)
    return folder
