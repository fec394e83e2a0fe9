from typing import Any

import pytest
from pydantic import ValidationError

from htcgrid_local_docker.options import Options

BAD: list[tuple[str, Any]] = [
    ("image", "a b"),
    ("image", "a\0"),
    ("workers", -1),
    ("workers", 10**30),
    ("entrypoint", ["a\0"]),
    ("network", "a b"),
    ("network", "none"),
    ("cpus", float("inf")),
    ("cpus", float("nan")),
    ("cpus", -1),
    ("cpus", 1e-12),
    ("pids", 2**70),
    ("user", "00:0"),
    ("user", "root"),
    ("user", "99999999999"),
    ("user", "a b"),
    ("volumes", ["/data"]),
    ("volumes", ["/data:relative"]),
    ("gpus", "-1"),
    ("gpus", "0,,2"),
    ("host", "docker.example.com"),
    ("host", "https://user:password@docker.example.com:2376"),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda value: str(value)[:40].replace("\0", "NUL"))
def test_what_no_engine_would_take_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"image": "pricing:1", key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user", "nobody:nogroup"),
        ("cpus", 0),
        ("volumes", ["/data:/mnt/data:ro", "named:/mnt", "/data:/mnt:ro,z"]),
        ("gpus", "0,2"),
        ("gpus", "all"),
        ("host", "unix:///run/user/1000/docker.sock"),
        ("host", "tcp://127.0.0.1:2375"),
        ("host", "ssh://user@host"),
    ],
)
def test_what_an_engine_takes_is_taken(key: str, value: Any) -> None:
    Options.model_validate({"image": "pricing:1", key: value})
