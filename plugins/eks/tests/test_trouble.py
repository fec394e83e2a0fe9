from typing import Any, cast

import pytest

from htcgrid_eks import trouble
from htcgrid_eks.cluster import Cluster


class Logs:
    """A cluster of which nothing but the log of a container is asked."""

    def request(self, *_: object, **__: object) -> str:
        return "htcgrid: Redis cannot be reached"

    def namespaced(self, *_: object) -> str:
        return ""


def fatal(status: int, restarts: int, policy: str = "Always") -> str | None:
    ended = {"terminated": {"exitCode": status, "reason": "Error"}}
    pod: dict[str, Any] = {
        "metadata": {"name": "grid-1"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "agent"}]},
        "status": {"containerStatuses": [{"name": "agent", "restartCount": restarts, "state": ended}]},
    }
    return trouble.fatal(cast("Cluster", Logs()), pod)


def test_an_agent_that_finds_its_queue_away_is_given_a_second_start() -> None:
    assert fatal(3, restarts=0) is None


@pytest.mark.parametrize(
    ("status", "restarts", "policy"), [(3, 1, "Always"), (3, 0, "Never"), (2, 0, "Always"), (1, 0, "Always")]
)
def test_a_pod_is_given_up_with_the_end_of_its_log_where_no_start_will_help(
    status: int, restarts: int, policy: str
) -> None:
    said = fatal(status, restarts, policy)
    assert said
    assert f"exit status {status}" in said
    assert "Its log ends:\nhtcgrid: Redis cannot be reached" in said
