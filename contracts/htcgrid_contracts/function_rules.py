"""What a handler finds of its function: variables, layers and name."""

import pytest
from htcgrid.spi import Capability, HtcgridError, Invoker

from htcgrid_contracts.common import not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers
from htcgrid_contracts.packing import HANDLER_FOLDER, LAYER_FOLDER

AWKWARD_NAME = "contract/ü #2?a=b&c%20"


class FunctionRules(InvokerHelpers):
    """Asked of every plane."""

    def test_a_handler_finds_the_variables_of_its_function(self, plane: Invoker) -> None:
        """Every variable of the function must reach the handler as it is, also one that the worker has itself: users set HOME,
        or AWS_MAX_ATTEMPTS. Read: spi.Function.environment."""
        expected = dict(plane.function.environment)
        if not expected:
            not_asked("the function has no variables")
        found = self.answer(self.call(plane, "describe", names=sorted(expected)))["variables"]
        differs = {name: found.get(name) for name in expected if found.get(name) != expected[name]}
        assert not differs, (
            f"variables of `[function] environment` do not reach the handler: they are "
            f"{ {name: expected[name] for name in differs} }, and the handler finds {differs}"
        )

    def test_a_layer_is_on_the_path_of_the_handler_or_refused(self, invoker: Invoker) -> None:
        """The folders of `layers` must be on the handler's path. A plane that has no layers must refuse them in `open`: otherwise
        the handler fails later, since it cannot import what they hold. Read: spi.Function.layers."""
        if invoker.function.code != HANDLER_FOLDER:
            not_asked("the function is not the kit's own handler, which imports from the layer")
        plane = self.serving(invoker, invoker.function.model_copy(update={"layers": (LAYER_FOLDER,)}))
        try:
            plane.open()
        except HtcgridError as error:
            said = str(error)
            assert "layer" in said.lower(), f"`open` refuses a function with a layer, and does not say so: {said}"
            return
        try:
            outcome = self.call(plane, "use_layer")
        finally:
            plane.close()
        assert outcome.failure is None, (
            f"`open` accepts a function with a layer, and its handler cannot import what the layer holds: "
            f"{outcome.payload[:500].decode(errors='replace')}"
        )
        assert self.answer(outcome) == "from the layer"

    @pytest.mark.capability(Capability.CONTEXT)
    def test_a_function_of_any_name_is_served_or_refused(self, invoker: Invoker) -> None:
        """A name of a function is any text. It must not be used as a part of an address or a file name as it is; a plane that
        cannot have it must say so in `open`, with the name. Read: spi.Function.name."""
        plane = self.serving(invoker, invoker.function.model_copy(update={"name": AWKWARD_NAME}))
        try:
            plane.open()
        except HtcgridError as error:
            said = str(error)
            assert AWKWARD_NAME in said, (
                f"`open` refuses a function of the name {AWKWARD_NAME!r}, and its message does not have the name: {said}"
            )
            return
        try:
            found = self.answer(self.call(plane, "describe"))["function_name"]
        finally:
            plane.close()
        assert found == AWKWARD_NAME, f"the function's name is {AWKWARD_NAME!r}, and its context says {found!r}"
