"""What AWS answered when it did not do what it was asked: its error codes, sorted and explained."""

import re
from collections.abc import Collection

from botocore.exceptions import ClientError
from htcgrid.spi import FailureKind, HtcgridError, Rejected, Unavailable

from htcgrid_aws_lambda.target import Target


class Throttled(Unavailable):
    """429: more calls at once, or a second, than the account or the function may have."""


class EventRefused(Rejected):
    """The service will not take this event, whatever becomes of others: a failure of the task, not of the plane."""

    def __init__(self, kind: FailureKind, code: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


_EVENT_REFUSED = {
    "RequestTooLargeException": FailureKind.PAYLOAD_TOO_LARGE,
    "SerializedRequestEntityTooLargeException": FailureKind.PAYLOAD_TOO_LARGE,
    "InvalidRequestContentException": FailureKind.INVALID_EVENT,  # not JSON as AWS reads it: NaN, for one
}
_THROTTLED = frozenset(
    "TooManyRequestsException Throttling ThrottlingException RequestLimitExceeded "
    "SlowDown EC2ThrottledException".split()
)
_EXPIRED = frozenset("ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired".split())
_NOT_KNOWN = frozenset(
    "UnrecognizedClientException InvalidClientTokenId InvalidSignatureException SignatureDoesNotMatch "
    "IncompleteSignature MissingAuthenticationToken MissingAuthenticationTokenException InvalidAccessKeyId".split()
)
_DENIED = frozenset("AccessDenied AccessDeniedException UnauthorizedOperation".split())
_QUOTA = frozenset(
    "CodeStorageExceededException LimitExceeded LimitExceededException ServiceQuotaExceededException".split()
)

# The function is not ready, and the service says so before the handler runs. It may be later.
_NOT_READY = frozenset(
    "ResourceConflictException ResourceNotReadyException SnapStartNotReadyException SnapStartTimeoutException "
    "SnapStartRegenerationFailureException CodeArtifactUserPendingException EC2UnexpectedException "
    "ENILimitReachedException ENINotReadyException SubnetIPAddressLimitReachedException EFSIOException "
    "EFSMountConnectivityException EFSMountTimeoutException S3FilesMountConnectivityException "
    "S3FilesMountTimeoutException".split()
)

# Answered with 502 though nothing but a change of the function's settings can help.
_BROKEN = frozenset(
    "InvalidRuntimeException InvalidSecurityGroupIDException InvalidSubnetIDException InvalidZipFileException "
    "EC2AccessDeniedException KMSAccessDeniedException KMSDisabledException KMSInvalidStateException "
    "KMSNotFoundException".split()
)

_ADVICE = (
    (
        _EXPIRED,
        "The credentials have run out: log in again, then start again; tasks that did not run are still queued.",
    ),
    (_QUOTA, "This is a quota of the account: free what is not needed, or ask AWS for more (Service Quotas)."),
    (
        {"ResourceNotFoundException"},
        (
            "There is no such function, alias or version in this region: check `region`, `[function] name` and "
            '`qualifier` ("$LATEST" where there is no alias), or run `htcgrid deploy`.'
        ),
    ),
    (_BROKEN, "The function's settings must be changed before it can run."),
)

# Operations whose IAM action has another name.
_ACTIONS = {"Invoke": "lambda:InvokeFunction", "HeadObject": "s3:GetObject", "ListObjectsV2": "s3:ListBucket"}


def of_refusal(error: ClientError, target: Target, task_ids: Collection[str] = ()) -> HtcgridError:
    """`Unavailable` or `Rejected`, with AWS's message and what to do about it."""
    code, message = code_of(error), message_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"AWS refused {error.operation_name} of {target.who} in {target.where}: {code}: {message}"
    if status == 429 or code in _THROTTLED:
        reason = error.response.get("Reason", "")
        quota = f" ({reason}). If it lasts, lower `concurrency` or ask AWS for a higher quota." if reason else ""
        return Throttled(f"{said}{quota}", _retry_after(error))
    if code in _EVENT_REFUSED:
        return EventRefused(_EVENT_REFUSED[code], code, message)
    if code in _NOT_READY:
        return Unavailable(f"{said}. The function is not ready; `htcgrid status` shows its state.", _retry_after(error))
    if status >= 500 and code not in _BROKEN:
        return Unavailable(f"{said}. The handler may have run.", _retry_after(error), begun=task_ids)
    return Rejected(f"{said}. {_advice(code, error, target)}".rstrip())


def code_of(error: ClientError) -> str:
    """AWS's error code, such as `ResourceNotFoundException`."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def message_of(error: ClientError) -> str:
    """AWS's sentence, without a full stop."""
    found = error.response.get("Error", {}).get("Message") or error.response.get("message") or "no message"
    return str(found).rstrip(". ")


def _retry_after(error: ClientError) -> float | None:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    asked = headers.get("retry-after", "")
    return float(asked) if re.fullmatch(r"\d+(\.\d+)?", asked) else None


def _advice(code: str, error: ClientError, target: Target) -> str:
    if code in _NOT_KNOWN:
        return (
            "AWS does not accept these credentials here: check the profile, the clock of this machine, and that the "
            f"region {target.region!r} is right and enabled for the account."
        )
    if code in _DENIED:
        return f"Allow the caller `{_action(error)}`, or choose another `profile`."
    return next((advice for codes, advice in _ADVICE if code in codes), "")


def _action(error: ClientError) -> str:
    named = re.search(r"not authorized to perform: ([\w-]+:\w+)", message_of(error))
    if named:
        return named.group(1)
    operation = error.operation_name
    return _ACTIONS.get(operation, f"{_service_of(operation)}:{operation}")


def _service_of(operation: str) -> str:
    if "Role" in operation:
        return "iam"
    if "Log" in operation:
        return "logs"
    if "Object" in operation:
        return "s3"
    return "sts" if operation == "GetCallerIdentity" else "lambda"
