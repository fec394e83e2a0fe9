"""`eks`: pods of an agent and Lambda containers, made for a run from outside the cluster and reached through its API."""

import math
import queue
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from htcgrid.planes import Calls
from htcgrid.spi import Capability, Function, HtcgridError, Invoker, Lease, Outcome, Rejected, Unavailable, Unstarted

from htcgrid_eks import code, pod_diagnosis
from htcgrid_eks.cluster import Cluster, Refusal
from htcgrid_eks.deployment import Deployment
from htcgrid_eks.manifests import Grid
from htcgrid_eks.options import Options
from htcgrid_eks.own_pod import await_end
from htcgrid_eks.permissions import require, run_rules
from htcgrid_eks.pod import AGENT
from htcgrid_eks.port_forward import PortForward
from htcgrid_eks.relay import PORT
from htcgrid_eks.relay_client import RelayClient
from htcgrid_eks.run_pods import RunPods
from htcgrid_eks.sandbox import Termination
from htcgrid_eks.sidecar import container_name

_PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class _Pod:
    """One of the pods; its `name` changes when it is replaced."""

    name: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: dict[str, str] = field(default_factory=dict)
    """Which containers were seen to have ended."""


@dataclass(slots=True)
class _Place:
    """A Lambda container of a pod, with the client to it while there is one."""

    pod: _Pod
    index: int
    client: RelayClient | None = None
    client_of: str = ""


