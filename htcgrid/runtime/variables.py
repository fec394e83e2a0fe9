"""The environment variables that a handler finds, as on AWS Lambda."""

import sys
from collections.abc import Mapping

from htcgrid.runtime import identity
from htcgrid.spi import Function


def variables(function: Function, runtime: str) -> Mapping[str, str]:
    """What every execution environment of this function gets; `runtime` as in `python3.11`.

    An OS-only runtime (`provided...`) and a command of the user's have no `AWS_EXECUTION_ENV`, as on the
    service: `runtime` is empty for them. Credentials are not among them: each environment gets its own. The user's own
    `environment` comes first, since reserved names were refused when the config was read.
    """
    root = str(function.code.resolve())
    name = function.function_name
    endpoint = {"AWS_ENDPOINT_URL": function.endpoint_url} if function.endpoint_url else {}
    execution = {"AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime}"} if runtime else {}
    return {
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        # AWS Lambda has no metadata server either. An SDK that looks for one takes seconds, or finds the machine's own role.
        "AWS_EC2_METADATA_DISABLED": "true",
        **endpoint,
        **function.environment,
        "_HANDLER": function.handler,
        "AWS_REGION": function.aws_region,
        "AWS_DEFAULT_REGION": function.aws_region,
        **execution,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": identity.VERSION,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "LAMBDA_TASK_ROOT": root,
        "LAMBDA_RUNTIME_DIR": root,
    }


def this_python() -> str:
    """The runtime's name for the interpreter that runs htcgrid."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"
