"""What an error of the API server means to the user."""

import pytest
from htcgrid.spi import Rejected, Unavailable

from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.options import Options

RULES = [
    'pods "p" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
    'pods "p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
    "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'all' denied request: unknown registry",
    'admission webhook "policy.example" denied the request: no latest tag',
    'pods "p" is forbidden: failed quota: small: must specify limits.cpu for: agent',
]
RIGHTS = [
    'pods is forbidden: User "system:serviceaccount:grid:ci" cannot create resource "pods" in API group ""',
    'roles.rbac.authorization.k8s.io "r" is forbidden: user "ci" (groups=["x"]) is attempting to grant RBAC permissions',
]


def explained(message: str) -> Exception:
    cluster = Cluster(Options(image="i", namespace="grid"))
    return cluster.explain(ApiError(403, "Forbidden", message), "create pods")


@pytest.mark.parametrize("message", RULES)
def test_a_rule_of_the_cluster_is_not_called_a_missing_right(message: str) -> None:
    error = explained(message)
    assert isinstance(error, Rejected)
    assert message in str(error)
    assert "htcgrid permissions" not in str(error)


@pytest.mark.parametrize("message", RIGHTS)
def test_a_missing_right_names_the_role_that_it_takes(message: str) -> None:
    error = explained(message)
    assert isinstance(error, Rejected)
    assert "htcgrid permissions cluster" in str(error)


def test_a_quota_that_is_used_up_may_be_free_later() -> None:
    assert isinstance(explained('pods "p" is forbidden: exceeded quota: small, requested: pods=1'), Unavailable)


@pytest.mark.parametrize(
    "message",
    [
        'pods "p" is forbidden: no PriorityClass with name low was found',
        'pods "p" is forbidden: pod rejected: RuntimeClass "nvidia" not found',
        'pods "p" is forbidden: error looking up service account grid/p: serviceaccount "p" not found',
    ],
)
def test_what_a_pod_names_and_is_not_there_is_neither_a_right_nor_a_rule(message: str) -> None:
    error = explained(message)
    assert isinstance(error, Rejected)
    assert f"{message}. Make what is missing, or name another." in str(error)


def test_a_namespace_that_is_being_removed_is_said_to_be() -> None:
    error = explained(
        'pods "p" is forbidden: unable to create new content in namespace grid because it is being terminated'
    )
    assert isinstance(error, Unavailable)
    assert "is being removed" in str(error)


@pytest.mark.parametrize("status", [403, 404])
def test_a_refused_look_at_what_the_cluster_serves_is_explained(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(_cluster: Cluster, _method: str, path: str, *_: object) -> object:
        if path == "/apis":
            version = {"groupVersion": "keda.sh/v1alpha1"}
            return {"groups": [{"name": "keda.sh", "versions": [version]}]}
        raise ApiError(status, "", f'User "ci" cannot get path "{path}"')

    monkeypatch.setattr(Cluster, "request", request)
    with pytest.raises(Rejected, match=r"look for ScaledObject of keda\.sh .*/apis/keda\.sh/v1alpha1"):
        Cluster(Options(image="i", namespace="grid")).versions_of("keda.sh", "ScaledObject")
