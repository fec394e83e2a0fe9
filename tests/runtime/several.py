"""Handlers that test_transports.py runs on every transport."""

# ruff: noqa: ANN001, ANN201 - handlers, as users write them

import os
import time

time.sleep(float(os.environ.get("INIT_SECONDS", "0")))


def echo(event, context):
    return event


def doing(event, context):
    if event["do"] == "sleep":
        time.sleep(event["seconds"])
    if event["do"] == "allocate":
        kept = bytearray(event["mb"] << 20)
        kept[::4096] = b"x" * len(kept[::4096])
        time.sleep(event["seconds"])
    return event.get("value")
