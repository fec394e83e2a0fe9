"""A project whose handler calls AWS as its role, with one config for three planes."""

from pathlib import Path

import kubernetes_layered as layered
from powertools import layer

PLANES = ("local", "docker", "cluster")
_CONFIG = """
[function]
handler = "work.handler"
code = "src"
layers = ["{layer}"]
region = "eu-west-1"
credentials = "role:arn:aws:iam::123456789012:role/pricing"
endpoint_url = "{url}"
timeout = {timeout}
memory = 512
[source]
plugin = "jsonl"
path = "tasks.jsonl"
[sink]
plugin = "jsonl"
path = "results.jsonl"
[planes.local]
plugin = "process"
workers = 2
[planes.docker]
plugin = "local_docker"
base_image = "{image}"
workers = 2
[planes.cluster]
plugin = "eks"
namespace = "{namespace}"
image = "{image}"
agent_image = "{agent_image}"
pods = 2
"""


def write_project(folder: Path, handler: str, *, timeout: int = 60, **names: str) -> Path:
    """The handler as src/work.py and the config; `names` are url, namespace and agent_image."""
    (folder / "src").mkdir()
    (folder / "src" / "work.py").write_text(handler)
    image = layered.image_with_opt_on_its_path()
    (folder / "htcgrid.toml").write_text(_CONFIG.format(layer=layer(), image=image, timeout=timeout, **names))
    folder.chmod(0o755)  # containers of another user read it
    return folder
