"""The conformance kit: subclass a contract, give a fixture, and each rule of `htcgrid.spi` is a test."""

import pytest

# Before the contracts are loaded, so that their assertions show what they compared.
pytest.register_assert_rewrite("htcgrid_contracts")

from htcgrid_contracts.agent import AgentContract  # noqa: E402
from htcgrid_contracts.invoker import InvokerContract  # noqa: E402
from htcgrid_contracts.observer_rules import ObserverContract  # noqa: E402
from htcgrid_contracts.packing import HANDLER, HANDLER_FOLDER, contract_function, dockerfile, handler_zip  # noqa: E402
from htcgrid_contracts.planes import LambdaError, LambdaFunction  # noqa: E402
from htcgrid_contracts.sink import ResultSinkContract  # noqa: E402
from htcgrid_contracts.source import TaskSourceContract  # noqa: E402

__all__ = [
    "HANDLER",
    "HANDLER_FOLDER",
    "AgentContract",
    "InvokerContract",
    "LambdaError",
    "LambdaFunction",
    "ObserverContract",
    "ResultSinkContract",
    "TaskSourceContract",
    "contract_function",
    "dockerfile",
    "handler_zip",
]
