"""One Invoke of the AWS Lambda service, and its answer."""

import base64
import threading
import time
from typing import Any

from htcgrid_aws_lambda.answers import Answer
from htcgrid_aws_lambda.target import Target


class LambdaService:
    """Calls one function through a client made by `AwsSession.invoke_client`. Thread-safe, as boto3's clients are."""

    def __init__(self, client: Any, target: Target) -> None:
        self._client = client
        self._target = target
        self._of_this_thread = threading.local()
        # Invoke has no parameter for the trace. The SDK calls this in the thread of the call.
        client.meta.events.register("before-call.lambda.Invoke", self._add_trace)

    def probe(self) -> None:
        """See that the function can be invoked by us, without running it."""
        with self._target.translated_errors():
            self._client.invoke(**self._address(), InvocationType="DryRun")

    def invoke(self, task_id: str, payload: bytes, context: str, trace: str = "") -> Answer:
        """Run the handler once. `context` is in base64, `trace` the caller's. Raises `Unavailable` and `Rejected`."""
        self._of_this_thread.trace = trace
        started, clock = time.time(), time.monotonic()
        with self._target.translated_errors([task_id]):
            answer = self._client.invoke(
                **self._address(),
                InvocationType="RequestResponse",
                LogType="Tail",
                ClientContext=context,
                Payload=payload,
            )
            body = answer["Payload"].read()
        return Answer(
            body,
            failed="FunctionError" in answer,
            tail=base64.b64decode(answer.get("LogResult", "")),
            started=started,
            waited_ms=(time.monotonic() - clock) * 1000,
        )

    def _add_trace(self, params: Any, **_others: Any) -> None:
        if trace := getattr(self._of_this_thread, "trace", ""):
            params["headers"]["X-Amzn-Trace-Id"] = trace

    def _address(self) -> dict[str, str]:
        address = {"FunctionName": self._target.function}
        return address | {"Qualifier": self._target.qualifier} if self._target.qualifier else address
