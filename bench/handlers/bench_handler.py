"""What the measurements run."""

import os
import time


def noop(event, context):
    return event


def spin(event, context):
    """Compute for `ms` milliseconds."""
    end = time.perf_counter() + event["ms"] / 1000
    while time.perf_counter() < end:
        pass


def sleep(event, context):
    """Wait for `ms` milliseconds. Returns the number of the environment's process."""
    time.sleep(event["ms"] / 1000)
    return os.getpid()
