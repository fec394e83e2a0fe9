"""What several tests of the plugin stand on."""

from importlib.resources import files
from typing import Any

from htcgrid_eks.cluster import Cluster
from htcgrid_eks.options import Options

VERSIONS = sorted(
    {
        each.name.split("v", 1)[1].rsplit(".", 1)[0]
        for each in files("kubernetes_validate").joinpath("kubernetes-json-schema").iterdir()
        if each.name.startswith("v1.")
    },
    key=lambda version: int(version.partition(".")[2]),
)
"""All that the package has schemas of."""


class Asked(Cluster):
    """Keeps what the API server is asked to make."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.made: list[Any] = []

    def request(self, method: str, path: str, body: Any = None, *_: object, **__: object) -> Any:
        if method != "POST":
            return {"items": []}
        self.made.append(body)
        return {"metadata": {"uid": "1"}}
