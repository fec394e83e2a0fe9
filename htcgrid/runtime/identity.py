"""The names that an invocation goes by."""

from hashlib import sha1
from uuid import NAMESPACE_OID, UUID, uuid4

ACCOUNT = "012345678912"
VERSION = "$LATEST"
_NAMESPACE = NAMESPACE_OID.bytes
_NUMBERED = "00000000-0000-8000-8000-"
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""A hexadecimal digit, and the one with the same last two bits and the first two of RFC 9562."""


def request_id(task_id: str) -> str:
    """The `aws_request_id` of a task: its id where that is a UUID, else a UUID made from it (version 5).

    A retry of the same task has the same request id, as on AWS Lambda. A line number is kept legible:
    task 1234 has 00000000-0000-8000-8000-000000001234 (version 8, which RFC 9562 leaves to the maker).
    """
    if len(task_id) <= 12 and task_id.isdecimal() and task_id.isascii() and task_id[0] != "0":
        return _NUMBERED + task_id.zfill(12)
    if len(task_id) == 36 and _is_uuid(task_id):
        return task_id
    # What uuid.uuid5 does, at a quarter of its cost: this runs once a task.
    digest = sha1(_NAMESPACE + task_id.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def function_arn(name: str, region: str, role_arn: str = "") -> str:
    """The ARN that a handler sees as `invoked_function_arn` on planes that have no account.

    Handlers make names of queues and topics from it. So where they act as a role, it has the role's account, as on AWS.
    """
    _, partition, _, _, account, *_ = [*role_arn.split(":"), *[""] * 5]
    return f"arn:{partition or 'aws'}:lambda:{region}:{account or ACCOUNT}:function:{name}"


def environment_id() -> str:
    """A name for a new execution environment, unique enough for a log."""
    return uuid4().hex
