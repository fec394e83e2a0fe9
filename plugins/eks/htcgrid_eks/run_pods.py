"""The pods of one run: made, waited for, replaced and removed.

All are owned by one ConfigMap, whose removal removes them. The pods of a run that was
killed end by themselves, since no client is connected to them; the next start removes what is left of them. It may take
a run whose pods have all ended for a killed one: so a run looks for its owner before it replaces a pod.
"""

import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from htcgrid.spi import Function, Rejected, Unavailable

from htcgrid_eks import pod_diagnosis
from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.code import TASK_ROOT
from htcgrid_eks.options import Options
from htcgrid_eks.pod import AGENT, Manifest, environment_secret, in_pod, pod_spec

log = logging.getLogger("htcgrid.eks.run_pods")

OWNER = "app.kubernetes.io/managed-by"
NAME = "htcgrid.io/name"
RUN = "htcgrid.io/run"
_LOOK_SECONDS = 0.2
_LATE_SECONDS = 60.0
_GRACE_SECONDS = 5


class RunPods:
    """Pods are known by their index; the pod of an index may be replaced."""

    def __init__(self, cluster: Cluster, options: Options, function: Function) -> None:
        self._cluster = cluster
        self._options = options
        self._function = function
        self._base = options.base_name(function)
        self._run = uuid.uuid4().hex[:8]
        self._owner: Manifest | None = None
        self._is_complete = False
        """Whether the owner has its Secret, if it needs one."""
        self._made = 0
        self._lock = threading.Lock()
        """Pods are replaced in several threads: held while their owner and their names are decided."""
        self.token = uuid.uuid4().hex

    def begin(self) -> None:
        """Remove the remains of earlier runs, and make the object that owns the pods of this run."""
        for _ in sweep(self._cluster, self._base, self._options.start_seconds):
            pass
        self._make_owner()

    def keep_owner(self) -> None:
        """Make the owner again if another start has removed it: the cluster removes a pod without an owner at once."""
        with self._lock:
            if self._owner is None:
                raise Unavailable("The plane is not open.")
            query = {"labelSelector": f"{RUN}={self._run}"}
            found = self._asked("list configmaps", "GET", self._cluster.namespaced("configmaps"), query=query)["items"]
            if self._is_complete and any(each["metadata"]["uid"] == self._owner["uid"] for each in found):
                return
            log.warning(
                "ConfigMap %s, which owns the pods, is gone or incomplete: a new one is made.", self._owner["name"]
            )
            self._run = uuid.uuid4().hex[:8]  # the cluster may be about to remove what belonged to the old owner
            self._make_owner()

    def _make_owner(self) -> None:
        self._is_complete = False
        name = f"{self._base}-{self._run}"
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": self._labels()},
            "data": {"run-by": f"{_user()}@{socket.gethostname()}, process {os.getpid()}"},
        }
        made = self._asked("create configmaps", "POST", self._cluster.namespaced("configmaps"), body)
        self._owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": made["metadata"]["uid"]}
        if self._function.environment:
            metadata = {"name": name, "labels": self._labels(), "ownerReferences": [self._owner]}
            secret = environment_secret(self._function, metadata)
            self._asked("create secrets", "POST", self._cluster.namespaced("secrets"), secret)
        self._is_complete = True

    def end(self) -> None:
        """Remove the owner, and with it the pods."""
        if self._owner is not None:
            path = self._cluster.namespaced("configmaps", self._owner["name"])
            _delete(self._cluster, path)
            self._owner = None

    def add(self) -> str:
        """Make one more pod; returns its name at once."""
        with self._lock:
            self._made += 1
            name = f"{self._base}-{self._run}-{self._made}"
            metadata = {
                "name": name,
                "labels": self._labels(),
                "annotations": dict(self._options.annotations),
                "ownerReferences": [self._owner],
            }
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self._spec()}
        self._asked("create pods", "POST", self._cluster.namespaced("pods"), pod)
        log.info("Pod %s is made.", name)
        return name

    def remove(self, name: str) -> None:
        """Remove a pod that cannot be used any more."""
        log.info("Pod %s is removed.", name)
        _delete(self._cluster, self._cluster.namespaced("pods", name))

    def find(self, name: str) -> Any:
        """The pod as it is now; None where it does not exist any more."""
        try:
            return self._cluster.request("GET", self._cluster.namespaced("pods", name))
        except ApiError as api_error:
            if api_error.status == 404:
                return None
            raise self._cluster.explain(api_error, "get pods") from None

    def await_running(self, names: Sequence[str]) -> None:
        """Return once all containers of these pods run. Raises `Rejected` or `Unavailable` with the reason."""
        deadline = time.monotonic() + self._options.start_seconds
        while True:
            pods = [pod for pod in self._list() if pod["metadata"]["name"] in names]
            if len(pods) == len(names) and all(pod_diagnosis.is_running(pod) for pod in pods):
                return
            for pod in pods:
                reason = pod_diagnosis.fatal(self._cluster, pod)
                if reason is not None:
                    raise Rejected(reason)
            if time.monotonic() > deadline:
                waits = "; ".join(
                    f"{pod['metadata']['name']}: {pod_diagnosis.pending(pod)}"
                    for pod in pods
                    if not pod_diagnosis.is_running(pod)
                )
                raise Unavailable(
                    f"{len(names)} pod(s) in {self._cluster.who} did not become ready in {self._options.start_seconds:g} s: "
                    f"{waits or 'they were removed'}."
                )
            time.sleep(_LOOK_SECONDS)

    def _list(self) -> list[Any]:
        query = {"labelSelector": f"{RUN}={self._run}"}
        found = self._asked("list pods", "GET", self._cluster.namespaced("pods"), query=query)
        return list(found["items"])

    def _asked(
        self, what: str, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None
    ) -> Any:
        try:
            return self._cluster.request(method, path, body, query)
        except ApiError as api_error:
            raise self._cluster.explain(api_error, what) from None

    def _labels(self) -> dict[str, str]:
        return {OWNER: "htcgrid", NAME: self._base, RUN: self._run}

    def _spec(self) -> Manifest:
        options = self._options
        settings = {
            "token": self.token,
            "code": TASK_ROOT if options.code == "folder" else "",
            "orphan_seconds": options.orphan_seconds,
            "function": in_pod(self._function).model_dump(mode="json", exclude={"environment"}, exclude_defaults=True),
            "sidecar": {
                "containers": options.containers,
                "transport": options.transport,
                "start_seconds": options.start_seconds,
            },
        }
        agent = {"command": ["python3", "-m", "htcgrid_eks.pod_relay", json.dumps(settings)]}
        spec = pod_spec(options, self._function, agent, f"{self._base}-{self._run}")
        # A pod with one Lambda container is replaced when that container ends, which is faster than a restart after
        # Kubernetes' ever longer pauses. Where there are others beside it, the container is restarted.
        restart = "Never" if options.containers == 1 else "OnFailure"
        return spec | {"restartPolicy": restart, "terminationGracePeriodSeconds": _GRACE_SECONDS}


