"""Creates, changes, shows and removes a standing grid."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from htcgrid.spi import Function, HtcgridError, Rejected, Unavailable

from htcgrid_eks import pod_diagnosis
from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.manifests import TEMPLATE_DIGEST, Grid
from htcgrid_eks.options import Options
from htcgrid_eks.permissions import Rule, as_yaml, deploy_rules, require, role, run_rules, worker_rules
from htcgrid_eks.run_pods import NAME, OWNER, sweep

_LOOK_SECONDS = 0.5
_REMOVAL_SECONDS = 150.0  # a node may take a minute to report a pod whose containers have ended as gone
_RBAC = "rbac.authorization.k8s.io"
_GROUPS = {  # in the order in which they are made
    "ServiceAccount": "",
    "Role": _RBAC,
    "RoleBinding": _RBAC,
    "Secret": "",
    "ConfigMap": "",
    "PodDisruptionBudget": "policy",
    "NetworkPolicy": "networking.k8s.io",
    "Deployment": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling",
    "ScaledObject": "keda.sh",
}


class _Hopeless(Exception):
    """No pod will become ready, however long we wait; `error` says why."""

    def __init__(self, error: HtcgridError) -> None:
        super().__init__(str(error))
        self.error = error


class Deployment:
    """One standing grid in one namespace. Use it between `open` and `close` of its cluster."""

    def __init__(
        self,
        cluster: Cluster,
        options: Options,
        function: Function,
        settings: Mapping[str, Any],
        scrape_ports: Sequence[int] = (),
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._function = function
        self._grid = Grid(options, function, settings, cluster.namespace, scrape_ports)
        self._name = self._grid.name

    def deploy(self, *, dry_run: bool) -> Iterator[str]:
        """Apply every object, then wait until the pods are ready. With `dry_run` yield the YAML and change nothing.

        A new grid that never becomes ready is removed again; a grid that existed before keeps its old pods.
        """
        manifests = self._grid.manifests(self._cluster.versions_of)
        for note in self._grid.notes():
            yield f"# {note}"
        if dry_run:
            shown = [manifest for manifest in manifests if manifest["kind"] != "Secret"]
            if len(shown) < len(manifests):
                yield f"# Not shown: the Secret {self._name} with the function's environment, which `deploy` makes too."
            yield as_yaml(shown).rstrip()
            return
        require(self._cluster, self._rules(), "deploy a grid")
        self._leave_others_alone(manifests)
        for manifest in manifests:
            if manifest["kind"] != "RoleBinding":  # refused until its Role exists
                self._apply(manifest, dry_run=True)  # refusals come before anything is made
        is_new = self._find("Deployment") is None
        created: list[str] = []
        try:
            yield from self._applied(manifests, created)
            yield from self._removed(set(_GROUPS) - {manifest["kind"] for manifest in manifests})
            yield from self._rolled_out()
        except _Hopeless as hopeless:
            if not is_new:
                raise _with(
                    hopeless.error, "What stood before goes on. Correct the cause and run deploy again."
                ) from None
            for kind in reversed(created):
                self._delete(kind)
            raise _with(hopeless.error, "All that was made is removed again.") from None

    def undeploy(self) -> Iterator[str]:
        """Remove the objects with our label, the workers first: they drain, and return the tasks that they do not finish."""
        yield from self._removed(set(_GROUPS))
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
        if self._find("Deployment") is None:
            raise Rejected(f"There is no grid {self._name!r} in {self._cluster.who}: `htcgrid deploy` makes it.")
        content = "application/merge-patch+json"
        self._asked("patch deployments/scale", "PATCH", path, {"spec": {"replicas": size}}, content_type=content)
        yield f"{self._name}: scaling to {size} workers"
        try:
            yield from self._rolled_out()
        except _Hopeless as hopeless:
            raise hopeless.error from None

    def status(self) -> Mapping[str, str]:
        """The grid, its workers and the pods that are not ready."""
        cluster, name = self._cluster, self._name
        shown = {"grid": name, "cluster": cluster.server, "namespace": cluster.namespace}
        deployment = self._find("Deployment")
        if deployment is None:
            return shown | {"state": "not deployed"}
        status, spec = deployment["status"], deployment["spec"]
        containers = spec["template"]["spec"]["containers"]
        pods = self._pods()
        shown["workers"] = f"{status.get('readyReplicas', 0)} ready of {spec.get('replicas', 0)}"
        shown["images"] = ", ".join(dict.fromkeys(container["image"] for container in containers))
        lambdas = sum(container["name"].startswith("lambda-") for container in containers)
        shown["environments"] = str(lambdas * status.get("readyReplicas", 0))
        restarts = sum(each["restartCount"] for pod in pods for each in pod["status"].get("containerStatuses", ()))
        shown["restarts"] = str(restarts)
        if self._options.autoscale is not None:
            scale = self._options.autoscale
            shown["autoscale"] = f"{scale.min} to {scale.max} by {scale.by}"
        for pod in pods:
            if not pod_diagnosis.is_ready(pod) and "deletionTimestamp" not in pod["metadata"]:
                shown[f"pod {pod['metadata']['name']}"] = pod_diagnosis.fatal(cluster, pod) or pod_diagnosis.pending(
                    pod
                )
        return shown

    def permissions(self) -> str:
        """The Roles that each use needs, as YAML with comments."""
        namespace, name = self._cluster.namespace, self._name
        running = run_rules(with_secret=bool(self._function.environment))
        parts = [
            ("For htcgrid run and invoke from outside the cluster:", role(f"{name}-run", namespace, running)),
            ("For htcgrid deploy, undeploy, scale and status:", role(f"{name}-deploy", namespace, self._rules())),
        ]
        if worker := worker_rules(self._options):
            parts.append(("For the workers (deploy creates this Role):", role(name, namespace, worker)))
        return "---\n".join(f"# {comment}\n{as_yaml([document])}" for comment, document in parts)

    # --- within ---

    def _rules(self) -> tuple[Rule, ...]:
        return deploy_rules(
            autoscaled=self._autoscaled(),
            worker=worker_rules(self._options),
            with_secret=bool(self._function.environment),
        )

    def _rolled_out(self) -> Iterator[str]:
        """Wait until every pod is of the newest template and ready; yields the progress. Raises `_Hopeless`, `Unavailable`."""
        deadline = time.monotonic() + self._options.start_seconds
        said = ""
        while True:
            found = self._find("Deployment")
            if found is None:
                raise Rejected(f"Deployment {self._name} was removed during the wait for it.")
            line, done = _progress(found)
            if line != said:
                yield line
                said = line
            if done:
                return
            waits = self._why_not(found)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self._name} is not ready after {self._options.start_seconds:g} s: {line}. {waits} "
                    "The cluster continues to start it; `htcgrid status` shows the progress."
                )
            time.sleep(_LOOK_SECONDS)

    def _why_not(self, deployment: Any) -> str:
        """What pods of the newest template wait for. Raises `_Hopeless` where one never becomes ready."""
        kind = _kind_of(deployment["spec"]["template"])
        staying = [pod for pod in self._pods() if _kind_of(pod) == kind and "deletionTimestamp" not in pod["metadata"]]
        waiting = [pod for pod in staying if not pod_diagnosis.is_ready(pod)]
        newest = max(waiting, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
        if newest is None:
            return self._refused(deployment) or _why_none_waits(deployment)
        reason = pod_diagnosis.fatal(self._cluster, newest)
        if reason is not None:
            raise _Hopeless(Rejected(reason))
        return f"Pod {newest['metadata']['name']}: {pod_diagnosis.pending(newest)}."

    def _refused(self, deployment: Any) -> str:
        """A refusal by a quota or an admission rule, which only the Deployment shows. Raises `_Hopeless` where waiting does not help."""
        for condition in deployment.get("status", {}).get("conditions", ()):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                api_error = ApiError(403, condition.get("reason", ""), condition.get("message", ""))
                error = self._cluster.explain(api_error, f"create a pod of {self._name}")
                if isinstance(error, Unavailable) and _older(deployment):
                    return str(error)  # the quota has space as soon as a pod of an older version is gone
                raise _Hopeless(error)
        return ""

    def _gone(self) -> Iterator[str]:
        """Wait until the last worker has drained."""
        grace = self._grid.grace + _REMOVAL_SECONDS
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
        query = {"labelSelector": f"{pod_diagnosis.GRID}={self._name},{NAME}={self._name}"}
        return list(self._asked("list pods", "GET", self._cluster.namespaced("pods"), query=query)["items"])

    def _leave_others_alone(self, manifests: Sequence[Any]) -> None:
        """Raise `Rejected` if an object that would be changed was made by somebody else."""
        for manifest in manifests:
            found = self._find(manifest["kind"])
            if found is not None and not _is_ours(found):
                raise Rejected(
                    f"There is a {manifest['kind']} {self._name!r} in {self._cluster.who} already, which was not made by "
                    f"htcgrid (no label {OWNER}=htcgrid). Give the grid another `name` in the plane's table, or remove it."
                )

    def _applied(self, manifests: Sequence[Any], created: list[str]) -> Iterator[str]:
        for manifest in manifests:
            kind = manifest["kind"]
            try:
                before = self._find(kind)
                after = self._apply(manifest)
            except HtcgridError as error:
                raise _Hopeless(error) from None
            if before is None:
                created.append(kind)
                yield f"created {kind} {self._name}"
            elif after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
                yield f"changed {kind} {self._name}"

    def _removed(self, kinds: Collection[str]) -> Iterator[str]:
        """Remove our objects of these kinds, in the right order."""
        ours = self._kinds()
        for kind in reversed(_GROUPS):
            # An earlier config, or a user with more rights, may have made objects that this config does not make.
            found = self._find(kind, may_be_hidden=kind not in ours) if kind in kinds else None
            if found is None:
                continue
            if not _is_ours(found):
                yield f"left {kind} {self._name} alone: it was not made by htcgrid (no label {OWNER}=htcgrid)"
                continue
            self._delete(kind)
            yield f"deleted {kind} {self._name}"

    def _apply(self, manifest: Any, *, dry_run: bool = False) -> Any:
        kind, version = manifest["kind"], manifest["apiVersion"]
        try:
            return self._cluster.apply(self._path(kind, version), manifest, dry_run=dry_run)
        except ApiError as api_error:
            raise self._cluster.explain(api_error, f"apply the {kind} {self._name}") from None

    def _delete(self, kind: str) -> None:
        path = self._path(kind, self._version(kind))
        self._asked(f"delete {_plural(kind)}", "DELETE", path, query={"propagationPolicy": "Background"})

    def _find(self, kind: str, *, may_be_hidden: bool = False) -> Any:
        version = self._version(kind)
        if not version:
            return None
        try:
            return self._cluster.request("GET", self._path(kind, version))
        except ApiError as api_error:
            if api_error.status == 404 or (api_error.status == 403 and may_be_hidden):
                return None
            raise self._cluster.explain(api_error, f"get {_plural(kind)}") from None

    def _path(self, kind: str, version: str) -> str:
        return self._cluster.namespaced(_plural(kind), self._name, "" if version == "v1" else version)

    def _version(self, kind: str) -> str:
        """A version in which the cluster has this kind; empty where it has none."""
        group = _GROUPS[kind]
        served = [group or "v1"] if group in {"", "apps/v1"} else self._cluster.versions_of(group, kind)
        return served[0] if served else ""

    def _kinds(self) -> set[str]:
        """The kinds that this config makes, or may make."""
        without = {"keda.sh", "autoscaling"} - {self._autoscaled()}
        without |= set() if worker_rules(self._options) else {_RBAC}
        secret = set() if self._function.environment else {"Secret"}
        return {kind for kind, group in _GROUPS.items() if group not in without} - secret

    def _autoscaled(self) -> str:
        scale = self._options.autoscale
        return "" if scale is None else "keda.sh" if scale.by == "sqs" else "autoscaling"

    def _asked(self, what: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        try:
            return self._cluster.request(method, path, body, **more)
        except ApiError as api_error:
            raise self._cluster.explain(api_error, what) from None


def _with(error: HtcgridError, more: str) -> HtcgridError:
    return type(error)(f"{error}\n{more}")


def _is_ours(found: Any) -> bool:
    """Whether htcgrid has made this object: no other is changed or removed."""
    return bool(found["metadata"].get("labels", {}).get(OWNER) == "htcgrid")


def _kind_of(pod: Any) -> Any:
    """Tells pods of an older template from those of the newest, whatever the cluster has added to their specs."""
    return pod["metadata"].get("annotations", {}).get(TEMPLATE_DIGEST)


def _plural(kind: str) -> str:
    """The name of the kind in paths and rights."""
    return f"{kind.lower().removesuffix('y')}ies" if kind.endswith("y") else f"{kind.lower()}s"


def _progress(deployment: Any) -> tuple[str, bool]:
    spec, status = deployment["spec"], deployment["status"]
    wanted = spec.get("replicas", 1)
    updated, ready, all_ = (status.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "replicas"))
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    done = seen and updated == wanted and ready == wanted and all_ == wanted
    old = f", {_older(deployment)} of an older version" if _older(deployment) else ""
    return f"{ready} of {wanted} workers ready{old}", done


def _older(deployment: Any) -> int:
    """How many pods are not of the newest template."""
    status = deployment["status"]
    return max(0, int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0)))


def _why_none_waits(deployment: Any) -> str:
    if deployment["spec"].get("paused"):
        return "The Deployment is paused: `kubectl rollout resume` continues it."
    if _older(deployment):
        return "Every new pod is ready; the pods of an older version have not ended yet."
    return "No pod is waiting: the cluster's controller has made none yet, or has not counted them."
