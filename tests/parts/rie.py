"""Prints the path of AWS's Runtime Interface Emulator, which it takes out of aws-sam-cli's wheel, once.

Kept in $CI_CACHE, or ~/.cache/htcgrid. Linux on x86_64 or arm64.
"""

import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "aws-sam-cli==1.170.0"


def main() -> None:
    cache = Path(os.environ.get("CI_CACHE") or Path.home() / ".cache" / "htcgrid")
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    program = cache / WHEEL / f"aws-lambda-rie-{machine}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
            subprocess.run(pip, check=True, stdout=sys.stderr)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                taken = Path(archive.extract(f"samcli/local/rapid/{program.name}", folder))
            taken.chmod(0o755)
            taken.replace(program)  # whole or not at all, whoever else is doing the same
    print(program)  # noqa: T201


if __name__ == "__main__":
    main()