class EksInvoker(Invoker):
    """Pods in the namespace of a kubeconfig, for as long as it is open.

    Nothing in them is reachable from outside the pod; each task goes through the API server to the relay on the
    pod's loopback, and that gives it to the Lambda container there as `eks_sidecar` does.
    """

    class Config(Options):
        """See `htcgrid_eks.options.Options`."""

    carries_settings = True
    config: Config
    max_batch = 32

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.max_concurrency = config.pods * config.containers
        self.standing = (config.autoscale.max if config.autoscale else config.pods, config.containers)
        every = frozenset(Capability)
        # The emulator's replies do not tell an answer from an error document.
        self.capabilities = every if config.transport == "api" else every - {Capability.ERRORS}
        self._cluster = Cluster(config)
        self._run_pods = RunPods(self._cluster, config, function)
        self._calls = Calls()
        self._archive = b""
        self._places: list[_Place] = []
        self._idle: queue.LifoQueue[_Place] = queue.LifoQueue()

    def open(self) -> None:
        """Make the pods and wait until they serve."""
        self.credentials.current(self.function.timeout)  # where there are none, nothing is started
        self._archive = code.pack(self.function.code) if self.config.code == "folder" else b""
        if self.config.code.startswith("s3:"):
            raise Rejected(
                'code = "s3://..." is for `htcgrid deploy`: only a standing grid has a role to read the bucket with. '
                'Write code = "folder" or code = "image".'
            )
        self._cluster.open()
        require(self._cluster, run_rules(with_secret=bool(self.function.environment)), "run pods")
        self._run_pods = RunPods(self._cluster, self.config, self.function)
        self._run_pods.begin()
        pods = [_Pod() for _ in range(self.config.pods)]
        for pod in pods:
            pod.name = self._run_pods.add()
        self._run_pods.await_running([pod.name for pod in pods])
        self._places = [_Place(pod, index) for index in range(self.config.containers) for pod in pods]
        with ThreadPoolExecutor(min(16, len(pods))) as pool:
            list(pool.map(self._connect, self._places[: len(pods)]))  # the first of each pod brings the code
            list(pool.map(self._connect, self._places[len(pods) :]))
        for place in reversed(self._places):
            self._idle.put(place)

    def advise(self, attempts: int) -> Iterable[str]:
        """As `Plugin.advise`."""
        yield from Grid(self.config, self.function, {}, self.config.namespace).notes()
        least, pods = self.config.min_available, self.config.pods
        kept = math.ceil(int(least[:-1]) * pods / 100) if least.endswith("%") else int(least or 0)
        if self.config.autoscale is None and kept >= pods:
            yield (
                f"min_available = {least!r} of pods = {pods} keeps every pod: no node with one can be drained. Leave "
                "min_available out, or have more pods."
            )

    def close(self) -> None:
        for place in self._places:
            if place.client is not None:
                place.client.close()
        self._places = []
        self._idle = queue.LifoQueue()
        with suppress(HtcgridError):  # the pods end by themselves, and the next start removes what is left
            self._run_pods.end()
        self._cluster.close()
        self.credentials.close()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        with self._calls.call() as cancelled:
            yield from self._invoke(batch, timeout, cancelled)

    def _invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str]
    ) -> Iterator[Outcome | Unstarted]:
        place = self._idle.get()
        unreported = {lease.task.id: None for lease in batch}
        try:
            client = self._client_of(place)
            try:
                for report in client.invoke(batch, timeout, cancelled):
                    unreported.pop(report.task_id, None)
                    yield report
            except Unavailable:
                client.close()  # the pod is looked at before it is used again
                raise
        except ConnectionError as error:
            raise Unavailable(
                f"The connection to pod {place.pod.name} broke: {error}.", begun=list(unreported)
            ) from None
        finally:
            self._idle.put(place)

    def cancel(self, task_ids: Collection[str]) -> None:
        self._calls.cancel(task_ids)  # for those that have no client yet
        for place in list(self._places):
            if (client := place.client) is not None:
                client.cancel(task_ids)

    # --- Deployable ---

    def deploy(self, settings: Mapping[str, Any], *, dry_run: bool = False) -> Iterable[str]:
        """Make or change the standing grid, and wait until its pods are ready. `dry_run` yields the YAML."""
        with self._deployment(settings) as deployment:
            yield from deployment.deploy(dry_run=dry_run)

    def undeploy(self) -> Iterable[str]:
        """Remove the standing grid, and what killed runs have left."""
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
        """The Roles that each use takes, as YAML."""
        with self._deployment() as deployment:
            return {"cluster": deployment.permissions()}

    @contextmanager
    def _deployment(self, settings: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Deployment]:
        cluster = Cluster(self.config)
        cluster.open()
        try:
            yield Deployment(cluster, self.config, self.function, settings)
        finally:
            cluster.close()

    # --- clients ---

    def _client_of(self, place: _Place) -> RelayClient:
        """The client to this place: mended, where it has broken, with a new pod where the old one is gone."""
        client = place.client
        if client is not None and place.client_of == place.pod.name and client.is_alive():
            return client
        if client is not None:
            client.close()
            place.client = None
        with place.pod.lock:
            self._replace_if_gone(place.pod)
        try:
            return self._connect(place)
        except Rejected as error:
            raise Unavailable(str(error), retry_after=1.0) from None

    def _replace_if_gone(self, pod: _Pod) -> None:
        found = self._run_pods.find(pod.name)
        if found is not None and self._is_of_use(found):
            return
        if found is not None:
            self._run_pods.remove(pod.name)
        pod.name = self._run_pods.add()
        pod.seen.clear()
        try:
            self._run_pods.await_running([pod.name])
        except Rejected as error:
            raise Unavailable(str(error), retry_after=5.0) from None

    def _is_of_use(self, pod: Any) -> bool:
        if "deletionTimestamp" in pod["metadata"]:
            return False
        # Beside others, a container that ended is restarted; alone, it goes with its pod.
        alone = self.config.containers == 1
        return (
            pod_diagnosis.is_of_use(pod) if alone else "running" in pod_diagnosis.status_of(pod, AGENT).get("state", {})
        )

    def _connect(self, place: _Place) -> RelayClient:
        """Open a client, as soon as the relay listens. Raises `Unavailable` or `Rejected`."""
        pod = place.pod.name
        deadline = time.monotonic() + self.config.start_seconds
        while True:
            try:
                client = RelayClient(
                    PortForward(self._cluster, pod, PORT),
                    self._run_pods.token,
                    lambda index: self._ended(place.pod, index),
                    self.credentials,
                )
            except Refusal as refusal:
                if refusal.status != 404 and refusal.status < 500:
                    raise self._cluster.explain(refusal, "port-forward to pods") from None
                reason = str(refusal)
            except ConnectionError as error:
                reason = str(error)
            else:
                try:
                    client.open(self._archive)
                except (ConnectionError, HtcgridError) as error:
                    client.close()
                    if isinstance(error, HtcgridError):
                        raise
                    reason = str(error)
                else:
                    place.client, place.client_of = client, pod
                    return client
            self._require_alive(pod)
            if time.monotonic() > deadline:
                raise Unavailable(f"Pod {pod} runs but cannot be reached through {self._cluster.server}: {reason}.")
            time.sleep(_PAUSE_SECONDS)

    def _require_alive(self, name: str) -> None:
        pod = self._run_pods.find(name)
        if pod is None:
            raise Unavailable(f"Pod {name} was removed.")
        reason = pod_diagnosis.fatal(self._cluster, pod)
        if reason is not None:
            raise Rejected(reason)

    def _ended(self, pod: _Pod, index: int) -> Termination | None:
        """How that Lambda container has just ended, as soon as Kubernetes knows."""
        return await_end(lambda: self._run_pods.find(pod.name), container_name(index), pod.seen)