def sweep(cluster: Cluster, base: str, start_seconds: float) -> list[str]:
    """Remove runs of this name whose pods have all ended or never started; returns their names."""
    query = {"labelSelector": f"{OWNER}=htcgrid,{NAME}={base},{RUN}"}
    try:
        pods = cluster.request("GET", cluster.namespaced("pods"), query=query)["items"]
        owners = cluster.request("GET", cluster.namespaced("configmaps"), query=query)["items"]
    except ApiError as api_error:
        raise cluster.explain(api_error, "list pods and configmaps") from None
    most = start_seconds + _LATE_SECONDS
    living = {pod["metadata"]["labels"][RUN] for pod in pods if _may_be_in_use(pod, most)}
    with_pods = {pod["metadata"]["labels"][RUN] for pod in pods}
    removed = []
    for owner in owners:
        run = owner["metadata"]["labels"][RUN]
        if run not in living and (run in with_pods or _age(owner) > most):
            _delete(cluster, cluster.namespaced("configmaps", owner["metadata"]["name"]))
            removed.append(owner["metadata"]["name"])
    return removed


def _may_be_in_use(pod: Any, most: float) -> bool:
    if pod_diagnosis.is_finished(pod):
        return False
    has_relay = "running" in pod_diagnosis.status_of(pod, AGENT).get("state", {})
    return has_relay or _age(pod) < most


def _age(thing: Any) -> float:
    made = datetime.fromisoformat(thing["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - made).total_seconds()


def _delete(cluster: Cluster, path: str) -> None:
    try:
        cluster.request("DELETE", path, query={"propagationPolicy": "Background"})
    except ApiError as api_error:
        if api_error.status != 404:
            raise cluster.explain(api_error, f"delete {path.rpartition('/')[2]}") from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
