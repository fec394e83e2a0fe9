"""AWS's errors, told in htcgrid's two words: `Unavailable` and `Rejected`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore import exceptions as botocore_errors
from botocore.parsers import ResponseParserError

from htcgrid.spi import HtcgridError, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


THROTTLED = _codes(
    "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException "
    "TooManyRequestsException ProvisionedThroughputExceededException RequestLimitExceeded "
    "BandwidthLimitExceeded SlowDown PriorRequestNotComplete TransactionInProgressException OverLimit "
    "KMS.ThrottlingException KmsThrottled ThrottlingError"
)
FAULTS = _codes(
    "InternalError InternalFailure InternalServerError ServiceUnavailable RequestTimeout "
    "RequestTimeoutException OperationAborted ResourceInUseException"
)
MISSING = _codes("AWS.SimpleQueueService.NonExistentQueue QueueDoesNotExist ResourceNotFoundException NoSuchBucket 404")
DENIED = _codes(
    "AccessDenied AccessDeniedException AllAccessDisabled AuthorizationError UnauthorizedOperation "
    "KMS.AccessDeniedException KmsAccessDenied 403"
)
EXPIRED = _codes("ExpiredToken ExpiredTokenException TokenRefreshRequired")
UNKNOWN_KEY = _codes("InvalidClientTokenId UnrecognizedClientException InvalidAccessKeyId AuthFailure")
SKEWED = _codes(
    "RequestTimeTooSkewed SignatureDoesNotMatch InvalidSignatureException RequestExpired RequestInTheFuture"
)
ELSEWHERE = _codes("PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException 301")

NO_CREDENTIALS = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.ProfileNotFound,
    botocore_errors.NoAuthTokenError,
    botocore_errors.SSOError,
)
UNREACHABLE = (
    botocore_errors.HTTPClientError,
    botocore_errors.ConnectionError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.MetadataRetrievalError,
    botocore_errors.ResponseStreamingError,
    botocore_errors.IncompleteReadError,
    botocore_errors.FlexibleChecksumError,
    ResponseParserError,
)


@contextmanager
def translated_errors(action: str, resource: str) -> Iterator[None]:
    """Around a call to AWS: `action` as IAM writes it (`sqs:SendMessage`), `resource` as the user named it."""
    try:
        yield
    except botocore_errors.ClientError as error:
        raise client_error(error, action, resource) from error
    except NO_CREDENTIALS as error:
        message = (
            f"{action} on {resource}: no AWS credentials to be had ({error}). Give the agent a role (IRSA, EC2, ECS), "
            "or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
        raise Rejected(message) from error
    except UNREACHABLE as error:
        raise Unavailable(f"{action} on {resource}: AWS cannot be reached: {first_line(error)}") from error
    except botocore_errors.NoRegionError as error:
        message = f'{action} on {resource}: no AWS region is set; write region = "..." beside it, or set AWS_REGION'
        raise Rejected(message) from error
    except botocore_errors.BotoCoreError as error:
        raise Rejected(f"{action} on {resource}: the AWS SDK refused the call: {first_line(error)}") from error


def code_of(error: Any) -> str:
    """The code of a `ClientError`; S3's HEAD calls have only the HTTP status there."""
    return str(error.response.get("Error", {}).get("Code", ""))


def first_line(error: object) -> str:
    """The first line of a message: what follows may be a canonical request, which holds the session token."""
    return str(error).strip().partition("\n")[0][:300]


def client_error(error: Any, action: str, resource: str) -> HtcgridError:
    """What a service's answer means for the agent: wait, or stop and say what to do."""
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = error.response.get("Error", {}).get("Message", "")
    return verdict(code, status, str(message), action, resource)


def verdict(code: str, status: int, message: str, action: str, resource: str) -> HtcgridError:
    what = f"{action} on {resource}"
    said = f"{code}: {first_line(message)}" if message else code
    if code in THROTTLED or status == 429:
        return Unavailable(f"{what}: AWS throttles us ({said})")
    if code in FAULTS or status >= 500:
        return Unavailable(f"{what}: AWS has a fault ({said})")
    return Rejected(f"{what}: {advice(code, action, resource)} AWS says {said}")


def advice(code: str, action: str, resource: str) -> str:
    """What is wrong for good, and what to do about it."""
    known = {
        MISSING: f"{resource} does not exist in this account and region; create it, or correct its name or the region.",
        DENIED: f"not permitted; allow {action} on {resource} in the policy of the role in use.",
        EXPIRED: "the AWS credentials have expired; renew them (aws sso login, or a fresh session token).",
        UNKNOWN_KEY: "AWS does not know these credentials; check the profile, the keys and the account.",
        SKEWED: "the signature was refused: this machine's clock is off (set it by NTP), or the secret key is wrong.",
        ELSEWHERE: f"{resource} lies in another region; set region to its own.",
    }
    return next((text for codes, text in known.items() if code in codes), "refused.")
