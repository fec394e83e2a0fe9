"""A computation of a given length, as long as its event says."""

import time


def lambda_handler(event, context):
    """`worker_arguments`: milliseconds of computation, repetitions, and KB of the answer."""
    milliseconds, repetitions, kilobytes = (int(text) for text in event["worker_arguments"])
    turns = 0
    for _ in range(repetitions):
        end = time.perf_counter() + milliseconds / 1000
        while time.perf_counter() < end:
            turns += 1
    return {"computed_ms": milliseconds * repetitions, "turned": turns > 0, "data": "x" * (kilobytes * 1024)}
