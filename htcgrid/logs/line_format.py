"""A line that a handler printed, as it is written."""

import time
from json.encoder import encode_basestring_ascii as quoted

from htcgrid.runtime.output_lines import LINE_BYTES, split
from htcgrid.spi import Lease

LOGGER = "handler"
"""What `logger` is in the lines of handlers; those of htcgrid's own log have names that begin with `htcgrid`."""


def as_json(lease: Lease | None, environment: str, text: bytes, stream: str) -> tuple[str, int]:
    """A JSON document for each line, and their number. Runs once a task, so it is written for speed."""
    task_id = attempt = session = "null"
    if lease is not None:
        task, attempt = lease.task, str(lease.attempt)
        task_id = quoted(task.id)
        if task.attributes and (given := task.attributes.get("session_id")) is not None:
            session = quoted(given)
    head = (
        f'{{"time": {time.time():.3f}, "logger": "{LOGGER}", "task": {task_id}, "session": {session}, "attempt": {attempt}, '
        f'"environment": {quoted(environment)}, "stream": {quoted(stream)}, "message": '
    )
    if text.find(b"\n") == len(text) - 1 < LINE_BYTES:  # one line, as often
        return f"{head}{quoted(text[:-1].decode('utf-8', 'backslashreplace'))}}}\n", 1
    lines = split(text)
    return "".join([f"{head}{quoted(line.decode('utf-8', 'backslashreplace'))}}}\n" for line in lines]), len(lines)


def as_text(lease: Lease | None, environment: str, text: bytes, _stream: str) -> tuple[str, int]:
    """For people: the time, the task and the line."""
    lines = split(text)
    head = f"{time.strftime('%H:%M:%S')} {lease.task.id if lease is not None else environment}: "
    # AWS's client for Python puts a whole traceback into one line, with these between its parts.
    shown = [line.decode("utf-8", "backslashreplace").replace("\r", "\n  ") for line in lines]
    return "".join([f"{head}{line}\n" for line in shown]), len(lines)
