"""A line that a handler printed, as it is written."""

import time
from json.encoder import encode_basestring_ascii as quoted

from htcgrid.runtime.output_lines import LINE_BYTES, split
from htcgrid.spi import Lease

LOGGER = "handler"
"""What `logger` is in the lines of handlers; those of htcgrid's own log have names that begin with `htcgrid`."""
FIELDS = {
    "time": "when the agent read the line, in Unix seconds",
    "logger": f'"{LOGGER}"; in the lines of htcgrid\'s own log, which have a `level`, a name that begins with "htcgrid"',
    "task": "the task's id; null for what was printed while no task ran, such as while the module was loaded",
    "session": "the task's session; null where it has none",
    "attempt": "how often the task was handed out, this time included; null without a task",
    "environment": "the execution environment, as results name it",
    "stream": '"stdout", "stderr", or "stdout+stderr" where both come through one pipe',
    "message": "the line, without its newline: text as it was printed, also where that is JSON",
}
"""The keys of a line and what they mean, as the documentation has them."""
_MOST_KNOWN = 10_000


class JsonLines:
    """A JSON document for each line. Called once a task from any thread, so what is the same again is kept as text."""

    def __init__(self) -> None:
        self._time = (0, "")
        self._session = ("", '""')
        self._origins: dict[tuple[str, str], str] = {}

    def __call__(self, lease: Lease | None, environment: str, text: bytes, stream: str) -> tuple[str, int]:
        """The documents, each with a newline, and their number."""
        task_id = attempt = session = "null"
        if lease is not None:
            task, attempt = lease.task, str(lease.attempt)
            task_id = quoted(task.id)
            if task.attributes and (given := task.attributes.get("session_id")) is not None:
                known, session = self._session
                if known != given:
                    session = quoted(given)
                    self._session = given, session
        now = time.time_ns() // 1_000_000
        then, clock = self._time
        if then != now:
            clock = f"{now / 1000:.3f}"
            self._time = now, clock
        origin = self._origins.get((environment, stream)) or self._origin(environment, stream)
        head = f'{{"time": {clock}, "logger": "{LOGGER}", "task": {task_id}, "session": {session}, "attempt": {attempt}, {origin}'
        if text.find(b"\n") == len(text) - 1 < LINE_BYTES:  # one line, as often
            return f"{head}{quoted(text[:-1].decode('utf-8', 'backslashreplace'))}}}\n", 1
        lines = split(text)
        return "".join([f"{head}{quoted(line.decode('utf-8', 'backslashreplace'))}}}\n" for line in lines]), len(lines)

    def _origin(self, environment: str, stream: str) -> str:
        if len(self._origins) >= _MOST_KNOWN:  # environments come and go
            self._origins.clear()
        text = f'"environment": {quoted(environment)}, "stream": {quoted(stream)}, "message": '
        self._origins[environment, stream] = text
        return text


def as_text(lease: Lease | None, environment: str, text: bytes, _stream: str) -> tuple[str, int]:
    """For people: the time, the task and the line."""
    lines = split(text)
    head = f"{time.strftime('%H:%M:%S')} {lease.task.id if lease is not None else environment}: "
    # AWS's client for Python puts a whole traceback into one line, with these between its parts.
    shown = [line.decode("utf-8", "backslashreplace").replace("\r", "\n  ") for line in lines]
    return "".join([f"{head}{line}\n" for line in shown]), len(lines)
