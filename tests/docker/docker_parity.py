"""A function on two sides: in containers, and outside on the process plane, which tests/parity holds to AWS's emulator."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker_parts import until
from htcgrid_contracts.output_rules import KeptOutput
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options
from parity_sides import BEHAVIOURS, STACK, TASK_ROOT, invoke, outcomes, plain

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Invoker, Lease, Outcome, Task

LANGUAGES = Path(__file__).parent / "parity"
TIMEOUT = 30
"""Seconds; machines are busy, and nothing here is meant to be too slow but what says `within`."""
_LOGS = ("prints", "logs", "writes")
"""Behaviours whose log is compared too."""
_PLAIN = {r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z": "<time>", **STACK}


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
    printed: KeptOutput
    """All that the containers printed."""

    def compare(self, behaviour: str, events: list[Any]) -> None:
        """The outcomes are the same, byte for byte, and so is what is printed."""
        expected = outcomes(self.here, behaviour, events, TIMEOUT)
        found = outcomes(self.there, behaviour, events, TIMEOUT)
        assert [self._seen(outcome) for outcome in found] == [self._seen(outcome) for outcome in expected]
        if behaviour.startswith(_LOGS):
            printed = self._plain(expected[-1].log_tail)
            assert printed
            until(lambda: printed in self._logged(), 20, f"{printed!r} is in the log of the container")

    def _seen(self, outcome: Outcome) -> tuple[str, str]:
        return outcome.failure or "", self._plain(outcome.payload)

    def _plain(self, data: bytes) -> str:
        return plain(data, self.paths, _PLAIN)

    def _logged(self) -> str:
        """All that has been printed there; the plane takes it in with the next invocation."""
        invoke(self.there, Lease(Task("next", b"{}")), TIMEOUT)
        return self._plain(self.printed.everything())


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
    inside = LocalDockerInvoker(
        Options(base_image=image, workers=1), function.model_copy(update={"architecture": architecture})
    )
    inside.output = printed = KeptOutput()
    with ProcessInvoker(outside, function) as here, inside as there:
        yield Sides(here, there, {str(code): TASK_ROOT, **(paths or {})}, printed)
