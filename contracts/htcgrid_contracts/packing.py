"""The kit's handler, in the shapes that planes deploy."""

import io
import zipfile
from pathlib import Path

from htcgrid.spi import Function

HANDLER = "contract_handler.handler"
HANDLER_FOLDER = Path(__file__).parent / "handler"
LAYER_FOLDER = Path(__file__).parent / "layer"


def contract_function(
    handler: str = HANDLER, *, code: Path = HANDLER_FOLDER, timeout: float = 20, memory: int = 256
) -> Function:
    """The kit's handler as a `Function`: `timeout` in seconds, `memory` in MiB."""
    environment = {
        "CONTRACT_VARIABLE": """from the function: a=b "c" 'd' $HOME \\é""",
        "AWS_MAX_ATTEMPTS": "7",  # a name that Lambda does not reserve
        "HOME": "/tmp",  # noqa: S108 - most workers have one of their own
    }
    return Function(
        handler=handler, name="contract", code=code, timeout=timeout, memory=memory, environment=environment
    )


def handler_zip() -> bytes:
    """The handler as a Lambda deployment package: the bytes of a zip file, the same at every call."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in sorted(HANDLER_FOLDER.glob("*.py")):
            # Lambda reads the modules as another user, so the mode is a part of the package.
            entry = zipfile.ZipInfo(module.name)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, module.read_bytes())
    return packed.getvalue()


def dockerfile(base: str = "public.ecr.aws/lambda/python:3.13") -> str:
    """A Dockerfile for an image of the handler; build it with `HANDLER_FOLDER` as its context.

    `base` is AWS's own image, or any image with a Python in which `awslambdaric` can be installed: a
    base that is not AWS's gets it, and an entry point that runs it.
    """
    lines = [f"FROM {base}"]
    if "/lambda/" in base:
        lines += ["COPY *.py ${LAMBDA_TASK_ROOT}/", f'CMD ["{HANDLER}"]']
    else:
        lines += [
            "RUN python3 -m pip install --no-cache-dir awslambdaric",
            "WORKDIR /var/task",
            "COPY *.py ./",
            'ENTRYPOINT ["python3", "-m", "awslambdaric"]',
            f'CMD ["{HANDLER}"]',
        ]
    return "\n".join(lines) + "\n"
