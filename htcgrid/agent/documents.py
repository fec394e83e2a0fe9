"""The error documents of failures that no plane has seen."""

import json

from htcgrid.spi import FailureKind


def not_storable(reason: str) -> bytes:
    """The sink can never store this answer."""
    return json.dumps({"errorType": "Htcgrid.ResultRejected", "errorMessage": reason}).encode()


def not_run(failure: FailureKind, reason: str) -> bytes:
    """The source lent it as one that is not to run; the type of bad events is AWS's runtime client's for them."""
    kind = "Htcgrid.Cancelled" if failure is FailureKind.CANCELLED else "Runtime.UnmarshalError"
    return json.dumps({"errorType": kind, "errorMessage": reason}).encode()


def never_begun(attempts: int, reason: str) -> bytes:
    """The plane would not begin this task, time and again and for long."""
    message = f"The plane did not begin this task in {attempts} tries, each of them long; the last time: {reason}"
    return json.dumps({"errorType": "Htcgrid.NotBegun", "errorMessage": message}).encode()


def cancelled_unasked(attempts: int) -> bytes:
    """The plane keeps stopping it, and nobody has asked for that."""
    message = f"The plane reported this task as cancelled {attempts} times, though nobody cancelled it."
    return json.dumps({"errorType": "Htcgrid.CancelledUnasked", "errorMessage": message}).encode()


def lost_with_its_plane(attempts: int, reason: str) -> bytes:
    """Whenever this task ran, the plane was lost with it."""
    message = f"The plane was lost {attempts} times while this task ran, the last time so: {reason}"
    return json.dumps({"errorType": "Htcgrid.PlaneLost", "errorMessage": message}).encode()
