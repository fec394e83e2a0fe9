"""The fixtures `plane` and `lambda_function`, and what they hand to tests."""

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from htcgrid import config as settings
from htcgrid.spi import FailureKind, HtcgridError, Invoker, Lease, Outcome, Task, Unavailable

_UNSTARTED_AT_MOST = 20


class LambdaError(Exception):
    """The handler failed. `document` is Lambda's error document, `kind` says what ended the invocation."""

    def __init__(self, outcome: Outcome) -> None:
        assert outcome.failure is not None
        self.outcome = outcome
        self.kind: FailureKind = outcome.failure
        self.document: Mapping[str, Any] = json.loads(outcome.payload)
        super().__init__(self._text())

    def _text(self) -> str:
        document = self.document
        lines = [f"{document.get('errorType')}: {document.get('errorMessage')} ({self.kind})"]
        lines += [line.rstrip() for line in document.get("stackTrace") or ()]
        if self.outcome.log_tail:
            lines += ["log:", self.outcome.log_tail.decode(errors="replace").rstrip()]
        return "\n".join(lines)


class LambdaFunction:
    """The handler on a plane: call it with an event and have its answer, or a `LambdaError`."""

    def __init__(self, plane: Invoker) -> None:
        self.plane = plane

    def __call__(self, event: Any, timeout: float | None = None, **attributes: str) -> Any:
        """Invoke the handler. `timeout` is in seconds, the function's by default; `attributes` are the task's."""
        outcome = self.invoke(event, timeout, **attributes)
        if outcome.failure is not None:
            raise LambdaError(outcome)
        return json.loads(outcome.payload)

    def invoke(self, event: Any, timeout: float | None = None, **attributes: str) -> Outcome:
        """The whole outcome, failed or not: with times, memory and the end of the log."""
        lease = Lease(Task(str(uuid.uuid4()), json.dumps(event).encode(), attributes))
        for _ in range(_UNSTARTED_AT_MOST):
            for report in self.plane.invoke([lease], timeout or self.plane.function.timeout):
                if isinstance(report, Outcome):
                    return report
        raise Unavailable(f"The plane said {_UNSTARTED_AT_MOST} times that it had not begun the event.")


def plane_fixtures(config: pytest.Config) -> object:
    """A pytest plugin whose `plane` stands for each plane that `--plane` names."""
    names: list[str | None] = [*_names(config.getoption("--plane"))]

    class Planes:
        @pytest.fixture(scope="session", params=names or [None], ids=str if names else lambda _: "configured")
        @staticmethod
        def plane(request: pytest.FixtureRequest) -> Iterator[Invoker]:
            """A compute plane, open, with the function of the config."""
            strict = request.config.getoption("--strict-planes")
            with contextlib.ExitStack() as opened:
                try:
                    invoker = _invoker(request.config, request.param)
                    with contextlib.chdir(_file(request.config).parent):
                        opened.enter_context(invoker)
                except settings.ConfigError as error:
                    pytest.fail(str(error), pytrace=False)
                except HtcgridError as error:
                    reason = f"plane {request.param or ''}: {error}"
                    pytest.fail(reason, pytrace=False) if strict else pytest.skip(reason)
                yield invoker

        @pytest.fixture(scope="session")
        @staticmethod
        def lambda_function(plane: Invoker) -> LambdaFunction:
            """The config's handler on that plane: call it with an event."""
            return LambdaFunction(plane)

    return Planes()


def _names(option: str | None) -> list[str]:
    names = [name.strip() for name in option.split(",")] if option is not None else []
    if not all(names) or len(set(names)) < len(names):
        message = (
            f"--plane {option}: name planes of the config, each once, with commas between, as in --plane local,docker"
        )
        raise pytest.UsageError(message)
    return names


def _file(config: pytest.Config) -> Path:
    named: Path | None = config.getoption("--grid")
    if named:
        return named.resolve()
    here = config.invocation_params.dir
    asked = [here / argument.partition("::")[0] for argument in config.args]
    folders = [here, *(path if path.is_dir() else path.parent for path in asked)]
    files = [folder / settings.DEFAULT_FILE for folder in folders]
    root = config.rootpath / settings.DEFAULT_FILE
    return next((file for file in files if file.exists()), root).resolve()


def _invoker(config: pytest.Config, name: str | None) -> Invoker:
    file = _file(config)
    with contextlib.chdir(file.parent if file.parent.is_dir() else config.rootpath):
        grid = settings.read(file, {"plane": name} if name else {})
        function = grid.settings.function
        # Paths of a config are relative to its folder, and tests run in another.
        absolute = function.model_copy(update={"code": function.code.resolve()})
        return grid.serving(absolute).invoker()
