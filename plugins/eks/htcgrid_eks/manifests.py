"""The objects of a standing grid, as they are applied. Each is in the namespace and has our label."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tomli_w
from htcgrid.planes import collect
from htcgrid.spi import Function, Rejected

from htcgrid_eks import code
from htcgrid_eks.code import TASK_ROOT
from htcgrid_eks.options import Autoscale, Options
from htcgrid_eks.permissions import role, worker_rules
from htcgrid_eks.pod import Manifest, environment_secret, in_pod, mount, pod_spec, small_container
from htcgrid_eks.pod_diagnosis import GRID
from htcgrid_eks.run_pods import NAME, OWNER
from htcgrid_eks.sidecar import FOLDER, READY

Versions = Callable[[str, str], Sequence[str]]
"""The API versions, such as `policy/v1`, in which the cluster serves a kind of a group, the preferred version first."""

CONFIG_DIGEST = "htcgrid.io/config"
TEMPLATE_DIGEST = "htcgrid.io/template"
"""The annotation with the digest of the pod template as made here. The cluster adds to a pod's spec, never to this."""
_CONFIG_FOLDER = "/etc/htcgrid"
_CONFIG = "htcgrid.toml"
_ARCHIVE = "code.zip"
_ARCHIVE_BYTES = 900_000  # a ConfigMap holds 1 MiB, its base64 and names included
_GRACE_MARGIN = 30.0
_AUTOSCALING = ("autoscaling/v2", "autoscaling/v2beta2")  # v1 has only the metric of the processor
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# The first process of a container has no default action for SIGTERM, so nothing would end it before the agent handles it.
_PROGRAM = [
    "python3",
    "-c",
    "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); from htcgrid.cli import main; main()",
]


