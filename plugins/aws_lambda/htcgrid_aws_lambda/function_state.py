"""What AWS Lambda knows about the function, and the limits of the account."""

import logging
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from htcgrid.spi import Rejected, Unavailable
from htcgrid_aws.aws_errors import code_of

from htcgrid_aws_lambda.target import Target

log = logging.getLogger("htcgrid.aws_lambda.function_state")

_READY = frozenset({"Active", "Inactive"})  # an Inactive function is woken by the next Invoke
_ON_THE_WAY = frozenset({"Pending", "Deactivating"})


@dataclass(frozen=True, slots=True)
class FunctionState:
    """`GetFunctionConfiguration`, as far as it matters here. Seconds and MB; None where it is not known."""

    state: str = ""
    reason: str = ""
    timeout: int | None = None
    storage: int = 512
    architecture: str = ""
    account: str = ""

    @classmethod
    def of(cls, configuration: dict[str, Any]) -> "FunctionState":
        """Read AWS's answer; moto and older endpoints leave keys out."""
        return cls(
            configuration.get("State", ""),
            ": ".join(filter(None, [configuration.get("StateReasonCode"), configuration.get("StateReason")])),
            configuration.get("Timeout"),
            configuration.get("EphemeralStorage", {}).get("Size", 512),
            next(iter(configuration.get("Architectures", [])), ""),
            configuration.get("FunctionArn", "::::").split(":")[4],
        )

    def require_ready(self, target: Target) -> None:
        """Raise unless the function can be invoked now."""
        if not self.state or self.state in _READY:
            return
        said = f"{target.who} in {target.where} is {self.state} ({self.reason or 'no reason given'})"
        if self.state in _ON_THE_WAY:
            raise Unavailable(
                f"{said}: AWS is preparing it. Try again in a minute; `htcgrid status` shows its state.", 5.0
            )
        raise Rejected(f"{said} and cannot be invoked. Correct the cause, then run `htcgrid deploy`.")


def permitted(call: Any, **arguments: Any) -> dict[str, Any] | None:
    """What a describing call answers; None where the caller may not make it or the endpoint has no such call.

    The right to invoke is all that this plane needs. What it cannot look up is said in the log.
    """
    try:
        return dict(call(**arguments))
    except ClientError as error:
        if code_of(error) in {
            "AccessDenied",
            "AccessDeniedException",
            "ResourceNotFoundException",
            "404",
            "405",
            "501",
        }:
            log.info("%s is unavailable here (%s); going on without it", error.operation_name, code_of(error))
            return None
        raise


def ceiling(configured: int, account: dict[str, Any] | None, function: dict[str, Any] | None, target: Target) -> int:
    """The most calls in flight: what is configured, within what the account or the function has.

    `account` is the answer of `GetAccountSettings`, `function` that of `GetFunctionConcurrency`.
    """
    reserved = (function or {}).get("ReservedConcurrentExecutions")
    if reserved == 0:
        raise Rejected(
            f"{target.who} in {target.where} has a reserved concurrency of 0, which switches it off. "
            "Set `reserved_concurrency` and run `htcgrid deploy`, or run `htcgrid scale` with a number above 0."
        )
    shared = (account or {}).get("AccountLimit", {}).get("UnreservedConcurrentExecutions")
    limit = reserved or shared
    if limit is not None and limit < configured:
        log.warning(
            "concurrency %d is above the %d that AWS gives %s; keeping to %d", configured, limit, target.who, limit
        )
        return int(limit)
    return configured
