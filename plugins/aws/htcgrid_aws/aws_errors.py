"""Translates AWS's errors to the two of the plugin interface, `Unavailable` and `Rejected`: one table for all services."""

from __future__ import annotations

import re
from contextlib import contextmanager
from enum import Enum
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from botocore import exceptions as botocore_errors
from botocore.parsers import ResponseParserError

from htcgrid.spi import HtcgridError, Rejected, Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


class ErrorKind(Enum):
    """What an error of AWS means for the agent. The first four are temporary."""

    THROTTLED = "AWS throttles us"
    NOT_READY = "it is not ready yet"
    FAULT = "AWS has a fault"
    UNREACHABLE = "AWS cannot be reached"
    MISSING = "it does not exist"
    DENIED = "not permitted"
    EXPIRED = "expired credentials"
    UNKNOWN_CREDENTIALS = "unknown credentials"
    SIGNATURE = "wrong signature"
    OTHER_REGION = "another region"
    QUOTA = "a quota"
    SETTINGS = "wrong settings"
    REFUSED = "refused"


_CODES = {
    ErrorKind.THROTTLED: (
        "Throttling ThrottlingException ThrottlingError ThrottledException RequestThrottled RequestThrottledException "
        "TooManyRequestsException ProvisionedThroughputExceededException RequestLimitExceeded "
        "BandwidthLimitExceeded SlowDown PriorRequestNotComplete TransactionInProgressException OverLimit "
        "KMS.ThrottlingException KmsThrottled EC2ThrottledException"
    ),
    # The service answers these before a handler runs.
    ErrorKind.NOT_READY: (
        "ResourceConflictException ResourceNotReadyException SnapStartNotReadyException SnapStartTimeoutException "
        "SnapStartRegenerationFailureException CodeArtifactUserPendingException EC2UnexpectedException "
        "ENILimitReachedException ENINotReadyException SubnetIPAddressLimitReachedException EFSIOException "
        "EFSMountConnectivityException EFSMountTimeoutException S3FilesMountConnectivityException "
        "S3FilesMountTimeoutException"
    ),
    ErrorKind.FAULT: (
        "InternalError InternalFailure InternalServerError ServiceUnavailable RequestTimeout "
        "RequestTimeoutException OperationAborted ResourceInUseException IDPCommunicationError "
        # An item that somebody changes at this moment, in a transaction or in another region of a global table.
        "TransactionConflictException ReplicatedWriteConflictException"
    ),
    ErrorKind.MISSING: (
        "AWS.SimpleQueueService.NonExistentQueue QueueDoesNotExist ResourceNotFoundException NoSuchBucket 404"
    ),
    ErrorKind.DENIED: (
        "AccessDenied AccessDeniedException AllAccessDisabled AuthorizationError UnauthorizedOperation "
        "KMS.AccessDeniedException KmsAccessDenied 403"
    ),
    ErrorKind.EXPIRED: "ExpiredToken ExpiredTokenException TokenRefreshRequired",
    ErrorKind.UNKNOWN_CREDENTIALS: (
        "InvalidClientTokenId UnrecognizedClientException InvalidAccessKeyId AuthFailure MissingAuthenticationToken "
        "MissingAuthenticationTokenException IncompleteSignature"
    ),
    ErrorKind.SIGNATURE: (
        "RequestTimeTooSkewed SignatureDoesNotMatch InvalidSignatureException RequestExpired RequestInTheFuture"
    ),
    ErrorKind.OTHER_REGION: "PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException 301",
    ErrorKind.QUOTA: "CodeStorageExceededException LimitExceeded LimitExceededException ServiceQuotaExceededException",
    # Answered with 502, though only a change of a function's settings can help.
    ErrorKind.SETTINGS: (
        "InvalidRuntimeException InvalidSecurityGroupIDException InvalidSubnetIDException InvalidZipFileException "
        "EC2AccessDeniedException KMSAccessDeniedException KMSDisabledException KMSInvalidStateException "
        "KMSNotFoundException"
    ),
}
_KINDS = {code: kind for kind, codes in _CODES.items() for code in codes.split()}