class Grid:
    """A standing grid: `settings` is the whole config as a document, of which the source, the sink, the agent and the
    observers are used. Its agents serve metrics at `scrape_ports`; all other ports are closed."""

    def __init__(
        self,
        options: Options,
        function: Function,
        settings: Mapping[str, Any],
        namespace: str,
        scrape_ports: Sequence[int] = (),
    ) -> None:
        self.name = options.base_name(function)
        self._options = options
        self._function = function
        self._settings = settings
        self._namespace = namespace
        self._scrape_ports = sorted(set(scrape_ports))

    def manifests(self, versions: Versions) -> list[Manifest]:
        """The objects in the order in which they are applied. Raises `Rejected` where the cluster lacks a kind that is needed."""
        options = self._options
        config = self._config()
        found = [
            self._service_account(),
            config,
            self._budget(_needed(versions, "policy", "PodDisruptionBudget")),
            self._policy(_needed(versions, "networking.k8s.io", "NetworkPolicy")),
            self._deployment(_digest(config, self._function)),
        ]
        if self._function.environment:
            found.insert(1, environment_secret(self._function, self._metadata(self.name)))
        if worker_rules(options):
            found[1:1] = self._role()
        if options.autoscale is not None:
            found.append(self._scaler(options.autoscale, versions))
        return found

    def notes(self) -> list[str]:
        """What the user should know about the code that is sent."""
        note = collect(self._function.code).note() if self._options.code == "folder" else ""
        return [note] if note else []

    @property
    def grace(self) -> float:
        """Seconds that running tasks have when a worker is asked to stop: the function's timeout, unless it was set."""
        given = self._settings.get("agent", {}).get("grace")
        return float(given if given is not None else self._function.timeout)

    def _config(self) -> Manifest:
        options, settings = self._options, self._settings
        missing = [name for name in ("source", "sink") if not settings.get(name)]
        if missing:
            raise Rejected(
                f"A standing grid takes tasks from a queue into a store: [{'] and ['.join(missing)}] is missing in the config."
            )
        if self._function.credentials.startswith("profile:"):
            raise Rejected(
                f"[function] credentials = {self._function.credentials!r}: a profile is of this machine, and no pod has it. Write "
                'credentials = "role:ARN" or "agent", or function_role_arn in the table of the plane.'
            )
        worker = {
            "plugin": "eks_sidecar",
            "containers": options.containers,
            "transport": options.transport,
            "pod_status": options.pod_status,
            "idle_first": options.idle_first,
        }
        document = {
            "plane": "worker",
            "function": in_pod(self._function).model_dump(mode="json", exclude={"environment"}, exclude_defaults=True),
            "source": settings["source"],
            "sink": settings["sink"],
            "agent": {**settings.get("agent", {}), "grace": self.grace},
            "planes": {"worker": worker},
            **({"observers": settings["observers"]} if settings.get("observers") else {}),
        }
        manifest = self._object("v1", "ConfigMap", self.name)
        manifest["data"] = {_CONFIG: tomli_w.dumps(document)}
        if options.code == "folder":
            manifest["binaryData"] = {_ARCHIVE: self._archive()}
        return manifest

    def _archive(self) -> str:
        archive = code.pack(self._function.code, self._function.layers)
        if len(archive) > _ARCHIVE_BYTES:
            raise Rejected(
                f"{code.described(self._function)} has {len(archive):,} bytes packed; a ConfigMap takes {_ARCHIVE_BYTES:,}. "
                f"{code.ways_out(self._function)}"
            )
        return code.as_text(archive)

    def _service_account(self) -> Manifest:
        account = self._object("v1", "ServiceAccount", self.name)
        account["automountServiceAccountToken"] = False
        if self._options.role_arn:
            account["metadata"]["annotations"] = {"eks.amazonaws.com/role-arn": self._options.role_arn}
        return account

    def _role(self) -> list[Manifest]:
        granted = role(self.name, self._namespace, worker_rules(self._options))
        granted["metadata"] = self._metadata(self.name)
        bound = self._object("rbac.authorization.k8s.io/v1", "RoleBinding", self.name)
        bound["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.name}
        bound["subjects"] = [{"kind": "ServiceAccount", "name": self.name, "namespace": self._namespace}]
        return [granted, bound]

    def _budget(self, version: str) -> Manifest:
        budget = self._object(version, "PodDisruptionBudget", self.name)
        least = self._options.min_available
        # Not for a single pod: it would always have to stay, and its node could never be drained.
        kept = {"minAvailable": int(least) if least.isdigit() else least} if least else {"maxUnavailable": "25%"}
        budget["spec"] = {**kept, "selector": self._selector()}
        return budget

    def _policy(self, version: str) -> Manifest:
        """Nothing may come in except scrapes. Everything may go out, as the source, the sink and the handler need."""
        policy = self._object(version, "NetworkPolicy", self.name)
        policy["spec"] = {"podSelector": self._selector(), "policyTypes": ["Ingress"]}
        if self._scrape_ports:
            ports = [{"protocol": "TCP", "port": port} for port in self._scrape_ports]
            policy["spec"]["ingress"] = [{"ports": ports}]
        return policy

    def _deployment(self, config: str) -> Manifest:
        options = self._options
        deployment = self._object("apps/v1", "Deployment", self.name)
        labels = deployment["metadata"]["labels"]
        # A new digest replaces the pods when the config or the code changes. With IRSA only the agent gets the role.
        annotations = {
            CONFIG_DIGEST: config,
            "eks.amazonaws.com/skip-containers": ",".join(f"lambda-{index}" for index in range(options.containers)),
            **self._scraped(),
            **options.annotations,
        }
        spec: Manifest = {
            "selector": self._selector(),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": self._pod()},
        }
        annotations[TEMPLATE_DIGEST] = code.digest(json.dumps(spec["template"], sort_keys=True).encode())
        if options.autoscale is None:
            spec["replicas"] = options.pods
        deployment["spec"] = spec
        return deployment

    def _scraped(self) -> Mapping[str, str]:
        """The annotations by which a Prometheus server finds the metrics; it knows one port a pod."""
        if not self._scrape_ports:
            return {}
        port = str(self._scrape_ports[0])
        return {"prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": "/metrics"}

    def _pod(self) -> Manifest:
        options = self._options
        ready = {"exec": {"command": ["test", "-e", f"{FOLDER}/{READY}"]}}
        agent: Manifest = {
            "command": [*_PROGRAM, "run", "--config", f"{_CONFIG_FOLDER}/{_CONFIG}"],
            "volumeMounts": [mount("config", _CONFIG_FOLDER, read_only=True)],
            "startupProbe": {**ready, "periodSeconds": 2, "failureThreshold": 150},
            "readinessProbe": {**ready, "periodSeconds": 5},
        }
        if self._scrape_ports:
            agent["ports"] = [{"containerPort": port, "protocol": "TCP"} for port in self._scrape_ports]
        if options.variables:
            agent["envFrom"] = [{"secretRef": {"name": name}} for name in options.variables]
        volumes: list[Manifest] = [{"name": "config", "configMap": {"name": self.name}}]
        if worker_rules(options):
            agent["volumeMounts"].append(mount("account", _ACCOUNT, read_only=True))
            volumes.append(_account_volume())
        spec = pod_spec(options, self._function, agent, self.name, self._init())
        spec["volumes"] += volumes
        spec["serviceAccountName"] = self.name
        spec["terminationGracePeriodSeconds"] = math.ceil(self.grace + _GRACE_MARGIN)
        return spec

    def _init(self) -> list[Manifest]:
        options = self._options
        if options.code == "image":
            return []
        place = f"{_CONFIG_FOLDER}/{_ARCHIVE}" if options.code == "folder" else options.code
        mounts = [mount("config", _CONFIG_FOLDER, read_only=True), mount("code", TASK_ROOT)]
        command = ["python3", "-m", "htcgrid_eks.code", place, TASK_ROOT, *options.layers]
        container = small_container(options, "code", command, mounts)
        if options.variables and options.code != "folder":
            container["envFrom"] = [{"secretRef": {"name": name}} for name in options.variables]
        return [container]

    def _scaler(self, scale: Autoscale, versions: Versions) -> Manifest:
        if scale.by == "sqs":
            return self._scaled_object(scale, versions)
        scaler = self._object(
            _needed(versions, "autoscaling", "HorizontalPodAutoscaler", among=_AUTOSCALING),
            "HorizontalPodAutoscaler",
            self.name,
        )
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name}
        metric: Manifest
        if scale.by == "cpu":
            resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": scale.target}}
            metric = {"type": "Resource", "resource": resource}
        else:
            if not scale.metric:
                raise Rejected('autoscale.by = "metric" needs autoscale.metric, the name of the external metric.')
            external = {
                "metric": {"name": scale.metric},
                "target": {"type": "AverageValue", "averageValue": str(scale.target)},
            }
            metric = {"type": "External", "external": external}
        scaler["spec"] = {
            "scaleTargetRef": target,
            "minReplicas": max(1, scale.min),
            "maxReplicas": scale.max,
            "metrics": [metric],
        }
        return scaler

    def _scaled_object(self, scale: Autoscale, versions: Versions) -> Manifest:
        served = versions("keda.sh", "ScaledObject")
        if not served:
            raise Rejected(
                'autoscale.by = "sqs" needs KEDA, which is not on this cluster. Install it (https://keda.sh), or write '
                'by = "metric" or by = "cpu".'
            )
        if not scale.queue_url or not scale.region:
            raise Rejected('autoscale.by = "sqs" needs autoscale.queue_url and autoscale.region.')
        scaler = self._object(served[0], "ScaledObject", self.name)
        facts = {
            "queueURL": scale.queue_url,
            "awsRegion": scale.region,
            "queueLength": str(scale.target),
            "scaleOnInFlight": "true",  # a worker that runs the last tasks is not removed
            "identityOwner": "operator",
        }
        scaler["spec"] = {
            "scaleTargetRef": {"name": self.name},
            "minReplicaCount": scale.min,
            "maxReplicaCount": scale.max,
            "triggers": [{"type": "aws-sqs-queue", "metadata": facts}],
        }
        return scaler

    def _object(self, version: str, kind: str, name: str) -> Manifest:
        return {"apiVersion": version, "kind": kind, "metadata": self._metadata(name)}

    def _metadata(self, name: str) -> Manifest:
        labels = {OWNER: "htcgrid", NAME: self.name, GRID: self.name}
        return {"name": name, "namespace": self._namespace, "labels": labels}

    def _selector(self) -> Manifest:
        return {"matchLabels": {GRID: self.name}}


def _needed(versions: Versions, group: str, kind: str, among: Sequence[str] = ()) -> str:
    served = [version for version in versions(group, kind) if not among or version in among]
    if not served:
        wanted = f" ({' or '.join(among)})" if among else ""
        raise Rejected(f"This cluster serves no {kind} of {group}{wanted}; it must be Kubernetes 1.20 or later.")
    return served[0]


def _account_volume() -> Manifest:
    """What `automountServiceAccountToken` would mount into every container, for the agent alone."""
    root = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": root},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": "account", "projected": {"sources": sources}}


def _digest(config: Manifest, function: Function) -> str:
    return code.digest(repr((config["data"], config.get("binaryData"), sorted(function.environment.items()))).encode())
