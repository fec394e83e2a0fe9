"""The conformance kit on the `eks` plane: whole, and what depends on the transport through the emulator too."""

from typing import Any, ClassVar

import pytest
from htcgrid_contracts import InvokerContract
from htcgrid_contracts.common import not_asked
from htcgrid_eks.invoker import EksInvoker

from htcgrid.spi import Function, Invoker, Plugin


class EksContract(InvokerContract):
    wait_factor = 3
    transport: ClassVar[str]

    # AWS's images look below /opt by themselves; those of these tests are smaller. test_eks_powertools.py asks this.
    test_a_layer_is_on_the_path_of_the_handler_or_refused = None  # type: ignore[assignment]

    @pytest.fixture
    def invoker(self, function: Function, namespace: str, agent_image: str, lambda_image: str) -> Invoker:
        config = EksInvoker.Config(
            image=lambda_image,
            agent_image=agent_image,
            namespace=namespace,
            pods=2,
            cpu="50m",  # several planes of several tests fit on a node of two processors
            agent_cpu="50m",
            transport=self.transport,
            start_seconds=60,
            orphan_seconds=5,
        )
        return EksInvoker(config, function)

    @pytest.fixture
    def missing(self, invoker: EksInvoker, function: Function) -> Plugin:
        return EksInvoker(invoker.config.model_copy(update={"namespace": "no-such-namespace"}), function)

    def take_away(self, plugin: Any) -> None:
        plugin._cluster.settings.refresh_api_key_hook = None  # it would read the kubeconfig again
        plugin._cluster.settings.host = "https://127.0.0.1:9"
        for place in plugin._places:
            place.client.close()


class TestThroughTheRuntimeApi(EksContract):
    transport = "http"


class TestThroughTheEmulator(EksContract):
    """Without the rules that open planes of their own, which are asked of the other transport: each takes seconds to start pods."""

    transport = "rie"
    behind_emulator = True

    @pytest.fixture(autouse=True)
    def _of_the_open_plane(self, request: pytest.FixtureRequest) -> None:
        if "plane" not in request.fixturenames:
            not_asked("it opens planes of its own")
