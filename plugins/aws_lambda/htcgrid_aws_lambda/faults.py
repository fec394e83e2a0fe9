"""What went wrong on the way to AWS, in the two errors of the plugin interface and with what to do about it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from botocore import exceptions as boto
from htcgrid.spi import HtcgridError, Rejected, Unavailable

from htcgrid_aws_lambda.refusals import of_refusal
from htcgrid_aws_lambda.target import Target

# Raised before a byte of the request has left: the handler cannot have run.
_NOT_SENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)

# All that can break once it has. Whether the handler ran is not known.
_LOST = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ReadTimeoutError,
    boto.ResponseStreamingError,
)

_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
)


@contextmanager
def translated(target: Target, task_ids: Collection[str] = ()) -> Iterator[None]:
    """Turn boto3's errors into `Unavailable` or `Rejected`; `task_ids` are those that the call would run."""
    try:
        yield
    except (boto.BotoCoreError, boto.ClientError) as error:
        raise of_error(error, target, task_ids) from error


def of_error(error: Exception, target: Target, task_ids: Collection[str] = ()) -> HtcgridError:
    """The error of the plugin interface that `error` stands for."""
    if isinstance(error, boto.ClientError):
        return of_refusal(error, target, task_ids)
    if isinstance(error, _NO_CREDENTIALS):
        return Rejected(f"AWS credentials for {target.who} cannot be had: {error}. {_how_to_log_in(target)}")
    if isinstance(error, boto.ProfileNotFound):
        return Rejected(f"{error}. Write the name of a profile of ~/.aws/config as `profile`, or leave it out.")
    if isinstance(error, (boto.NoRegionError, boto.InvalidRegionError)):
        return Rejected(f"{error} Write `region` in the plane's config, or set AWS_REGION, or the profile's region.")
    return _of_connection(error, target, task_ids)


def _of_connection(error: Exception, target: Target, task_ids: Collection[str]) -> HtcgridError:
    if isinstance(error, _NOT_SENT):
        return Unavailable(f"No connection to AWS Lambda in {target.where}: {error}. {_check_region(target)}")
    if isinstance(error, _LOST):
        return Unavailable(
            f"The connection to AWS Lambda in {target.where} was lost in a call of {target.who}: {error}. "
            "The handler may have run.",
            begun=task_ids,
        )
    return Rejected(f"boto3 cannot call {target.who} in {target.where}: {type(error).__name__}: {error}")


def _how_to_log_in(target: Target) -> str:
    profile = f" --profile {target.profile}" if target.profile else ""
    return (
        f"Log in (`aws sso login{profile}`, `aws configure{profile}`), set AWS_PROFILE, "
        "or run where a role is attached; `aws sts get-caller-identity` shows who you are."
    )


def _check_region(target: Target) -> str:
    if target.endpoint:
        return "Check `endpoint_url`, and that something listens there."
    return f"Check the network, and that the region {target.region!r} exists and is enabled for this account."
