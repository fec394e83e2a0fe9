"""The plugin: the AWS Lambda service as a compute plane of htcgrid."""

import base64
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any

from htcgrid import spi
from htcgrid.planes import client_context, trace
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Rejected,
    Throttled,
    Unavailable,
    error_documents,
    limits,
)
from htcgrid_aws.aws_errors import Refused
from htcgrid_aws.prices import lambda_price
from htcgrid_aws.session import AwsSession
from htcgrid_aws.usage import Usage, UsageCounter

from htcgrid_aws_lambda import billing, lambda_rights
from htcgrid_aws_lambda.answers import outcome
from htcgrid_aws_lambda.call_threads import start
from htcgrid_aws_lambda.function_deployment import Deployment
from htcgrid_aws_lambda.function_state import FunctionState, ceiling, permitted
from htcgrid_aws_lambda.lambda_options import Options
from htcgrid_aws_lambda.lambda_service import LambdaService
from htcgrid_aws_lambda.ramp import Ramp
from htcgrid_aws_lambda.target import Target

# How much longer than the function's timeout an answer may take: a cold start, and the network.
_READ_MARGIN_SECONDS = 60.0
_LONGEST_TIMEOUT_SECONDS = 900.0
_CLIENT_CONTEXT_BYTES = 3583  # of base64; from the API's description of `ClientContext`


# Errors of Invoke that are about this one event: a failure of the task, not of the plane.
_EVENT_REFUSED = {
    "RequestTooLargeException": FailureKind.PAYLOAD_TOO_LARGE,
    "SerializedRequestEntityTooLargeException": FailureKind.PAYLOAD_TOO_LARGE,
    "InvalidRequestContentException": FailureKind.INVALID_EVENT,  # not JSON as AWS reads it: NaN, for one
    "RecursiveInvocationException": FailureKind.INVALID_EVENT,  # the task's trace says that functions call each other in a loop
}


