"""The example that uses Powertools for AWS Lambda, and its layer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from orders_aws import KEYS

EXAMPLE = Path(__file__).parents[2] / "examples" / "powertools"
BRIDGE = "172.17.0.1"


def layer() -> Path:
    """Made once, in $CI_CACHE or ~/.cache/htcgrid: it is 50 MB."""
    cache = Path(os.environ.get("CI_CACHE") or Path.home() / ".cache" / "htcgrid")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"powertools-layer-{version}"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [_htcgrid(), "layer", EXAMPLE / "requirements.txt", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / "whole").touch()
    return folder


def invoke(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The example's event, on a plane of the example's config."""
    event = ("--event-file", str(EXAMPLE / "event.json"), "--log")
    return subprocess.run(
        [
            _htcgrid(),
            "invoke",
            "-c",
            EXAMPLE / "htcgrid.toml",
            *event,
            "--set",
            f"function.endpoint_url={url}",
            *options,
        ],
        env={**os.environ, **KEYS},
        capture_output=True,
        text=True,
        check=False,
    )


def _htcgrid() -> Path:
    return Path(sys.executable).with_name("htcgrid")
