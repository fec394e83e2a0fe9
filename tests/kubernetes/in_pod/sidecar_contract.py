"""Runs in a pod beside four Lambda containers: the whole conformance kit on `eks_sidecar`.

Two of the containers serve `plane`, the others whatever a rule opens besides. They run the handler that is named in
a file of the folder that they share with us, so that rules can have another.
"""

import os
import select
import shutil
from pathlib import Path
from typing import Any

import pytest
from htcgrid_contracts import HANDLER_FOLDER, InvokerContract
from htcgrid_eks.sidecar import EMULATOR_PORT, FOLDER, EksSidecarInvoker

from htcgrid.spi import Function, Invoker, Plugin

FIRST, SECOND = FOLDER / "first", FOLDER / "second"
TASK_ROOT = Path("/var/task")


class Served(EksSidecarInvoker):
    def open(self) -> None:
        for index in range(self.config.containers):
            (self.config.folder / str(index) / "handler").write_text(self.function.handler)
        super().open()


def config(transport: str, pair: Path) -> EksSidecarInvoker.Config:
    port = EMULATOR_PORT + (2 if pair is SECOND else 0)
    return EksSidecarInvoker.Config(
        containers=2, folder=pair, transport=transport, emulator_port=port, start_seconds=30
    )


@pytest.fixture(autouse=True, scope="session")
def pairs() -> None:
    for module in HANDLER_FOLDER.glob("*.py"):
        shutil.copyfile(module, TASK_ROOT / module.name)
    for pair, first in ((FIRST, 0), (SECOND, 2)):
        pair.mkdir(exist_ok=True)
        for index in range(2):
            (pair / str(index)).symlink_to(FOLDER / str(first + index))


class TestSidecar(InvokerContract):
    wait_factor = 3
    # The containers of this pod can be taken away once, which the rule before this one does.
    test_a_plane_that_went_away_names_what_it_had_begun = None  # type: ignore[assignment]
    # The pod was made for one function: its containers have its name and its layers. `eks` is asked these.
    test_a_layer_is_on_the_path_of_the_handler_or_refused = None  # type: ignore[assignment]
    test_a_function_of_any_name_is_served_or_refused = None  # type: ignore[assignment]

    @pytest.fixture
    def invoker(self, function: Function, pytestconfig: pytest.Config) -> Invoker:
        return Served(config(pytestconfig.getoption("--transport"), FIRST), function)

    def serving(self, invoker: Any, function: Function) -> Invoker:
        return Served(config(invoker.config.transport, SECOND), function)

    def again(self, plugin: Any) -> Any:
        return self.serving(plugin, plugin.function)

    @pytest.fixture
    def missing(self, invoker: Any) -> Plugin:
        return EksSidecarInvoker(invoker.config.model_copy(update={"folder": Path("/not/there")}), invoker.function)

    @pytest.fixture(autouse=True)
    def _emulator(self, pytestconfig: pytest.Config) -> None:
        self.behind_emulator = pytestconfig.getoption("--transport") == "rie"

    def take_away(self, plugin: Any) -> None:
        ended = select.poll()
        pipes = [os.open(pipes.folder / "ended", os.O_RDONLY | os.O_NONBLOCK) for pipes in plugin._pipes]
        for pipe in pipes:
            ended.register(pipe, 0)  # hung up is always told
        plugin.quit()
        while pipes:
            gone = ended.poll(10_000)
            assert gone, "a container that was told to end has not"
            for pipe, _ in gone:
                ended.unregister(pipe)
                os.close(pipe)
                pipes.remove(pipe)
