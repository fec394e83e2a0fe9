"""The handler that every plane runs in the conformance kit: its event says what it does.

An event is `{"do": NAME, ...}`. It imports the standard library only, and deploys as this one file.
"""

import importlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

Event = dict[str, Any]

ENVIRONMENT = uuid.uuid4().hex
"""Differs in each execution environment, whatever the plane calls it."""

_executions = 0


class ContractError(Exception):
    """What `raise` raises; its name must arrive as `errorType`."""


def handler(event: Event, context: Any) -> Any:
    """Do what the event says. Every call counts as an execution of this environment."""
    global _executions  # noqa: PLW0603 - Lambda keeps module globals between invocations: that is the point
    _executions += 1
    if "mark" in event:
        mark(event["mark"])
    if "print" in event:
        print(event["print"])  # handlers do not flush: on AWS Lambda it is in the log all the same
    return ACTIONS[event["do"]](event, context)


def mark(path: str) -> None:
    """Leave a line behind where a test can read it, however this execution ends."""
    with open(path, "a") as marks:  # noqa: PTH123
        marks.write(f"{os.getpid()}\n")


def echo(event: Event, context: Any) -> Any:
    """Return `value`."""
    return event["value"]


def count(event: Event, context: Any) -> Any:
    """Return which execution of which environment this is, with the time it began and ended."""
    began = time.time()
    time.sleep(event.get("seconds", 0))
    found = {"environment": ENVIRONMENT, "execution": _executions, "began": began, "ended": time.time()}
    return {**found, "pid": os.getpid()}


def describe(event: Event, context: Any) -> Any:
    """Return what the context holds, the variables of `names`, and after `seconds` the time that is left then."""
    client = context.client_context
    remaining = context.get_remaining_time_in_millis()
    time.sleep(event.get("seconds", 0))
    return {
        "aws_request_id": context.aws_request_id,
        "function_name": context.function_name,
        "function_version": context.function_version,
        "invoked_function_arn": context.invoked_function_arn,
        "memory_limit_in_mb": context.memory_limit_in_mb,
        "remaining_ms": remaining,
        "remaining_later_ms": context.get_remaining_time_in_millis(),
        "custom": client.custom if client else None,
        "variables": {name: os.environ.get(name) for name in event.get("names", ())},
    }


def identify(event: Event, context: Any) -> Any:
    """Return who this is for AWS, and its trace; `later` is the key that is there `seconds` later."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    keys = [os.environ.get(name) for name in names]
    time.sleep(event.get("seconds", 0))
    return {
        "keys": keys,
        "later": os.environ.get(names[0]),
        "region": os.environ.get("AWS_REGION"),
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
    }


def fail(event: Event, context: Any) -> Any:
    """Raise, saying which execution this is."""
    raise ContractError(f"{event.get('message', 'told to')} {ENVIRONMENT} {_executions}")


def end(event: Event, context: Any) -> Any:
    """End the process: as `sys.exit` does, or at once; with `child`, leave a process behind for so many seconds."""
    print("ending")
    if "child" in event and not os.fork():  # it holds all that its parent had open, as those of multiprocessing do
        time.sleep(event["child"])
        os._exit(0)
    if event.get("at_once"):
        os._exit(event.get("status", 0))
    sys.exit(event.get("status", 0))


def end_later(event: Event, context: Any) -> Any:
    """Answer, and end the process `seconds` later."""
    threading.Timer(event["seconds"], os._exit, [3]).start()
    return _executions


def kill(event: Event, context: Any) -> Any:
    """End the process by a signal, KILL unless told."""
    os.kill(os.getpid(), event.get("signal", signal.SIGKILL))
    time.sleep(60)


def spin(event: Event, context: Any) -> Any:
    """Keep the processor busy and never answer."""
    while True:
        pass


def sleep(event: Event, context: Any) -> Any:
    """Answer `value` after `seconds`, and leave a mark at `after`.

    With `helper`, a program runs meanwhile that a shell has started and left behind; it is an error if that ends before.
    """
    helper, its_end = _left_behind(int(event["seconds"]) + 60) if event.get("helper") else (0, -1)
    time.sleep(event["seconds"])
    if helper:
        has_ended, _, _ = select.select([its_end], [], [], 0)
        os.close(its_end)
        if has_ended:
            raise ContractError("a program that this handler had started was ended while the handler ran")
        os.kill(helper, signal.SIGKILL)
    if "after" in event:
        mark(event["after"])
    return event.get("value")


def _left_behind(seconds: int) -> tuple[int, int]:
    """Start a program by a shell that ends at once. Returns its process id, and a pipe that can be read once it has ended.

    The process id is 0 where no program can be started: an image may be without a shell.
    """
    reading, writing = os.pipe()
    command = ["/bin/sh", "-c", 'sleep "$0" </dev/null >/dev/null 2>&1 & echo $!', str(seconds)]
    try:
        process = int(subprocess.check_output(command, pass_fds=[writing]))
    except (OSError, subprocess.SubprocessError):
        os.close(reading)
        return 0, -1
    finally:
        os.close(writing)
    return process, reading


def spawn(event: Event, context: Any) -> Any:
    """Start a process that leaves a mark at `after` in `seconds`, and take longer than that."""
    subprocess.Popen(["/bin/sh", "-c", 'sleep "$0"; echo $$ >> "$1"', str(event["seconds"]), event["after"]])
    time.sleep(event["seconds"] + 60)


def eat(event: Event, context: Any) -> Any:
    """Take `mb` MiB of memory, and touch it."""
    eaten = [bytearray(os.urandom(1024)) * 1024 for _ in range(event["mb"])]
    time.sleep(event.get("seconds", 5))
    return len(eaten)


def big(event: Event, context: Any) -> Any:
    """Answer with a text of `bytes` bytes, its quotes included."""
    return "x" * (event["bytes"] - 2)


def one_key_twice(event: Event, context: Any) -> Any:
    """Answer with an object that has a key twice, which no parser keeps."""
    return {1: "first", "1": "second"}


def unserialisable(event: Event, context: Any) -> Any:
    """Answer with what JSON cannot hold."""
    return {1, 2, 3}


def looks_like_an_error(event: Event, context: Any) -> Any:
    """Answer with a document that a failure might have left; it is an answer all the same."""
    return {"errorMessage": "an answer", "errorType": "Answer", "requestId": "", "stackTrace": []}


def say(event: Event, context: Any) -> Any:
    """Print `text`, and `end` behind it, on the standard output or on `stream`; `seconds` before it the bytes of `hex`."""
    sys.stdout.buffer.write(bytes.fromhex(event.get("hex", "")))
    sys.stdout.flush()
    time.sleep(event.get("seconds", 0))
    print(event["text"], end=event.get("end", "\n"), file=getattr(sys, event.get("stream", "stdout")))
    return len(event["text"])


def use_layer(event: Event, context: Any) -> Any:
    """Return what the kit's layer holds."""
    return importlib.import_module("contract_layer").CONTENT


ACTIONS = {
    "big": big,
    "count": count,
    "describe": describe,
    "eat": eat,
    "echo": echo,
    "end": end,
    "end_later": end_later,
    "fail": fail,
    "identify": identify,
    "kill": kill,
    "looks_like_an_error": looks_like_an_error,
    "one_key_twice": one_key_twice,
    "say": say,
    "sleep": sleep,
    "spawn": spawn,
    "spin": spin,
    "unserialisable": unserialisable,
    "use_layer": use_layer,
}
