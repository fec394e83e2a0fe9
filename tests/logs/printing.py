"""A handler that prints what its event says, in the ways in which handlers print."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

Event = dict[str, Any]


def handler(event: Event, context: Any) -> None:
    ACTIONS[event["do"]](event)


def lines(event: Event) -> None:
    """`count` lines; killed behind the line `dies_behind`, in the middle of the next one."""
    name, filling = event["name"], "." * event.get("width", 20)
    for number in range(event["count"]):
        say(f"{name} line {number:07} {filling}")
        if number == event.get("dies_behind"):
            os.write(1, f"{name} is cut".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def unended(event: Event) -> None:
    sys.stdout.write(event["text"])
    sys.stdout.flush()


def child(event: Event) -> None:
    subprocess.run(["/bin/sh", "-c", f"echo '{event['text']}'"], check=True)


def error(event: Event) -> None:
    sys.stderr.write(event["text"] + "\n")


def raw(event: Event) -> None:
    os.write(1, bytes.fromhex(event["hex"]))


def long(event: Event) -> None:
    os.write(1, b"y" * event["bytes"] + b"\n")


def hang(event: Event) -> None:
    say(event["text"])
    time.sleep(60)


def without_waiting(event: Event) -> None:
    """Its standard output does not wait for a reader any more, as some programs leave it."""
    os.set_blocking(1, False)
    say(event["text"])


def silent(event: Event) -> None:
    pass


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


ACTIONS = {
    "child": child,
    "error": error,
    "hang": hang,
    "lines": lines,
    "long": long,
    "raw": raw,
    "silent": silent,
    "unended": unended,
    "without_waiting": without_waiting,
}
say("loading")
