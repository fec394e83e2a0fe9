import pytest

from htcgrid_eks.own_pod import OwnPod


def test_a_pod_asks_for_itself_without_the_keys_of_a_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htcgrid_eks.cluster.Cluster.open", lambda _cluster: None)
    OwnPod().close()
