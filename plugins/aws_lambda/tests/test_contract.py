"""The conformance kit on this plane, against AWS's Invoke API as `htcgrid serve` speaks it over processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from htcgrid.spi import Function, Invoker, Plugin
from htcgrid_contracts import InvokerContract, contract_function
from serve_program import Server, config_of

from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

_TIMEOUT = 5.0  # the kit has handlers that take 2 s, on a machine that may be busy
_NO_NAME = "Invoke's answer does not name the execution environment, on AWS neither"


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Servers"]:
    servers = Servers(tmp_path_factory)
    yield servers
    servers.stop()


class Servers:
    """A `htcgrid serve` for each function that is asked for, while the module's tests run."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._servers: dict[str, Server] = {}

    def url(self, function: Function) -> str:
        key = function.model_dump_json()
        if key not in self._servers:
            self._servers[key] = Server(config_of(function, self._folders.mktemp("serve")))
        return self._servers[key].url

    def stop(self, url: str = "") -> None:
        for key, server in list(self._servers.items()):
            if url in ("", server.url):
                self._servers.pop(key).stop()


class TestAwsLambda(InvokerContract):
    short_timeout = _TIMEOUT
    # A function whose timeout cannot be read, as here, may take AWS's longest: 15 minutes.
    test_a_service_that_is_frozen_is_unavailable = None  # type: ignore[assignment]
    known_gaps: ClassVar = {
        "test_times_and_memory_are_measured": _NO_NAME,
        "test_each_environment_has_a_name_of_its_own": _NO_NAME,
        "test_failures_are_measured_and_billed": _NO_NAME,
    }

    @pytest.fixture
    def function(self, request: pytest.FixtureRequest) -> Function:
        # A rule that takes the server away has a function, and so a server, of its own.
        own = "went_away" in request.node.name
        return contract_function(timeout=_TIMEOUT, memory=257 if own else 256)

    @pytest.fixture
    def invoker(self, function: Function, serve: Servers) -> Invoker:
        self.serve = serve
        return self.plane_for(function)

    @pytest.fixture
    def missing(self, function: Function, serve: Servers) -> Invoker:
        return self.at(serve.url(function), function.model_copy(update={"name": "nobody"}))

    def marks(self, folder: Path) -> str:
        return str(folder)

    def take_away(self, plugin: Plugin) -> None:
        assert isinstance(plugin, AwsLambdaInvoker)
        self.serve.stop(plugin.config.endpoint_url)

    def serving(self, invoker: Invoker, function: Function) -> Invoker:
        return self.plane_for(function)

    def plane_for(self, function: Function) -> Invoker:
        return self.at(self.serve.url(function), function)

    def at(self, url: str, function: Function) -> Invoker:
        config = AwsLambdaInvoker.Config(region="eu-west-1", endpoint_url=url, qualifier="$LATEST", concurrency=4)
        return AwsLambdaInvoker(config, function)
