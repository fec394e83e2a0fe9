"""A handler that does what its event says."""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

COUNT = 0


class Strange(Exception):
    pass


def handler(event: Any, context: Any) -> Any:
    global COUNT  # noqa: PLW0603 - that it lives on is what is tested
    COUNT += 1
    return DO[event["do"]](event, context) if isinstance(event, dict) and "do" in event else event


def _raise(event: Any, _context: Any) -> None:
    raise Strange(event.get("text", "too strange"))


def _eat(event: Any, _context: Any) -> None:
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 10) * (8 << 10)))
        time.sleep(0.002)


def _spin(event: Any, _context: Any) -> None:
    while True:
        pass


def _child(event: Any, _context: Any) -> int:
    """A process that goes on after the answer, in a session of its own where that is asked for."""
    code = "import time; time.sleep(300)"
    options: dict[str, Any] = {"start_new_session": event.get("session", False)}
    child = subprocess.Popen([sys.executable, "-c", code], **options)
    if event.get("then") == "spin":
        _spin(event, _context)
    if event.get("then") == "exit":
        os._exit(1)
    return child.pid


def _daemon(event: Any, _context: Any) -> int:
    """A grandchild in a session of its own whose parent has gone: nobody's but the system's."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, str(os.getpid()).encode())
            time.sleep(300)
        os._exit(0)
    os.wait()
    return int(os.read(reading, 20))


def _context(event: Any, context: Any) -> dict[str, Any]:
    return {
        "aws_request_id": context.aws_request_id,
        "function_name": context.function_name,
        "function_version": context.function_version,
        "invoked_function_arn": context.invoked_function_arn,
        "memory_limit_in_mb": context.memory_limit_in_mb,
        "log_group_name": context.log_group_name,
        "log_stream_name": context.log_stream_name,
        "remaining": context.get_remaining_time_in_millis(),
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "custom": context.client_context.custom,
        "tenant_id": context.tenant_id,
    }


def _print(event: Any, _context: Any) -> str:
    sys.stdout.write("x" * event["bytes"])
    sys.stderr.write("the end")
    return "done"


def _say(event: Any, _context: Any) -> None:
    sys.stdout.write(event["text"] + "\n")


def _log(event: Any, _context: Any) -> None:
    logging.getLogger().warning("a warning of mine")


def _decimal(event: Any, _context: Any) -> Any:
    return {1: "a", True: "c", "d": Decimal("1.50"), "t": (1, 2), "n": float("nan"), "u": "é"}  # noqa: F601 - one key, as JSON has it


async def _coroutine(event: Any) -> None:
    pass


def _await(event: Any, _context: Any) -> Any:
    coroutine = _coroutine(event)
    coroutine.close()
    return coroutine


def _exit(event: Any, _context: Any) -> None:
    sys.exit(event["status"])


def _kill(event: Any, _context: Any) -> None:
    signal.signal(event["signal"], signal.SIG_DFL) if event["signal"] != signal.SIGKILL else None
    os.kill(os.getpid(), event["signal"])
    time.sleep(10)


def _sleep(event: Any, _context: Any) -> str:
    time.sleep(event["seconds"])
    return "slept"


def _mark(event: Any, _context: Any) -> None:
    Path(event["path"]).write_text("x")
    time.sleep(event.get("seconds", 0))


DO: dict[str, Any] = {
    "raise": _raise,
    "eat": _eat,
    "spin": _spin,
    "child": _child,
    "daemon": _daemon,
    "context": _context,
    "id_in_ascii": lambda event, context: ascii(context.client_context.custom["task_id"]),
    "print": _print,
    "say": _say,
    "log": _log,
    "json": _decimal,
    "await": _await,
    "exit": _exit,
    "kill": _kill,
    "sleep": _sleep,
    "mark": _mark,
    "abort": lambda event, context: os._exit(event["status"]),
    "crash": lambda event, context: ctypes.string_at(0),
    "interrupt": lambda event, context: (_ for _ in ()).throw(KeyboardInterrupt),
    "large": lambda event, context: "x" * event["bytes"],
    "bytes": lambda event, context: json.dumps(event).encode(),
    "set": lambda event, context: {1, 2},
    "generator": lambda event, context: (n for n in ()),
    "none": lambda event, context: None,
    "pid": lambda event, context: os.getpid(),
    "count": lambda event, context: COUNT,
    "environment": lambda event, context: dict(os.environ),
    "path": lambda event, context: [str(Path.cwd()), sys.path[0]],
    "fds": lambda event, context: [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()],
    "error": lambda event, context: {"errorType": "Looks", "errorMessage": "like", "stackTrace": []},
}
