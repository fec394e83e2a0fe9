"""The plugin: the AWS Lambda service as a compute plane of htcgrid."""

import base64
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from htcgrid import spi
from htcgrid.runtime.context import client_context
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Rejected,
    Unavailable,
    Unstarted,
    documents,
    limits,
)

from htcgrid_aws_lambda.answers import outcome
from htcgrid_aws_lambda.calls import start
from htcgrid_aws_lambda.clients import Clients
from htcgrid_aws_lambda.deployment import Deployment
from htcgrid_aws_lambda.facts import Facts, ceiling, permitted
from htcgrid_aws_lambda.faults import translated
from htcgrid_aws_lambda.gate import Gate
from htcgrid_aws_lambda.ledger import Ledger, Usage, summary
from htcgrid_aws_lambda.options import Options
from htcgrid_aws_lambda.prices import price
from htcgrid_aws_lambda.refusals import EventRefused, Throttled
from htcgrid_aws_lambda.service import LambdaService
from htcgrid_aws_lambda.target import Target

# How long a call waits for the pace before its task is given back: it keeps a drain from waiting long.
_PATIENCE_SECONDS = 2.0
# How much longer than the function's timeout an answer may take: a cold start, and the way there and back.
_READ_MARGIN_SECONDS = 60.0
_LONGEST_TIMEOUT_SECONDS = 900.0
_CLIENT_CONTEXT_BYTES = 3583  # of base64; from the API's description of `ClientContext`


