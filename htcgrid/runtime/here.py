"""Calls a Python handler in this process, for a debugger."""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from htcgrid.runtime import identity, layers, trace
from htcgrid.runtime.context import client_context
from htcgrid.spi import Function, Lease


def call(function: Function, lease: Lease) -> str:
    """The handler's answer as JSON; whatever it raises is raised. Its variables are this process's already."""
    from awslambdaric import bootstrap  # noqa: PLC0415 - it sets up logging as it is imported
    from awslambdaric.lambda_runtime_marshaller import to_json  # noqa: PLC0415

    sys.path.insert(0, str(Path(function.code).resolve()))
    sys.path += layers.search_paths(function).get("PYTHONPATH", ())
    module, _, name = function.handler.rpartition(".")
    handler = getattr(importlib.import_module(module.replace("/", ".")), name)
    context = bootstrap.create_lambda_context(
        client_context(lease),
        None,
        round((time.time() + function.timeout) * 1000),
        identity.request_id(lease.task.id),
        identity.function_arn(function.function_name, function.aws_region, function.role_arn),
        None,
    )
    bootstrap.update_xray_env_variable(trace.given(lease.task.attributes) or trace.NewTraces().next())
    answer: Any = handler(json.loads(lease.task.payload), context)
    return str(to_json(answer))
