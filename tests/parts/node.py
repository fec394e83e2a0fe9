"""Prints the path of a `node_modules` that holds AWS's runtime client for Node, which it builds, once.

Kept in $CI_CACHE, or ~/.cache/htcgrid. Building takes a minute or three and needs node, npm,
autoconf, automake, libtool, cmake, g++, make and python3. With `--cached` nothing is built.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CLIENT = "aws-lambda-ric@3.3.0"
TOOLS = ("node", "npm", "autoconf", "automake", "libtoolize", "cmake", "g++", "make", "python3")


def main() -> None:
    cache = Path(os.environ.get("CI_CACHE") or Path.home() / ".cache" / "htcgrid")
    modules = cache / CLIENT / "node_modules"
    built = modules / "aws-lambda-ric" / "dist" / "rapid-client.node"
    if not built.exists():
        if "--cached" in sys.argv:
            sys.exit(
                "AWS's runtime client for Node is not built: run `python tests/parts/node.py`, which takes minutes"
            )
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            sys.exit(f"AWS's runtime client for Node cannot be built without {', '.join(missing)}")
        modules.parent.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(modules.parent), CLIENT]
        subprocess.run(npm, check=True, stdout=sys.stderr)
        if not built.exists():
            sys.exit(f"npm installed {CLIENT} without building it: it must be let run install scripts")
    print(modules)  # noqa: T201


if __name__ == "__main__":
    main()