class AwsLambdaInvoker(Invoker):
    """Runs handlers on AWS Lambda.

    `max_concurrency` rises to the configured concurrency, within the account's or the function's limit: see
    `htcgrid_aws_lambda.ramp`. AWS Lambda cannot stop a running handler: `cancel` only stops waiting for it, so the plane
    does not have the capability of that name.
    """

    carries_settings = False
    max_batch = 1
    capabilities = frozenset(
        {
            Capability.TIMEOUT,
            Capability.MEMORY,
            Capability.EXIT,
            Capability.ERRORS,
            Capability.LOGS,
            Capability.CONTEXT,
            Capability.METERING,
        }
    )

    class Config(Options):
        """See `htcgrid_aws_lambda.lambda_options.Options`."""

    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._ramp = Ramp(config.concurrency)
        self._target = Target(
            function.function_name, config.qualifier, config.region, config.profile, config.endpoint_url
        )
        self._function_state = FunctionState()
        self._usage_counter = UsageCounter()
        self._session: AwsSession | None = None
        self._service: LambdaService | None = None
        self._under_way: dict[str, Future[Outcome]] = {}

    def open(self) -> None:
        """Find credentials, and see that the function exists, is ready and may be invoked by us.

        Only the right to `lambda:InvokeFunction` is needed. Where GetFunctionConfiguration, GetFunctionConcurrency and
        GetAccountSettings are allowed too, the function's state, timeout and limits are kept to.
        """
        session = self._connect()
        self._session = session
        name = self._target.function
        with self._target.translated_errors():
            control = session.client("lambda")
            described = permitted(control.get_function_configuration, FunctionName=name, **self._qualifier())
            if described is not None:
                self._learn(FunctionState.of(described))
            reserved = permitted(control.get_function_concurrency, FunctionName=name)
            account = permitted(control.get_account_settings)
            control.close()
            most = ceiling(self.config.concurrency, account, reserved, self._target)
            client = session.invoke_client(most, self._read_seconds())
        self._service = LambdaService(client, self._target)
        self._service.probe()
        self._ramp = Ramp(most)

    @property
    def max_concurrency(self) -> int:  # type: ignore[override]
        """How many calls may be in flight now."""
        return self._ramp.allowed

    def close(self) -> None:
        """Close the connections."""
        self._service = None
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        """One call to AWS for each lease. The timeout is the function's own, which `open` compares with ours."""
        for lease in batch:
            yield self._invoke(lease)

    def cancel(self, task_ids: Collection[str]) -> None:
        """Stop waiting for these. AWS cannot stop a handler: it runs to its end or timeout, and is billed."""
        for task_id in task_ids:
            call = self._under_way.get(task_id)
            if call is not None:
                call.cancel()

    def advise(self, attempts: int) -> Iterable[str]:
        """As `Plugin.advise`."""
        if self.function.credentials != "none":
            yield (
                f"[function] credentials = {self.function.credentials!r} is for the other planes: AWS Lambda gives a function the "
                "role that it is deployed with."
            )

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The least IAM policies to invoke the function, and to deploy it."""
        account = self._function_state.account or "*"
        return lambda_rights.policies(self.function, self.config, self._target.region, account)

    def usage(self) -> spi.Usage:
        """Requests, GB-seconds and price of what ran since the plane was made, to be shown."""
        architecture = self._architecture()
        region = self._target.region
        price = lambda_price(region, architecture)
        return spi.Usage(shown=billing.summary(self.used(), price, region, architecture))

    def used(self) -> Usage:
        """The same as numbers."""
        return self._usage_counter.usage()

    def deploy(self, settings: Mapping[str, Any], *, dry_run: bool = False) -> Iterable[str]:
        """Create or update the function, publish a version and move the alias to it."""
        yield from self._deployment().deploy(dry_run=dry_run)

    def undeploy(self) -> Iterable[str]:
        """Remove the function, and the role, log group and zips that `deploy` made for it."""
        yield from self._deployment().undeploy()

    def scale(self, size: int) -> Iterable[str]:
        """Reserve `size` concurrent executions: no more run, and no other function can take them. 0 switches off."""
        yield from self._deployment().scale(size)

    def status(self) -> Mapping[str, str]:
        """The function, its version, state and limits."""
        return self._deployment().status()

    def _invoke(self, lease: Lease) -> Outcome:
        context = base64.b64encode(client_context(lease).encode()).decode()
        refused = _too_large(lease, context)
        if refused is not None:
            return refused
        service = self._service
        if service is None:
            raise Rejected(f"The plane of {self._target.who} is not open: call `open` first.")
        call: Future[Outcome] = Future()
        # Noted before the call starts, so that a cancel finds it from the first moment.
        self._under_way[lease.task.id] = call
        try:
            start(lambda: self._call(service, lease, context), call)
            return call.result()
        except CancelledError:
            return Outcome(lease.task.id, error_documents.cancelled(), FailureKind.CANCELLED)
        finally:
            self._under_way.pop(lease.task.id, None)

    def _call(self, service: LambdaService, lease: Lease, context: str) -> Outcome:
        """One call, to its end even where nobody waits for it any more, since AWS counts and bills it all the same."""
        throttled = False
        self._ramp.begin()
        try:
            answer = service.invoke(lease.task.id, lease.task.payload, context, trace.given(lease.task.attributes))
        except Throttled:
            throttled = True
            raise
        except Refused as error:
            kind = _EVENT_REFUSED.get(error.code)
            if kind is None:
                raise
            return Outcome(lease.task.id, error_documents.document(error.code, error.said), kind)
        except Unavailable as error:
            if error.begun:
                billing.charge_lost(self._usage_counter)
            raise
        finally:
            self._ramp.end(throttled=throttled)
        result, report = outcome(lease.task.id, answer)
        billing.charge_answered(self._usage_counter, report, self._function_state.storage)
        return result

    def _connect(self) -> AwsSession:
        session = AwsSession(self.config)
        with self._target.translated_errors():
            self._target = replace(self._target, region=session.region)
        return session

    def _qualifier(self) -> dict[str, str]:
        return {"Qualifier": self._target.qualifier} if self._target.qualifier else {}

    def _learn(self, known: FunctionState) -> None:
        known.require_ready(self._target)
        if known.timeout is not None and known.timeout != self.function.timeout:
            raise Rejected(
                f"{self._target.who} in {self._target.where} has a timeout of {known.timeout} s, the config says "
                f"{self.function.timeout:g} s. Write `timeout = {known.timeout}` under [function], "
                "or run `htcgrid deploy`."
            )
        self._function_state = known

    def _read_seconds(self) -> float:
        """How long to wait for an answer: past the function's timeout, or past any where that is not known."""
        known = self._function_state.timeout
        return (known if known is not None else _LONGEST_TIMEOUT_SECONDS) + _READ_MARGIN_SECONDS

    def _architecture(self) -> str:
        return self._function_state.architecture or self.function.architecture or "x86_64"

    def _deployment(self) -> Deployment:
        session = self._connect()
        return Deployment(session, self.config, self.function, self._target)


def _too_large(lease: Lease, context: str) -> Outcome | None:
    size = len(lease.task.payload)
    if size > limits.REQUEST_BYTES:
        return _refusal(lease, error_documents.request_too_large(size))
    if len(context) > _CLIENT_CONTEXT_BYTES:
        message = (
            f"The task's attributes make a client context of {len(context)} bytes in base64; AWS Lambda takes "
            f"{_CLIENT_CONTEXT_BYTES} at most. Put what is large into the event."
        )
        return _refusal(lease, error_documents.document("RequestTooLargeException", message))
    return None


def _refusal(lease: Lease, document: bytes) -> Outcome:
    return Outcome(lease.task.id, document, FailureKind.PAYLOAD_TOO_LARGE)
