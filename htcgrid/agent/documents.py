"""The error documents of failures that no plane has seen."""

import json


def not_storable(reason: str) -> bytes:
    """The sink can never store this answer."""
    return json.dumps({"errorType": "Htcgrid.ResultRejected", "errorMessage": reason}).encode()


def invalid_event(reason: str) -> bytes:
    """The source could make no task of what it found. The type is AWS's runtime client's for such events."""
    return json.dumps({"errorType": "Runtime.UnmarshalError", "errorMessage": reason}).encode()


def lost_with_its_plane(attempts: int, reason: str) -> bytes:
    """Whenever this task ran, the plane was lost with it."""
    message = f"The plane was lost {attempts} times while this task ran, the last time so: {reason}"
    return json.dumps({"errorType": "Htcgrid.PlaneLost", "errorMessage": message}).encode()
