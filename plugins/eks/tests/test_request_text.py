"""What is sent to the API server, which reads server-side apply as YAML and all else as JSON."""

import json
from typing import Any

import pytest
import requests
import yaml

from htcgrid_eks.cluster import Cluster
from htcgrid_eks.options import Options

ODD = [
    "pricing 😀",
    "\U0010fffd",
    "Zürich",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufffe",
    "\\ud83d\\ude00",
    'a "quoted"\n\tline\\',
    "\0",
]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_a_text_arrives_whether_it_is_read_as_yaml_or_as_json(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    def request(*_: object, data: Any, **__: object) -> requests.Response:
        sent.append(data if isinstance(data, bytes) else data.encode())
        answer = requests.Response()
        answer.status_code, answer._content = 200, b"{}"
        return answer

    monkeypatch.setattr(requests.Session, "request", request)
    monkeypatch.setattr("htcgrid_eks.cluster.Cluster._configured", lambda cluster: (cluster.settings, "grid"))
    cluster = Cluster(Options(image="i", namespace="grid"))
    cluster.open()
    cluster.apply("/config", {"data": {text: text}})
    cluster.close()
    assert yaml.safe_load(sent[0]) == {"data": {text: text}}
    assert json.loads(sent[0]) == {"data": {text: text}}