class AwsLambdaInvoker(Invoker):
    """Runs handlers on AWS Lambda.

    `max_concurrency` is the configured concurrency within the account's or the function's limit. How many of
    those calls are in flight is paced: see `htcgrid_aws_lambda.pace`. A call that gets no place within two
    seconds hands its task back as `Unstarted`. AWS Lambda cannot stop a running handler: `cancel` only walks away
    from it, so the plane does not have the capability of that name.
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
        """See `htcgrid_aws_lambda.options.Options`."""

    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.max_concurrency = config.concurrency
        self._target = Target(
            function.function_name, config.qualifier, config.region, config.profile, config.endpoint_url
        )
        self._facts = Facts()
        self._ledger = Ledger()
        self._service: LambdaService | None = None
        self._gate: Gate | None = None
        self._under_way: dict[str, Future[Outcome]] = {}

    def open(self) -> None:
        """Find credentials, and see that the function exists, is ready and may be invoked by us.

        Only the right to `lambda:InvokeFunction` is needed. Where GetFunctionConfiguration, GetFunctionConcurrency and
        GetAccountSettings are allowed too, the function's state, timeout and limits are kept to.
        """
        clients = self._connect()
        name = self._target.function
        with translated(self._target):
            control = clients.once("lambda")
            described = permitted(control.get_function_configuration, FunctionName=name, **self._qualifier())
            if described is not None:
                self._learn(Facts.of(described))
            reserved = permitted(control.get_function_concurrency, FunctionName=name)
            account = permitted(control.get_account_settings)
            control.close()
            self.max_concurrency = ceiling(self.config.concurrency, account, reserved, self._target)
            client = clients.invoking(self.max_concurrency, self._read_seconds())
        self._service = LambdaService(client, self._target)
        self._service.probe()
        self._gate = Gate(self.max_concurrency)

    def close(self) -> None:
        """Close the connections."""
        service, self._service = self._service, None
        if service is not None:
            service.close()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        """One call to AWS for each lease. The timeout is the function's own, which `open` compares with ours."""
        for lease in batch:
            yield self._invoke(lease)

    def cancel(self, task_ids: Collection[str]) -> None:
        """Wait for these no longer. AWS cannot stop a handler: it runs on, to its end or timeout, and is billed."""
        for task_id in task_ids:
            call = self._under_way.get(task_id)
            if call is not None:
                call.cancel()

    def usage(self) -> spi.Usage:
        """Requests, GB-seconds and price of what ran since the plane was made, to be shown."""
        architecture = self._architecture()
        region = self._target.region
        return spi.Usage(shown=summary(self.used(), price(region, architecture), region, architecture))

    def used(self) -> Usage:
        """The same as numbers."""
        return self._ledger.usage

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

    def _invoke(self, lease: Lease) -> Outcome | Unstarted:
        context = base64.b64encode(client_context(lease).encode()).decode()
        refused = _too_large(lease, context)
        if refused is not None:
            return refused
        service, gate = self._service, self._gate
        if service is None or gate is None:
            raise Rejected(f"The plane of {self._target.who} is not open: call `open` first.")
        if not gate.enter(_PATIENCE_SECONDS):
            return Unstarted(lease.task.id)
        call: Future[Outcome] = Future()
        # Before it starts: a cancel that comes while the service has it already must find it.
        self._under_way[lease.task.id] = call
        try:
            start(lambda: self._call(service, gate, lease, context), call)
            return call.result()
        except CancelledError:
            return Outcome(lease.task.id, documents.cancelled(), FailureKind.CANCELLED)
        finally:
            self._under_way.pop(lease.task.id, None)

    def _call(self, service: LambdaService, gate: Gate, lease: Lease, context: str) -> Outcome:
        """Runs to its end even where nobody waits for it any more: AWS counts and bills it all the same."""
        throttled = False
        try:
            answer = service.invoke(lease.task.id, lease.task.payload, context)
        except Throttled:
            throttled = True
            raise
        except EventRefused as refusal:
            return Outcome(lease.task.id, documents.document(refusal.code, str(refusal)), refusal.kind)
        except Unavailable as error:
            if error.begun:
                self._ledger.lost()
            raise
        finally:
            gate.leave(throttled=throttled)
        result, report = outcome(lease.task.id, answer)
        self._ledger.answered(report)
        return result

    def _connect(self) -> Clients:
        with translated(self._target):
            clients = Clients(self.config)
        self._target = Target(
            self._target.function, self._target.qualifier, clients.region, self.config.profile, self.config.endpoint_url
        )
        return clients

    def _qualifier(self) -> dict[str, str]:
        return {"Qualifier": self._target.qualifier} if self._target.qualifier else {}

    def _learn(self, facts: Facts) -> None:
        facts.require_ready(self._target)
        if facts.timeout is not None and facts.timeout != self.function.timeout:
            raise Rejected(
                f"{self._target.who} in {self._target.where} has a timeout of {facts.timeout} s, the config says "
                f"{self.function.timeout:g} s. Write `timeout = {facts.timeout}` under [function], "
                "or run `htcgrid deploy`."
            )
        self._facts = facts
        self._ledger = Ledger(facts.storage)

    def _read_seconds(self) -> float:
        """How long to wait for an answer: past the function's timeout, or past any where that is not known."""
        known = self._facts.timeout
        return (known if known is not None else _LONGEST_TIMEOUT_SECONDS) + _READ_MARGIN_SECONDS

    def _architecture(self) -> str:
        return self._facts.architecture or self.function.architecture or "x86_64"

    def _deployment(self) -> Deployment:
        clients = self._connect()
        return Deployment(clients, self.config, self.function, self._target)


def _too_large(lease: Lease, context: str) -> Outcome | None:
    size = len(lease.task.payload)
    if size > limits.REQUEST_BYTES:
        return _refusal(lease, documents.request_too_large(size))
    if len(context) > _CLIENT_CONTEXT_BYTES:
        message = (
            f"The task's attributes make a client context of {len(context)} bytes in base64; AWS Lambda takes "
            f"{_CLIENT_CONTEXT_BYTES} at most. Put what is large into the event."
        )
        return _refusal(lease, documents.document("RequestTooLargeException", message))
    return None


def _refusal(lease: Lease, document: bytes) -> Outcome:
    return Outcome(lease.task.id, document, FailureKind.PAYLOAD_TOO_LARGE)
