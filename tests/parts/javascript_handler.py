"""The handler with AWS's SDK for JavaScript, in a folder that goes into containers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PARTS = Path(__file__).parent
EVENT = '{"id": "1", "bucket": "prices", "table": "orders"}'


def write_code(folder: Path) -> None:
    command = [sys.executable, _PARTS / "node_sdk.py"]
    modules = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    if not modules:
        pytest.skip("AWS's SDK for JavaScript cannot be installed here")
    shutil.copytree(modules, folder / "node_modules")
    shutil.copy(_PARTS / "javascript" / "index.js", folder)
