"""Prints the path of a `node_modules` that holds clients of AWS's SDK for JavaScript, which it installs, once.

Kept in $CI_CACHE, or ~/.cache/htcgrid. Needs node and npm.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CLIENTS = ("@aws-sdk/client-s3@3", "@aws-sdk/client-dynamodb@3", "@aws-sdk/client-sts@3")


def main() -> None:
    cache = Path(os.environ.get("CI_CACHE") or Path.home() / ".cache" / "htcgrid")
    folder = cache / "aws-sdk-js@3"
    if not folder.exists():
        if shutil.which("npm") is None:
            sys.exit("AWS's SDK for JavaScript cannot be installed without npm")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", f"{made}/whole", *CLIENTS]
            done = subprocess.run(npm, stdout=sys.stderr, check=False)
            if done.returncode:
                sys.exit("AWS's SDK for JavaScript cannot be installed: npm says why above")
            try:
                Path(made, "whole").rename(folder)  # whole or not at all, whoever else is doing the same
            except OSError:
                if not folder.exists():
                    raise
    print(folder / "node_modules")  # noqa: T201


if __name__ == "__main__":
    main()
