"""The program that runs a function which does not run in forks of the fork server."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from htcgrid.runtime import code_folder, worker_signals
from htcgrid.runtime.fork_server import HANDLERS_PYTHON
from htcgrid.runtime.variables import this_python
from htcgrid.spi import Function, Rejected

_WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"
_TASK_ROOT = "/var/task/"
_BOOTSTRAPS = ("bootstrap", "bootstrap.sh")
_NODE_CLIENT = "node_modules/aws-lambda-ric/bin/index.mjs"
_PLAIN_CLIENT = str(Path(worker_signals.__file__).with_name("plain_client.py"))
_PYTHON_CLIENT = """\
def run():
    import sys
    if not sys.flags.safe_path:
        del sys.path[0]  # a file of the user's must not stand in for what is loaded here
    import importlib.util, os
    def load(name, file):
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    load("worker_signals", sys.argv.pop(1)).leave_to_the_agent()
    if client := sys.argv.pop(1):
        load("plain_client", client).install(os.environ["AWS_LAMBDA_RUNTIME_API"])
    sys.path.insert(0, os.getcwd())
    spec = importlib.util.find_spec("awslambdaric.__main__")
    sys.argv[0] = spec.origin
    del globals()["run"]
    globals().update(__file__=spec.origin, __spec__=spec, __loader__=spec.loader, __package__=spec.parent)
    exec(spec.loader.get_code(spec.name), globals())
run()
"""
"""Does the same as `python -m awslambdaric`, with as many stack frames below the handler, but leaves signals from other
processes to the agent. It does not import htcgrid. The code folder is searched with PYTHONSAFEPATH, too, as on AWS Lambda."""


def is_python(function: Function) -> bool:
    """Whether AWS's Python client runs the handler, on the interpreter that runs htcgrid."""
    return not function.command and (not function.runtime or function.runtime.startswith("python"))


def check(function: Function) -> None:
    """Refuse a function that this machine cannot run."""
    code_folder.existing(function.code)
    if not is_python(function):
        command(function)
    elif not function.handler:
        raise Rejected('[function] handler is missing. Write it as "module.function".')
    elif function.runtime and function.runtime != this_python():
        message = (
            f"[function] runtime = {function.runtime!r}, but htcgrid runs on {this_python()} here. "
            f"Install htcgrid in that Python, or leave `runtime` out."
        )
        raise Rejected(message)


def command(function: Function, *, is_plain: bool = False) -> Sequence[str]:
    """The program and its arguments. It runs in the code folder and uses the Runtime API.

    With `is_plain`, Python does that without the compiled part of AWS's client, which exists only for Linux."""
    program = _program(function, _PLAIN_CLIENT if is_plain else "")
    wrapper = wrapper_of(function)
    return [wrapper, *program] if wrapper else program


def wrapper_of(function: Function) -> str:
    """The wrapper script that starts the runtime, as on AWS Lambda; empty if there is none. OS-only runtimes have none.

    A path below the code folder may be written as on AWS Lambda, `/var/task/...`.
    """
    given = function.environment.get(_WRAPPER, "")
    if not given or function.runtime.startswith("provided"):
        return ""
    path = Path(given.replace(_TASK_ROOT, "", 1)) if given.startswith(_TASK_ROOT) else Path(given)
    path = function.code.resolve() / path
    if not os.access(path, os.X_OK):
        raise Rejected(
            f"[function] environment: {_WRAPPER} = {given!r} does not exist or cannot be executed (chmod +x)."
        )
    return str(path)


def _program(function: Function, client: str) -> Sequence[str]:
    if function.command:
        return _given(function)
    if is_python(function):
        # `HANDLERS_PYTHON` has -X utf8, because AWS Lambda's locale (en_US.UTF-8) may not be installed here.
        program = _PYTHON_CLIENT, worker_signals.__file__, client, function.handler
        return [sys.executable, *HANDLERS_PYTHON, "-c", *program]
    if function.runtime.startswith("nodejs"):
        return _node(function)
    if function.runtime.startswith("provided"):
        return _bootstrap(function)
    message = (
        f"[function] runtime = {function.runtime!r}: the process plane itself can run python, nodejs and provided. "
        "For any other runtime, name a program that uses the Lambda Runtime API, such as "
        'command = ["java", "-cp", "lib/*", "com.amazonaws.services.lambda.runtime.api.client.AWSLambda", '
        f'"{function.handler}"].'
    )
    raise Rejected(message)


def _given(function: Function) -> Sequence[str]:
    program = function.command[0]
    inside = function.code.resolve() / program
    if "/" in program:
        if not os.access(inside, os.X_OK):
            raise Rejected(f"[function] command: {str(inside)!r} does not exist or cannot be executed (chmod +x).")
        return [str(inside), *function.command[1:]]
    if shutil.which(program) is None:
        raise Rejected(
            f"[function] command: no program {program!r} on the PATH. Install it, or write its path; "
            f'write a program in the code folder with a slash: "./{program}".'
        )
    return function.command


def _node(function: Function) -> Sequence[str]:
    node = shutil.which("node")
    if node is None:
        raise Rejected(f"[function] runtime = {function.runtime!r}: no `node` on the PATH. Install Node.js.")
    client = function.code.resolve() / _NODE_CLIENT
    if not client.is_file():
        raise Rejected(
            f"[function] runtime = {function.runtime!r}: AWS's runtime client for Node is not in "
            f"{str(function.code)!r}. Run `npm install aws-lambda-ric` there."
        )
    if not function.handler:
        raise Rejected('[function] handler is missing. Write it as "module.function".')
    return [node, str(client), function.handler]


def _bootstrap(function: Function) -> Sequence[str]:
    found = [program for name in _BOOTSTRAPS if (program := function.code.resolve() / name).is_file()]
    if not found:
        raise Rejected(
            f"[function] runtime = {function.runtime!r} runs a program named `bootstrap` or `bootstrap.sh` in the code "
            f"folder, and {str(function.code)!r} has none."
        )
    program = found[0]
    if not os.access(program, os.X_OK):
        raise Rejected(f"{str(program)!r} cannot be executed. Run `chmod +x` on it.")
    return [str(program)]