_ADVICE = {
    ErrorKind.MISSING: "{resource} does not exist in this account and region; create it, or correct its name or the region.",
    ErrorKind.DENIED: "This is not permitted; allow {action} on {resource} in the policy of the role in use.",
    ErrorKind.EXPIRED: "The AWS credentials have expired; renew them (aws sso login, or a fresh session token).",
    ErrorKind.UNKNOWN_CREDENTIALS: "AWS does not know these credentials; check the profile, the keys and the account.",
    ErrorKind.SIGNATURE: (
        "The signature was refused: this machine's clock is wrong (set it by NTP), or the secret key is wrong."
    ),
    ErrorKind.OTHER_REGION: "{resource} is in another region; set region to its own.",
    ErrorKind.QUOTA: "This is a quota of the account: free what is not needed, or ask AWS for more (Service Quotas).",
    ErrorKind.SETTINGS: "The function's settings must be changed before it can run.",
}

_NO_CREDENTIALS = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.ProfileNotFound,
    botocore_errors.NoAuthTokenError,
    botocore_errors.TokenRetrievalError,
    botocore_errors.SSOError,
)
_CREDENTIALS_UNREACHABLE = (botocore_errors.CredentialRetrievalError, botocore_errors.MetadataRetrievalError)
# Raised before a byte of the request was sent.
_NOT_SENT = (
    botocore_errors.EndpointConnectionError,
    botocore_errors.ConnectTimeoutError,
    botocore_errors.ProxyConnectionError,
)
# All errors that are raised later. It is not known whether the service carried out the request.
_ANSWER_LOST = (
    botocore_errors.HTTPClientError,
    botocore_errors.ConnectionError,
    botocore_errors.ResponseStreamingError,
    botocore_errors.IncompleteReadError,
    botocore_errors.FlexibleChecksumError,
    ResponseParserError,
)

# Operations whose IAM action has another name.
_ACTIONS = {"Invoke": "lambda:InvokeFunction", "HeadObject": "s3:GetObject", "ListObjectsV2": "s3:ListBucket"}
_SERVICES = {"Role": "iam", "Log": "logs", "Object": "s3", "CallerIdentity": "sts"}


class Refused(Rejected):
    """A service's final refusal, with its error code and message."""

    def __init__(self, message: str, code: str, said: str) -> None:
        super().__init__(message)
        self.code = code
        self.said = said


@contextmanager
def translated_errors(
    action: str, resource: str, *, begun: Collection[str] = (), advice: Mapping[ErrorKind, str] | None = None
) -> Iterator[None]:
    """Translates the SDK's errors of the calls inside to `Unavailable` and `Rejected`.

    `action` is IAM's name (`sqs:SendMessage`); if empty, it is taken from the call that failed. `resource` is the user's
    name of it. `begun` names the tasks that the call runs. `advice` replaces the general advice.
    """
    try:
        yield
    except botocore_errors.ClientError as error:
        raise client_error(error, action, resource, begun=begun, advice=advice) from error
    except (botocore_errors.BotoCoreError, ResponseParserError) as error:
        what = f"{action} on {resource}" if action else resource
        raise _sdk_error(error, what, begun, advice or {}) from error
    except HtcgridError:
        raise
    except Exception as error:
        if not _was_raised_in_the_sdk(error):
            raise
        what = f"{action} on {resource}" if action else resource
        raise Rejected(
            f"{what}: the AWS SDK failed: {type(error).__name__}: {first_line(error).rstrip('. ')}. Check where the credentials come from "
            "(AWS_PROFILE, ~/.aws/config, credential_process, AWS_WEB_IDENTITY_TOKEN_FILE), that they have not expired, and "
            "endpoint_url"
        ) from error


def _was_raised_in_the_sdk(error: BaseException) -> bool:
    """Whether the error comes from the SDK, which passes on what a credentials file, token file or program makes it raise."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(str(frame.f_globals.get("__name__")).startswith("botocore.") for frame in frames)


def code_of(error: Any) -> str:
    """The code of a `ClientError`; S3's HEAD calls have only the HTTP status there."""
    return str(error.response.get("Error", {}).get("Code", ""))


def message_of(error: Any) -> str:
    """AWS's message, without the full stop."""
    found = error.response.get("Error", {}).get("Message") or error.response.get("message") or ""
    return first_line(found).rstrip(". ")


