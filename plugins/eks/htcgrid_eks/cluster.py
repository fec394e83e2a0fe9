"""One namespace of one cluster: requests to its API server, and what its errors mean."""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
import yaml
from htcgrid.spi import HtcgridError, Rejected, Unavailable
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException

from htcgrid_eks.options import Access

_CONNECT_SECONDS, _READ_SECONDS = 3.0, 6.0
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
FIELD_MANAGER = "htcgrid"
_OF_RIGHTS = re.compile(r'\b[Uu]ser "[^"]*"')
"""Found in a 403 of the authorizer, which names the user. Those of quotas, LimitRanges and admission policies do not."""

_ABSENT = re.compile(
    r"no PriorityClass with name|RuntimeClass .* not found|serviceaccount \".*\" not found", re.IGNORECASE
)
"""Found in a 403 of an admission plugin that looks for an object that the pod names."""


class ApiError(Exception):
    """An answer of the API server that is not a success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Cluster:
    """The API server, for one namespace. `open` reads the kubeconfig; before that nothing is read."""

    def __init__(self, options: Access) -> None:
        self._options = options
        self._session: requests.Session | None = None
        self.settings = Configuration()
        self.namespace = options.namespace

    def open(self) -> None:
        """Read the kubeconfig, or the pod's own credentials. Raises `Rejected`."""
        try:
            self.settings, namespace = self._configured()
        except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise Rejected(
                f'The kubeconfig cannot be used: {_one_line(error)}. Name it with kubeconfig = "..." in the plane\'s table '
                'or with $KUBECONFIG, and its context with context = "..."; `kubectl config view` shows it. For EKS, '
                "`aws eks update-kubeconfig --name CLUSTER` writes one."
            ) from None
        self.namespace = self._options.namespace or namespace
        self._session = requests.Session()
        self._session.auth = self._authorized  # set, so that requests does not use ~/.netrc

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def server(self) -> str:
        return str(self.settings.host)

    @property
    def authorization(self) -> str:
        """The header, renewed where the kubeconfig says how; empty with a client certificate."""
        return str(self.settings.get_api_key_with_prefix("authorization", "BearerToken") or "")

    @property
    def who(self) -> str:
        """The cluster and the namespace, to be shown."""
        return f"namespace {self.namespace!r} of {self.server}"

    def namespaced(self, resource: str, name: str = "", group: str = "") -> str:
        """The path of a resource in our namespace; `group` as in `apps/v1`."""
        root = f"/apis/{group}" if group else "/api/v1"
        return f"{root}/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """One request, once; returns the document. Raises `ApiError`, `Unavailable` or `Rejected`."""
        session, settings = self._session, self.settings
        if session is None:  # `close` may come during a call
            raise Unavailable("The plane is not open.")
        try:
            response = session.request(
                method,
                self.server + path,
                params=query,
                data=None if body is None else _as_text(body),
                headers={"Accept": "application/json", "Content-Type": content_type},
                verify=(settings.ssl_ca_cert or True) if settings.verify_ssl else False,
                cert=(settings.cert_file, str(settings.key_file)) if settings.cert_file else None,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
            )
        except requests.RequestException as error:
            raise Unavailable(f"The API server {self.server} cannot be reached: {_cause(error)}.") from None
        if not response.ok:
            raise self._error_of(response)
        if response.headers.get("Content-Type", "").startswith("text/plain"):
            return response.text
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise Unavailable(
                f"{self.server} answers {method} {path} with something that is not JSON. Check that it is a Kubernetes API server and not a proxy."
            ) from None

    def _authorized(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if authorization := self.authorization:
            request.headers["Authorization"] = authorization
        return request

    def apply(self, path: str, manifest: Any, *, dry_run: bool = False) -> Any:
        """Server-side apply: an object that is the same already stays as it is."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        return self.request("PATCH", path, manifest, query, "application/apply-patch+yaml")

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        document = self.request("GET", "/apis")
        return {
            group["name"]: [version["groupVersion"] for version in group["versions"]] for group in document["groups"]
        }

    def versions_of(self, group: str, kind: str) -> list[str]:
        """The versions in which the server has a kind, such as `policy/v1`; its preferred version is the first."""
        try:
            return [
                version
                for version in self._groups.get(group, ())
                if any(each["kind"] == kind for each in self.request("GET", f"/apis/{version}")["resources"])
            ]
        except ApiError as api_error:
            raise self.explain(api_error, f"look for {kind} of {group}") from None

    def _configured(self) -> tuple[Configuration, str]:
        options, settings = self._options, Configuration()
        try:
            file = str(options.kubeconfig) if options.kubeconfig else None
            contexts, current = config.list_kube_config_contexts(file)
        except ConfigException:
            if options.kubeconfig or options.context or not _NAMESPACE_FILE.is_file():
                raise
            config.load_incluster_config(client_configuration=settings)
            return settings, _NAMESPACE_FILE.read_text().strip()
        named = {each["name"]: each for each in contexts}
        if options.context and options.context not in named:
            raise ConfigException(f"it has no context {options.context!r}, only {', '.join(named)}")
        config.load_kube_config(file, options.context or None, settings, persist_config=False)
        chosen = named[options.context] if options.context else current
        return settings, chosen["context"].get("namespace") or "default"

    def _error_of(self, response: requests.Response) -> Exception:
        try:
            document = response.json()
        except (ValueError, RecursionError):
            document = {}
        document = document if isinstance(document, dict) else {}
        message = document.get("message") or response.reason or f"status {response.status_code}"
        if response.status_code == 401:
            return Rejected(
                f"The API server {self.server} does not accept the credentials of the kubeconfig: {message}. They may have "
                "expired: log in again (on EKS, `aws sts get-caller-identity` shows who you are)."
            )
        if response.status_code in {429, 500, 502, 503, 504}:
            return Unavailable(f"The API server {self.server} answers {response.status_code}: {message}")
        return ApiError(response.status_code, document.get("reason", ""), message)

    def explain(self, api_error: ApiError, what: str) -> HtcgridError:
        """The error of an answer, as an error for the user; `what` is the action that failed, as in `create pods`."""
        text = str(api_error)
        if "exceeded quota" in text:
            return Unavailable(f"Cannot {what} in {self.who}: its quota does not allow it. {text}")
        if api_error.status == 403:
            return self._forbidden(text, what)
        if api_error.status == 404 and "namespaces" in text:
            return Rejected(
                f"There is no {self.who}. Make it (`kubectl create namespace {self.namespace}`), or name another as "
                "`namespace` in the plane's table."
            )
        return Rejected(f"Cannot {what} in {self.who}: {text}")

    def _forbidden(self, text: str, what: str) -> HtcgridError:
        """What a 403 means: most of them are not about rights."""
        if "is being terminated" in text:
            return Unavailable(
                f"Cannot {what}: {self.who} is being removed. Wait until it is gone, then make it again."
            )
        if _ABSENT.search(text):
            return Rejected(f"Cannot {what} in {self.who}: {text}. Make what is missing, or name another.")
        if _OF_RIGHTS.search(text):
            return Rejected(
                f"Not allowed to {what} in {self.who}. {text}. `htcgrid permissions cluster` prints the Role that is needed."
            )
        return Rejected(
            f"A rule of the cluster does not allow to {what} in {self.who}: {text}. It is a LimitRange, a quota or an "
            "admission policy, not a missing right: change the plane's table to fit it, or ask the cluster's administrator."
        )


def _as_text(body: Any) -> bytes:
    """The document as JSON that is YAML too: YAML has no pairs of surrogates, and does not take every character as it is."""
    text = json.dumps(body, ensure_ascii=False)
    return re.sub(r"[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _cause(error: BaseException) -> str:
    """The innermost reason, which tells the user what to do."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (each for each in error.args if isinstance(each, Exception)), None
        )
        if not isinstance(inner, BaseException):
            return str(error).rpartition(": ")[2] or repr(error)
        error = inner


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or repr(error)
