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


def lost_with_its_plane(attempts: int, reason: str) -> bytes:
    """Whenever this task ran, the plane was lost with it."""
    message = f"The plane was lost {attempts} times while this task ran, the last time so: {reason}"
    return json.dumps({"errorType": "Htcgrid.PlaneLost", "errorMessage": message}).encode()
