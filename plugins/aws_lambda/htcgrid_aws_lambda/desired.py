"""The function that `deploy` makes: `[function]` and the plane's keys in the words of AWS's API, within its limits."""

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from htcgrid.spi import Function, Rejected

from htcgrid_aws_lambda.lambda_options import Options

OWNER_TAG = "htcgrid:function"
"""Marks what `deploy` made, so that `undeploy` removes that and nothing else."""

_NAME = re.compile(r"[A-Za-z0-9-_]{1,64}")
_ENVIRONMENT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Desired:
    """`settings` are what CreateFunction and UpdateFunctionConfiguration both take."""

    name: str
    package: str
    architecture: str
    settings: Mapping[str, Any]
    tags: Mapping[str, str]
    runtime: str = ""
    image: str = ""

    @property
    def python(self) -> str:
        """The version of Python, "3.12"; empty for other runtimes and images."""
        return self.runtime.removeprefix("python") if self.runtime.startswith("python") else ""


def desired(function: Function, options: Options, role: str) -> Desired:
    """What the config asks for. Raises `Rejected` where it does not fit AWS Lambda's limits; nothing is rounded or cut."""
    _check(function, options)
    settings: dict[str, Any] = {
        "Role": role,
        "Timeout": int(function.timeout),
        "MemorySize": function.memory,
        "EphemeralStorage": {"Size": function.ephemeral_storage},
        "Environment": {"Variables": dict(function.environment)},
    }
    runtime = ""
    if options.image:
        arguments = list(function.command) or [function.handler] if function.handler or function.command else []
        settings["ImageConfig"] = {"Command": arguments} if arguments else {}
    else:
        runtime = function.runtime or _default_runtime(function)
        settings |= {"Runtime": runtime, "Handler": function.handler or "bootstrap", "Layers": list(options.layers)}
    return Desired(
        function.function_name,
        "Image" if options.image else "Zip",
        function.architecture or "x86_64",
        settings,
        {**options.tags, OWNER_TAG: function.function_name},
        runtime,
        options.image,
    )


def bootstrap(function: Function) -> bytes:
    """The program by which AWS's `provided` runtimes start a `command`."""
    return f'#!/bin/sh\ncd "$LAMBDA_TASK_ROOT"\nexec {shlex.join(function.command)}\n'.encode()


def _default_runtime(function: Function) -> str:
    if function.command:
        return "provided.al2023"
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _check(function: Function, options: Options) -> None:
    size = sum(len(name.encode()) + len(text.encode()) for name, text in function.environment.items())
    rules = {
        f"[function] name = {function.function_name!r}: letters, digits, - and _, 64 at most": bool(
            _NAME.fullmatch(function.function_name)
        ),
        f"[function] timeout = {function.timeout:g}: whole seconds from 1 to 900": (
            function.timeout.is_integer() and 1 <= function.timeout <= 900
        ),
        f"[function] memory = {function.memory}: 128 to 10240 MB": 128 <= function.memory <= 10_240,
        f"[function] ephemeral_storage = {function.ephemeral_storage}: 512 to 10240 MB": (
            512 <= function.ephemeral_storage <= 10_240
        ),
        f"[function] architecture = {function.architecture!r}: x86_64 or arm64": function.architecture
        in {"", "x86_64", "arm64"},
        f"[function] environment has {size} bytes: {_ENVIRONMENT_BYTES} at most": size <= _ENVIRONMENT_BYTES,
        "[function] layers: these are folders; publish each (aws lambda publish-layer-version), name its ARN in `layers` of the "
        "plane's table, and give the folders to the other planes by --set": not function.layers,
        "layers with an image: an image has its layers inside": not (options.layers and options.image),
        "[function] handler: module.function, or an `image`, or a `command`": bool(
            function.handler or function.command or options.image
        ),
        f"qualifier = {options.qualifier!r}: deploy moves an alias; a version number cannot be moved": (
            not options.qualifier.isdigit()
        ),
    }
    broken = [rule for rule, kept in rules.items() if not kept]
    if broken:
        raise Rejected(
            "This function does not fit AWS Lambda's limits. Change in the config file:\n  " + "\n  ".join(broken)
        )
