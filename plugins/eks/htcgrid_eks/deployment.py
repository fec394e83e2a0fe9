"""Setting a standing grid up, changing it, looking at it and taking it away."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from htcgrid.spi import Function, Rejected, Unavailable

from htcgrid_eks import trouble
from htcgrid_eks.cluster import Cluster, Refusal
from htcgrid_eks.crew import NAME, OWNER, sweep
from htcgrid_eks.manifests import Grid
from htcgrid_eks.options import Options
from htcgrid_eks.permissions import RUN, WORKER, as_yaml, deploy_rules, require, role

_LOOK_SECONDS = 0.5
_RESOURCES = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ConfigMap": "configmaps",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "NetworkPolicy": "networkpolicies",
    "Deployment": "deployments",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "ScaledObject": "scaledobjects",
}


class Deployment:
    """One standing grid in one namespace. Use it between `open` and `close` of its cluster."""

    def __init__(self, cluster: Cluster, options: Options, function: Function, settings: Mapping[str, Any]) -> None:
        self._cluster = cluster
        self._options = options
        self._grid = Grid(options, function, settings, cluster.namespace)
        self._name = self._grid.name

    def deploy(self, *, dry_run: bool) -> Iterator[str]:
        """Apply every object, then wait until the pods are ready. With `dry_run` the YAML, and nothing is asked for."""
        manifests = self._grid.manifests(self._cluster.version_of)
        if dry_run:
            yield as_yaml(manifests).rstrip()
            return
        rules = deploy_rules(autoscaled=self._autoscaled(), with_role=self._options.pod_status)
        require(self._cluster, rules, "deploy a grid")
        for manifest in manifests:
            if manifest["kind"] != "RoleBinding":  # refused as long as its Role is not there
                self._apply(manifest, dry_run=True)  # what will be refused is, before anything is made
        for manifest in manifests:
            before = self._find(manifest["kind"], manifest["apiVersion"])
            after = self._apply(manifest)
            version = before and before["metadata"]["resourceVersion"]
            did = (
                "created"
                if before is None
                else "same"
                if after["metadata"]["resourceVersion"] == version
                else "changed"
            )
            if did != "same":
                yield f"{did} {manifest['kind']} {self._name}"
        yield from self._rolled_out()

    def undeploy(self) -> Iterator[str]:
        """Remove what is labelled as ours, the workers first: they drain, and give back what they do not finish."""
        versions = {kind: self._version(kind) for kind in _RESOURCES}
        for kind in reversed(_RESOURCES):
            version = versions[kind]
            found = self._find(kind, version) if version is not None else None
            if found is None:
                continue
            if found["metadata"].get("labels", {}).get(OWNER) != "htcgrid":
                yield f"left {kind} {self._name} alone: it was not made by htcgrid (no label {OWNER}=htcgrid)"
                continue
            path = self._path(kind, str(version))
            self._asked(f"delete {_RESOURCES[kind]}", "DELETE", path, query={"propagationPolicy": "Background"})
            yield f"deleted {kind} {self._name}"
        for run in sweep(self._cluster, self._name, self._options.start_seconds):
            yield f"deleted what a run left behind: {run}"
        yield from self._gone()

    def scale(self, size: int) -> Iterator[str]:
        """Set the number of workers and wait for it."""
        if self._options.autoscale is not None:
            raise Rejected(
                "This grid scales itself: [autoscale] is in its plane's table. Change autoscale.min and autoscale.max and "
                "run `htcgrid deploy`."
            )
        path = self._path("Deployment", "apps/v1") + "/scale"
        if self._find("Deployment", "apps/v1") is None:
            raise Rejected(f"There is no grid {self._name!r} in {self._cluster.who}: `htcgrid deploy` makes it.")
        content = "application/merge-patch+json"
        self._asked("patch deployments/scale", "PATCH", path, {"spec": {"replicas": size}}, content_type=content)
        yield f"{self._name} is to have {size} workers"
        yield from self._rolled_out()

    def status(self) -> Mapping[str, str]:
        """What stands."""
        cluster, name = self._cluster, self._name
        facts = {"grid": name, "cluster": cluster.server, "namespace": cluster.namespace}
        deployment = self._find("Deployment", "apps/v1")
        if deployment is None:
            return facts | {"state": "not deployed"}
        status, spec = deployment["status"], deployment["spec"]
        containers = spec["template"]["spec"]["containers"]
        pods = self._pods()
        facts["workers"] = f"{status.get('readyReplicas', 0)} ready of {spec.get('replicas', 0)}"
        facts["images"] = ", ".join(dict.fromkeys(container["image"] for container in containers))
        facts["environments"] = str((len(containers) - 1) * status.get("readyReplicas", 0))
        restarts = sum(each["restartCount"] for pod in pods for each in pod["status"].get("containerStatuses", ()))
        facts["restarts"] = str(restarts)
        if self._options.autoscale is not None:
            scale = self._options.autoscale
            facts["autoscale"] = f"{scale.min} to {scale.max} by {scale.by}"
        for pod in pods:
            if not trouble.is_ready(pod) and "deletionTimestamp" not in pod["metadata"]:
                facts[f"pod {pod['metadata']['name']}"] = trouble.fatal(cluster, pod) or trouble.pending(pod)
        return facts

    def permissions(self) -> str:
        """The Roles that each use takes, as YAML with comments."""
        namespace, name = self._cluster.namespace, self._name
        deploying = deploy_rules(autoscaled=self._autoscaled(), with_role=self._options.pod_status)
        parts = [
            ("For htcgrid run and invoke from outside the cluster:", role(f"{name}-run", namespace, RUN)),
            ("For htcgrid deploy, undeploy, scale and status:", role(f"{name}-deploy", namespace, deploying)),
        ]
        if self._options.pod_status:
            parts.append(("For the workers; deploy makes it:", role(name, namespace, WORKER)))
        return "---\n".join(f"# {comment}\n{as_yaml([document])}" for comment, document in parts)

    # --- within ---

    def _rolled_out(self) -> Iterator[str]:
        """Wait until every pod is of the newest kind and ready; say how far it is, and why not where it cannot be."""
        deadline = time.monotonic() + self._options.start_seconds
        said = ""
        while True:
            found = self._find("Deployment", "apps/v1")
            if found is None:
                raise Rejected(f"Deployment {self._name} was removed while it was waited for.")
            line, done = _progress(found)
            if line != said:
                yield line
                said = line
            if done:
                return
            waits = self._why_not()
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self._name} is not ready after {self._options.start_seconds:g} s: {line}. {waits} "
                    "The cluster goes on with it; `htcgrid status` shows how far it is."
                )
            time.sleep(_LOOK_SECONDS)

    def _why_not(self) -> str:
        """What pods wait for. Raises `Rejected` where one never comes up."""
        newest = max(
            (pod for pod in self._pods()), key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None
        )
        if newest is None or trouble.is_ready(newest):
            return self._refused_pods()
        reason = trouble.fatal(self._cluster, newest)
        if reason is not None:
            raise Rejected(f"{reason}\nThe objects of {self._name} stand; run deploy again, or `htcgrid undeploy`.")
        return f"Pod {newest['metadata']['name']}: {trouble.pending(newest)}."

    def _refused_pods(self) -> str:
        """A quota or an admission rule shows in the Deployment only."""
        found = self._find("Deployment", "apps/v1")
        for condition in (found or {}).get("status", {}).get("conditions", ()):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                message = condition.get("message", "")
                raise Unavailable(f"{self._cluster.who} takes no more pods of {self._name}: {message}")
        return ""

    def _gone(self) -> Iterator[str]:
        """Wait until the last worker has drained."""
        grace = self._grid.grace + 60.0
        deadline = time.monotonic() + grace
        said = 0
        while pods := self._pods():
            if len(pods) != said:
                said = len(pods)
                yield f"{said} workers are finishing what they run"
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{said} pods of {self._name} have not ended in {grace:.0f} s; the cluster will end them."
                )
            time.sleep(_LOOK_SECONDS)
        yield f"nothing of {self._name} is left in {self._cluster.who}"

    def _pods(self) -> list[Any]:
        query = {"labelSelector": f"htcgrid.io/grid={self._name},{NAME}={self._name}"}
        return list(self._asked("list pods", "GET", self._cluster.namespaced("pods"), query=query)["items"])

    def _apply(self, manifest: Any, *, dry_run: bool = False) -> Any:
        kind = manifest["kind"]
        try:
            return self._cluster.apply(self._path(kind, manifest["apiVersion"]), manifest, dry_run=dry_run)
        except Refusal as refusal:
            raise self._cluster.explain(refusal, f"apply the {kind} {self._name}") from None

    def _find(self, kind: str, version: str) -> Any:
        try:
            return self._cluster.request("GET", self._path(kind, version))
        except Refusal as refusal:
            if refusal.status == 404:
                return None
            raise self._cluster.explain(refusal, f"get {_RESOURCES[kind]}") from None

    def _path(self, kind: str, version: str) -> str:
        return self._cluster.namespaced(_RESOURCES[kind], self._name, "" if version == "v1" else version)

    def _version(self, kind: str) -> str | None:
        """Of a kind that may have been made by an earlier config."""
        fixed = {"ServiceAccount": "v1", "ConfigMap": "v1", "Deployment": "apps/v1"}
        groups = {
            "Role": "rbac.authorization.k8s.io",
            "RoleBinding": "rbac.authorization.k8s.io",
            "PodDisruptionBudget": "policy",
            "NetworkPolicy": "networking.k8s.io",
            "HorizontalPodAutoscaler": "autoscaling",
            "ScaledObject": "keda.sh",
        }
        if kind in fixed:
            return fixed[kind]
        wanted = {"autoscaling": "HorizontalPodAutoscaler", "keda.sh": "ScaledObject"}
        group = groups[kind]
        if group in wanted and group != self._autoscaled():
            return None
        if group.startswith("rbac") and not self._options.pod_status:
            return None
        return self._cluster.version_of(group, kind)

    def _autoscaled(self) -> str:
        scale = self._options.autoscale
        return "" if scale is None else "keda.sh" if scale.by == "sqs" else "autoscaling"

    def _asked(self, what: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        try:
            return self._cluster.request(method, path, body, **more)
        except Refusal as refusal:
            raise self._cluster.explain(refusal, what) from None


def _progress(deployment: Any) -> tuple[str, bool]:
    spec, status = deployment["spec"], deployment["status"]
    wanted = spec.get("replicas", 1)
    updated, ready, all_ = (status.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "replicas"))
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    done = seen and updated == wanted and ready == wanted and all_ == wanted
    old = f", {all_ - updated} of an older kind" if all_ > updated else ""
    return f"{ready} of {wanted} workers ready{old}", done
