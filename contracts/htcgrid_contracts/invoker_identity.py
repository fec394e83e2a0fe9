"""What AWS credentials a handler finds, and for how long."""

import itertools
import os
import threading
import time

import pytest
from htcgrid.spi import Capability, Credentials, CredentialSource, Invoker

from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease


class IssuedCredentials(CredentialSource):
    """Issues keys that live for `lifetime` seconds: `contract-1`, `contract-2`, and so on, or of another name.

    With `issued_before` they are as many seconds old already.
    """

    def __init__(self, lifetime: float, name: str = "contract", issued_before: float = 0.0) -> None:
        self._lifetime = lifetime
        self._name = name
        self._issued_before = issued_before
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._held = Credentials(expires=0)
        self.expire: dict[str, float] = {}
        """When the keys expire that were issued, on the monotonic clock."""

    def current(self, timeout: float) -> Credentials:
        with self._lock:
            if not self._held.lasts(timeout):
                key = f"{self._name}-{next(self._numbers)}"
                self.expire[key] = time.monotonic() + self._lifetime
                variables = {
                    "AWS_ACCESS_KEY_ID": key,
                    "AWS_SECRET_ACCESS_KEY": f"secret/of+{key}=",
                    "AWS_SESSION_TOKEN": f"token/of+{key}=",
                }
                self._held = Credentials(variables, self.expire[key], self._issued_before + self._lifetime)
            return self._held


class IdentityRules(InvokerHelpers):
    """Who a handler is for AWS."""

    @pytest.mark.capability(Capability.CONTEXT)
    def test_the_trace_of_the_caller_is_passed_on(self, plane: Invoker) -> None:
        """The trace of the caller must be passed on as X-Ray's tracing header, which tracers in the handler read.
        Read: spi.Capability.CONTEXT."""
        self.not_behind_the_emulator()
        asked = lease("identify", {"traceparent": "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"})
        trace = self.answer(self.run(plane, [asked])[0])["trace"]
        expected = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
        assert trace == expected, (
            f"_X_AMZN_TRACE_ID is {trace!r}; the task's traceparent says {expected!r}. Behind AWS's emulator, which passes none "
            f"on, set `behind_emulator`, or give --emulator"
        )
        for _ in range(plane.max_concurrency):
            later = str(self.answer(self.call(plane, "identify"))["trace"])
            assert "1-5759e988-" not in later, "_X_AMZN_TRACE_ID of a task without a trace is that of an earlier task"

    def test_a_handler_does_not_find_the_keys_of_its_agent(
        self, invoker: Invoker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A handler must not find the agent's own keys: it would act with the agent's rights. Read: spi.Invoker.credentials."""
        own = os.environ.get("AWS_SECRET_ACCESS_KEY", "")
        if not own:  # no SDK takes a secret without its id, so the plane's own SDK still finds its credentials
            own = "contract/of+the+agent="
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", own)
        with self.again(invoker) as plane:
            keys = self.answer(self.call(plane, "identify"))["keys"]
        assert own not in keys, "the handler finds AWS_SECRET_ACCESS_KEY of the agent's environment"

    @pytest.mark.capability(Capability.IDENTITY)
    def test_a_handler_finds_no_credentials_where_its_function_has_none(self, plane: Invoker) -> None:
        """Where the function has no credentials, the handler must find none: not the agent's, and not the machine's.
        Read: spi.Invoker.credentials."""
        found = self.answer(self.call(plane, "identify"))
        assert not any(found["keys"]), f"the function has no credentials, and the handler finds {found}"
        assert found["region"] == plane.function.aws_region, f"AWS_REGION is {found['region']!r}"

    @pytest.mark.capability(Capability.IDENTITY)
    def test_a_handler_finds_the_credentials_of_its_function(self, invoker: Invoker) -> None:
        """The handler must find the credentials of its function in the environment variables that every SDK reads.
        Read: spi.Invoker.credentials."""
        plane = self.serving(invoker, invoker.function)
        plane.credentials = IssuedCredentials(3600)
        with plane:
            found = self.answer(self.call(plane, "identify"))["keys"]
            expected = ["contract-1", "secret/of+contract-1=", "token/of+contract-1="]
            assert found == expected, f"handed out were {expected}, and the handler finds {found}"
            assert "of+contract-1" not in repr(vars(plane)), "the plane shows them in a repr"

    @pytest.mark.capability(Capability.IDENTITY)
    def test_credentials_do_not_expire_under_an_invocation(self, invoker: Invoker) -> None:
        """Credentials must be renewed before they expire, between two invocations, so that they last for a whole one.
        Read: spi.Invoker.credentials."""
        lifetime = 3 * self.wait_factor
        issued = IssuedCredentials(lifetime)
        plane = self.serving(invoker, invoker.function)
        plane.credentials = issued
        seen = []
        with plane:
            until = time.monotonic() + 1.05 * lifetime
            while time.monotonic() < until:
                asked = time.monotonic()
                found = self.answer(self.call(plane, "identify", seconds=0.1 * lifetime))
                key = found["keys"][0]
                assert key == found["later"], f"the keys changed under an invocation, from {key} to {found['later']}"
                if time.monotonic() - asked < 0.5 * lifetime:  # a busy machine may take longer than they live
                    assert time.monotonic() < issued.expire[key], f"{key} expired before its invocation had ended"
                seen.append(key)
        assert len(set(seen)) > 1, f"the keys were never renewed: {sorted(set(seen))}"

    @pytest.mark.capability(Capability.IDENTITY)
    def test_credentials_last_as_long_as_the_next_invocation_may_take(self, invoker: Invoker) -> None:
        """Credentials that are valid now, but not for a whole timeout, must be renewed before the next invocation: it may
        take that long. Read: spi.Credentials.lasts."""
        timeout = invoker.function.timeout
        whole = (timeout + 0.5) / 0.75  # so that `lasts` is true of them for half a second
        issued = IssuedCredentials(timeout + 1, issued_before=whole - timeout - 1)
        plane = self.serving(invoker, invoker.function)
        plane.credentials = issued
        with plane:
            self.works(plane)
            size = min(plane.max_concurrency, self.most_threads)
            self.side_by_side(plane, size)
            last = max(issued.expire.values())
            time.sleep(max(0.0, last - timeout + 0.1 - time.monotonic()))
            now = time.monotonic()
            found = [self.answer(self.call(plane, "identify"))["keys"][0] for _ in range(size)]
        late = [key for key in found if issued.expire[key] < now + timeout]
        assert not late, (
            f"the keys {late[0]} expire in {issued.expire[late[0]] - now:.1f} s, and an invocation was given them that may take "
            f"{timeout:g} s"
        )
