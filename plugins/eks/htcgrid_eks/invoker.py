"""`eks`: pods of an agent and Lambda containers, made for a run from outside the cluster and reached through its API."""

import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from htcgrid.planes import RemoteInvoker, Stream, UnexplainedExit, corrected_by
from htcgrid.spi import Capability, Function, HtcgridError, Outcome, Rejected, Unavailable

from htcgrid_eks import code, pod_diagnosis
from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.deployment import Deployment
from htcgrid_eks.manifests import Grid
from htcgrid_eks.options import Options
from htcgrid_eks.own_pod import await_end
from htcgrid_eks.permissions import require, run_rules
from htcgrid_eks.pod import AGENT
from htcgrid_eks.pod_relay import PORT
from htcgrid_eks.port_forward import PortForward
from htcgrid_eks.run_pods import RunPods
from htcgrid_eks.sidecar import container_name


@dataclass(slots=True)
class _Pod:
    """One of the pods; its `name` changes when it is replaced."""

    name: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: dict[str, str] = field(default_factory=dict)
    """By container name: the id of the last container whose end was seen."""


class EksInvoker(RemoteInvoker):
    """Pods in the namespace of a kubeconfig, for as long as the plane is open.

    Nothing in them is reachable from outside the pod; each task goes through the API server to the relay on the
    pod's loopback, which gives it to a Lambda container as `eks_sidecar` does. Each Lambda container of a pod is a place: place p
    belongs to the pod whose number is p modulo the number of pods.
    """

    class Config(Options):
        """See `htcgrid_eks.options.Options`."""

    carries_settings = True
    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.start_seconds = self.restart_seconds = config.start_seconds
        self.max_concurrency = self.size()
        self.standing = (config.autoscale.max if config.autoscale else config.pods, config.containers)
        every = frozenset(Capability)
        # The emulator's replies do not distinguish an answer from an error document.
        self.capabilities = every if config.transport == "http" else every - {Capability.ERRORS}
        self._cluster = Cluster(config)
        self._run_pods = RunPods(self._cluster, config, function)
        self._pods: list[_Pod] = []

    def open(self) -> None:
        """Make the pods and wait until they serve."""
        self.credentials.current(self.function.timeout)  # raises here, before anything is started
        self.archive()
        self._cluster.open()
        require(self._cluster, run_rules(with_secret=bool(self.function.environment)), "run pods")
        self._run_pods = RunPods(self._cluster, self.config, self.function)
        self.token = self._run_pods.token
        self._run_pods.begin()
        self._pods = [_Pod(self._run_pods.add()) for _ in range(self.config.pods)]
        self._run_pods.await_running([pod.name for pod in self._pods])
        super().open()

    def advise(self, attempts: int) -> Iterable[str]:
        """As `Plugin.advise`."""
        yield from Grid(self.config, self.function, {}, self.config.namespace).notes()
        least, pods = self.config.min_available, self.config.pods
        kept = math.ceil(int(least[:-1]) * pods / 100) if least.endswith("%") else int(least or 0)
        if self.config.autoscale is None and kept >= pods:
            yield (
                f"min_available = {least!r} of pods = {pods} keeps every pod: no node with such a pod can be drained. Leave "
                "min_available out, or have more pods."
            )

    def close(self) -> None:
        super().close()
        self._pods = []
        with suppress(HtcgridError):  # the pods end by themselves, and the next start removes what is left
            self._run_pods.end()
        self._cluster.close()

    # --- the relays ---

    def size(self) -> int:
        return self.config.pods * self.config.containers

    def relays(self) -> int:
        return self.config.pods

    def relay_of(self, place: int) -> str:
        return self._pod_of(place).name

    def wanted(self) -> Mapping[str, Any]:
        """Nothing: the relay of a pod has its plane already."""
        return {}

    def archive(self) -> bytes:
        if self.config.code.startswith("s3:"):
            raise Rejected(
                'code = "s3://..." is for `htcgrid deploy`: only a standing grid has a role to read the bucket with. '
                'Write code = "folder" or code = "image".'
            )
        return code.pack(self.function.code, self.function.layers) if self.config.code == "folder" else b""

    def connect(self, place: int) -> Stream:
        try:
            return PortForward(self._cluster, self._pod_of(place).name, PORT)
        except ApiError as api_error:
            if api_error.status not in {404, 429} and api_error.status < 500:
                raise self._cluster.explain(api_error, "port-forward to pods") from None
            raise ConnectionError(str(api_error)) from None

    def check(self, place: int) -> None:
        name = self._pod_of(place).name
        pod = self._run_pods.find(name)
        if pod is None:
            raise Unavailable(f"Pod {name} was removed.")
        reason = pod_diagnosis.fatal(self._cluster, pod)
        if reason is not None:
            raise Rejected(reason)

    def mend(self, place: int) -> None:
        """Make a new pod if the old one no longer exists."""
        pod = self._pod_of(place)
        with pod.lock:
            found = self._run_pods.find(pod.name)
            if found is not None and self._is_of_use(found):
                return
            if found is not None:
                self._run_pods.remove(pod.name)
            self._run_pods.keep_owner()
            pod.name = self._run_pods.add()
            pod.seen.clear()
            try:
                self._run_pods.await_running([pod.name])
            except Rejected as error:
                raise Unavailable(str(error), retry_after=5.0) from None

    def corrected(self, outcome: UnexplainedExit, place: int) -> Outcome:
        """The outcome of a container that ended: its pod's status says how, as soon as Kubernetes knows."""
        pod, name = self._pod_of(place), container_name(place // self.config.pods)
        return corrected_by(await_end(lambda: self._run_pods.find(pod.name), name, pod.seen), outcome)

    def _pod_of(self, place: int) -> _Pod:
        pods = self._pods
        if not pods:  # `close` may come during a call
            raise Unavailable("The plane is not open.")
        return pods[place % self.config.pods]

    def _is_of_use(self, pod: Any) -> bool:
        if "deletionTimestamp" in pod["metadata"]:
            return False
        # Beside others, a container that ended is restarted; alone, it goes with its pod.
        alone = self.config.containers == 1
        return (
            pod_diagnosis.is_of_use(pod) if alone else "running" in pod_diagnosis.status_of(pod, AGENT).get("state", {})
        )

    # --- Deployable ---

    def deploy(self, settings: Mapping[str, Any], *, dry_run: bool = False) -> Iterable[str]:
        """Make or change the standing grid, and wait until its pods are ready. With `dry_run`, yield the YAML instead."""
        with self._deployment(settings) as deployment:
            yield from deployment.deploy(dry_run=dry_run)

    def undeploy(self) -> Iterable[str]:
        """Remove the standing grid and the remains of killed runs."""
        with self._deployment() as deployment:
            yield from deployment.undeploy()

    def scale(self, size: int) -> Iterable[str]:
        """Have `size` pods."""
        with self._deployment() as deployment:
            yield from deployment.scale(size)

    def status(self) -> Mapping[str, str]:
        """The standing grid and its pods."""
        with self._deployment() as deployment:
            return deployment.status()

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The Roles that each use needs, as YAML; and what the workers of a standing grid need on AWS."""
        with self._deployment() as deployment:
            found: dict[str, Mapping[str, Any] | str] = {"cluster": deployment.permissions()}
        if self.config.code.startswith("s3://"):
            places = [place.removeprefix("s3://") for place in (self.config.code, *self.config.layers)]
            read = {
                "Sid": "ReadCode",
                "Effect": "Allow",
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{place}" for place in places],
            }
            found["agent"] = {"Version": "2012-10-17", "Statement": [read]}
        return found

    @contextmanager
    def _deployment(self, settings: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Deployment]:
        cluster = Cluster(self.config)
        cluster.open()
        try:
            yield Deployment(cluster, self.config, self.function, settings, self.observers.scrape_ports)
        finally:
            cluster.close()
