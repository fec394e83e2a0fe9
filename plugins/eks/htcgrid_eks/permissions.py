"""Exactly the rights that each use needs on a cluster: printed as Roles, and checked before anything is made."""

from collections.abc import Sequence
from typing import Any

import yaml
from htcgrid.spi import Rejected

from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.options import Options

Rule = tuple[str, str, tuple[str, ...]]
"""An API group, a resource and its verbs."""

RUN: tuple[Rule, ...] = (
    ("", "configmaps", ("create", "delete", "list")),
    ("", "pods", ("create", "delete", "get", "list")),
    ("", "pods/log", ("get",)),
    ("", "pods/portforward", ("create", "get")),
)
"""`htcgrid run` and `invoke` from outside, where the function has no environment. Port-forwarding is `get` for a WebSocket; newer servers ask for `create`."""

_APPLY = ("create", "delete", "get", "patch")


def run_rules(*, with_secret: bool) -> tuple[Rule, ...]:
    """`htcgrid run` and `invoke` from outside. `with_secret`: the function has an environment."""
    return (*RUN, ("", "secrets", ("create",))) if with_secret else RUN


def worker_rules(options: Options) -> tuple[Rule, ...]:
    """The workers of a standing grid: how one of their containers ended, and the mark of a pod that is busy.

    `patch pods` would be enough for the mark too, but would let a worker change what every pod of the namespace runs.
    """
    rules: tuple[Rule, ...] = (("", "pods", ("get",)),) if options.pod_status else ()
    return (*rules, ("", "pods/status", ("patch",))) if options.idle_first else rules


def deploy_rules(*, autoscaled: str = "", worker: Sequence[Rule] = (), with_secret: bool = False) -> tuple[Rule, ...]:
    """`htcgrid deploy`, `undeploy`, `scale` and `status`. `autoscaled` is the API group of the autoscaler, if there is one;
    `worker` are the rights that `deploy` gives the workers.
    """
    rules: list[Rule] = [
        ("", "configmaps", (*_APPLY, "list")),  # undeploy looks for the remains of killed runs
        ("", "pods", ("get", "list")),
        ("", "pods/log", ("get",)),
        ("", "serviceaccounts", _APPLY),
        ("apps", "deployments", _APPLY),
        ("apps", "deployments/scale", ("patch",)),
        ("networking.k8s.io", "networkpolicies", _APPLY),
        ("policy", "poddisruptionbudgets", _APPLY),
    ]
    if with_secret:
        rules.append(("", "secrets", _APPLY))
    if worker:
        rules += [("rbac.authorization.k8s.io", resource, _APPLY) for resource in ("rolebindings", "roles")]
        rules += worker  # nobody may give what they do not have
    if autoscaled:
        resource = "scaledobjects" if autoscaled == "keda.sh" else "horizontalpodautoscalers"
        rules.append((autoscaled, resource, _APPLY))
    return tuple(rules)


def role(name: str, namespace: str, rules: Sequence[Rule]) -> dict[str, Any]:
    """The Role that holds these rules and no other."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": [
            {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in rules
        ],
    }


def as_yaml(documents: Sequence[Any]) -> str:
    text: str = yaml.safe_dump_all(documents, sort_keys=False, width=120)
    return text


def require(cluster: Cluster, rules: Sequence[Rule], what: str) -> None:
    """Raise `Rejected` with the rights that are missing, before anything is made that could not be removed."""
    missing = [
        f"{verb} {resource}{f' ({group})' if group else ''}"
        for group, resource, verbs in rules
        for verb in verbs
        if not _is_allowed(cluster, group, resource, verb)
    ]
    if missing:
        raise Rejected(
            f"To {what} in {cluster.who} these rights are missing: {', '.join(missing)}. "
            "`htcgrid permissions cluster` prints the Role that is needed; `kubectl auth can-i --list` shows your rights."
        )


def _is_allowed(cluster: Cluster, group: str, resource: str, verb: str) -> bool:
    name, _, subresource = resource.partition("/")
    attributes = {"namespace": cluster.namespace, "group": group, "resource": name, "verb": verb}
    if subresource:
        attributes["subresource"] = subresource
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        found = cluster.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    except ApiError:
        return True  # a user who may not even ask finds out by trying
    return bool(found["status"]["allowed"])