def first_line(error: object) -> str:
    """The first line of a message: the next lines may be a canonical request, which contains the session token."""
    return str(error).strip().partition("\n")[0][:300]


def client_error(
    error: Any,
    action: str,
    resource: str,
    *,
    begun: Collection[str] = (),
    advice: Mapping[ErrorKind, str] | None = None,
) -> HtcgridError:
    """The error for a service's answer: the agent waits, or stops and says what to do."""
    meta = error.response.get("ResponseMetadata", {})
    asked = meta.get("HTTPHeaders", {}).get("retry-after", "")
    return service_error(
        code_of(error),
        int(meta.get("HTTPStatusCode", 0)),
        message_of(error),
        _action(error, action),
        resource,
        reason=str(error.response.get("Reason", "")),
        retry_after=float(asked) if re.fullmatch(r"\d+(\.\d+)?", asked) else None,
        begun=begun,
        advice=advice,
    )


def kind_of(code: str, status: int) -> ErrorKind:
    """The kind of a code; if it is not in the table, the kind of the HTTP status."""
    if status == 429:
        return ErrorKind.THROTTLED
    return _KINDS.get(code, ErrorKind.FAULT if status >= 500 else ErrorKind.REFUSED)


def service_error(
    code: str,
    status: int,
    message: str,
    action: str,
    resource: str,
    *,
    reason: str = "",
    retry_after: float | None = None,
    begun: Collection[str] = (),
    advice: Mapping[ErrorKind, str] | None = None,
) -> HtcgridError:
    """The error for one code, which a whole call or one entry of a batch has failed with."""
    kind = kind_of(code, status)
    sentence = first_line(message).rstrip(". ")
    said = ": ".join(filter(None, [code, sentence])) + (f" ({reason})" if reason else "")
    what = f"{action} on {resource}"
    advised = ({**_ADVICE, **(advice or {})}).get(kind, "").replace("{action}", action).replace("{resource}", resource)
    text = f"{what}: {kind.value} ({said}). {advised}".rstrip()
    if kind is ErrorKind.THROTTLED:
        return Throttled(text, retry_after)
    if kind is ErrorKind.NOT_READY:
        return Unavailable(text, retry_after)
    if kind is ErrorKind.FAULT:
        return Unavailable(text, retry_after, begun=begun)
    return Refused(f"{what}: refused. AWS says {said}. {advised}".rstrip(), code, sentence)


def _sdk_error(error: Exception, what: str, begun: Collection[str], advice: Mapping[ErrorKind, str]) -> HtcgridError:
    """The error for an error of the SDK itself: there was no answer."""
    said = first_line(error)
    if isinstance(error, _NO_CREDENTIALS):
        return Rejected(
            f"{what}: no AWS credentials are available ({said}). Give the agent a role (IRSA, EC2, ECS), log in "
            "(aws sso login, aws configure), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, _CREDENTIALS_UNREACHABLE):
        return Unavailable(f"{what}: the AWS credentials cannot be got now: {said}")
    if isinstance(error, _NOT_SENT):
        return Unavailable(f"{what}: AWS cannot be reached: {said}. {advice.get(ErrorKind.UNREACHABLE, '')}".rstrip())
    if isinstance(error, _ANSWER_LOST):
        return Unavailable(f"{what}: AWS cannot be reached: the connection was lost: {said}", begun=begun)
    if isinstance(error, botocore_errors.NoRegionError):
        return Rejected(f'{what}: no AWS region is set; write region = "..." beside it, or set AWS_REGION')
    if isinstance(error, botocore_errors.ParamValidationError):
        said = first_line(str(error).partition("\n")[2])  # the first line is only a heading
    return Rejected(f"{what}: the AWS SDK refused the call: {said}")


def _action(error: Any, given: str) -> str:
    named = re.search(r"not authorized to perform: ([\w-]+:\w+)", message_of(error))
    if named:
        return named[1]
    if given:
        return given
    operation = str(error.operation_name)
    service = next((service for part, service in _SERVICES.items() if part in operation), "lambda")
    return _ACTIONS.get(operation, f"{service}:{operation}")
