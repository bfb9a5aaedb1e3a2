"""Talk to a cluster's API server as the person at the terminal: with their kubeconfig, and with their rights.

Errors of the Kubernetes client end here; what leaves is ours, and names the verb and the resource.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, incluster_config, kube_config
from urllib3.exceptions import HTTPError

from baleen_cli.target import Target
from baleen_core.errors import BaleenError, ClusterError, InvalidError, NotFound, Problem, Stale
from baleen_core.resources import GROUP, PLURALS, VERSION

FIELD_MANAGER: Final = "baleen-cli"
"""Not `kubectl-…`: GitOps tools take over what a manager of such a name wrote."""
DEFAULT_KUBECONFIG: Final = Path("~/.kube/config")
DEFAULT_NAMESPACE: Final = "default"
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CORE_PLURALS: Final = {"ConfigMap": "configmaps", "Pod": "pods", "Secret": "secrets"}
PAGE_SIZE: Final = 500
TIMEOUT_SECONDS: Final = (5, 30)
"""To connect, and to wait for an answer."""
POD_TIMEOUT_SECONDS: Final = (5, 60)
"""A gateway looks through its log for up to 30 seconds."""
LIMIT_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""The longest answer of a pod that is read."""

Manifest = Mapping[str, Any]
# The package says that it is typed; this part of it is not.
_kube_config: Any = kube_config
_incluster_config: Any = incluster_config


class Cluster:
    """An API server; `namespace` is the one to use where none is named."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api, self.namespace = api, namespace

    @property
    def server(self) -> str:
        """Return the API server's address."""
        return str(self._api.configuration.host)

    def list(self, kind: str, namespace: str | None, *, label: str = "") -> list[Manifest]:
        """Return all objects of a kind, in one namespace or (None) in all.

        Raises:
            ClusterError: the API server refused or did not answer.
        """
        return list(self._pages(kind, namespace, {"labelSelector": label} if label else {}))

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """Return an object, or None when it is not there.

        Raises:
            ClusterError: as above.
        """
        return self._call("get", "GET", kind, namespace, name)

    def create_empty(self, kind: str, namespace: str, name: str) -> Manifest:
        """Create an object with an empty spec, so that there is a resourceVersion for what is applied to it then.

        Two who apply to what is not there would be merged without either knowing.

        Raises:
            Stale: somebody else created it. ClusterError: as above.
        """
        body = {**_header(kind), "metadata": {"name": name, "namespace": namespace}, "spec": {}}
        return self._write("create", "POST", kind, namespace, "", body=body, query={"fieldManager": FIELD_MANAGER})

    def apply(
        self, kind: str, namespace: str, name: str, body: Manifest, *, resource_version: str = "", dry_run: bool = False
    ) -> Manifest:
        """Server-side apply `body`, which is all that our tools say about an object, and return what came of it.

        Where another manager said otherwise, we win: whoever is on call overrides.

        Raises:
            Stale: the object is another one than that of `resource_version` by now. ClusterError: as above.
        """
        metadata: dict[str, Any] = {**body.get("metadata", {}), "name": name, "namespace": namespace}
        if resource_version:
            metadata["resourceVersion"] = resource_version
        query = {"fieldManager": FIELD_MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        body = {**body, **_header(kind), "metadata": metadata}
        return self._write("patch", "PATCH", kind, namespace, name, body=body, query=query)

    def delete(self, kind: str, namespace: str, name: str, *, resource_version: str, dry_run: bool = False) -> None:
        """Delete an object that is still as it was; deleting what is gone is no error.

        Raises:
            Stale: it is another one than that of `resource_version` by now. ClusterError: as above.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": resource_version}}
        query = {"dryRun": "All"} if dry_run else {}
        self._call("delete", "DELETE", kind, namespace, name, body=body, query=query)

    def ask_pod(
        self,
        namespace: str,
        pod: str,
        port: int,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: Manifest | None = None,
    ) -> tuple[int, bytes]:
        """Send a request to a pod through the API server, and return status and body as the pod gave them.

        The API server passes headers on, but for Authorization, which is its own.

        Raises:
            ClusterError: the API server refused, did not answer or did not reach the pod, or the answer has more than
            LIMIT_ANSWER_BYTES.
        """
        root = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}:{port}/proxy"
        request = self._api.param_serialize(
            method=method,
            resource_path=root + path,
            header_params={"Accept": "application/json", "Content-Type": "application/json", **headers},
            body=body,
            auth_settings=["BearerToken"],
        )
        what = f"{'create' if method == 'POST' else 'get'} pods/proxy {pod!r}"
        try:
            response: Any = self._api.call_api(*request, _request_timeout=POD_TIMEOUT_SECONDS)
            status, data = int(response.status), response.response.read(LIMIT_ANSWER_BYTES + 1)
        except (HTTPError, ApiException, OSError) as exc:
            raise ClusterError(f"cannot {what}: API server {self.server} does not answer: {_reason(exc)}") from exc
        if len(data) > LIMIT_ANSWER_BYTES:
            raise ClusterError(f"cannot {what}: the answer has more than the limit of {LIMIT_ANSWER_BYTES} bytes")
        answer = _read(data)
        if answer.get("kind") == "Status" and answer.get("apiVersion") == "v1":
            # A gateway answers with no such thing: this is the API server's own.
            if status == 404:
                raise ClusterError(f"cannot {what}: {answer.get('message')}")
            raise self._refused(status, answer, f"{what} in namespace {namespace}", "Pod")
        return status, data

    def _write(
        self, verb: str, method: str, kind: str, namespace: str, name: str, *, body: Manifest, query: Mapping[str, str]
    ) -> Manifest:
        written = self._call(verb, method, kind, namespace, name, body=body, query=query)
        if written is None:
            raise NotFound(f"cannot {verb} {_resource(kind)}: there is no namespace {namespace}")
        return written

    def _pages(self, kind: str, namespace: str | None, query: Mapping[str, str]) -> Iterator[Manifest]:
        token = ""
        while True:
            page = {**query, "limit": str(PAGE_SIZE)} | ({"continue": token} if token else {})
            found = self._call("list", "GET", kind, namespace, "", query=page) or {}
            # Items of a list carry neither, and people expect whole objects.
            yield from ({**_header(kind), **item} for item in found.get("items") or ())
            token = (found.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    def _call(
        self,
        verb: str,
        method: str,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Manifest | None:
        """Return what the API server answers; None when the object (but not its kind) is not there."""
        content_type = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        request = self._api.param_serialize(
            method=method,
            resource_path=_path(kind, namespace, name) + (f"?{urlencode(query)}" if query else ""),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        what = " ".join(filter(None, [verb, _resource(kind), repr(name) if name else ""]))
        where = f"in namespace {namespace}" if namespace is not None else "in all namespaces"
        try:
            response: Any = self._api.call_api(*request, _request_timeout=TIMEOUT_SECONDS)
            status, data = int(response.status), response.read()
        except (HTTPError, ApiException, OSError) as exc:
            raise ClusterError(f"cannot {what}: API server {self.server} does not answer: {_reason(exc)}") from exc
        answer = _read(data)
        if 200 <= status < 300 and answer:
            return answer
        if status == 404 and answer.get("reason") == "NotFound" and (answer.get("details") or {}).get("name"):
            return None
        raise self._refused(status, answer, f"{what} {where}", kind)

    def _refused(self, status: int, answer: Manifest, what: str, kind: str) -> BaleenError:
        """Say in our words what is wrong."""
        message = answer.get("message") or f"the answer has status {status}"
        match status:
            case 401:
                return ClusterError(
                    f"cannot {what}: API server {self.server} does not accept who you are ({message}); "
                    "log in again, or choose another --context"
                )
            case 403:
                return ClusterError(f"you may not {what}: {message}")
            case 404:
                return NotFound(
                    f"API server {self.server} does not know {_resource(kind)}: Baleen is not installed there, or in "
                    "another version; install its resources with: kubectl apply --server-side -f crds/"
                )
            case 409:
                return Stale(f"cannot {what}: {message}")
        return ClusterError(f"cannot {what}: {message}")


def connect(target: Target, environment: Mapping[str, str]) -> Cluster:
    """Find the cluster as kubectl does: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, and else that of the pod.

    Raises:
        InvalidError: the kubeconfig cannot be used, or has no such context.
    """
    paths = target.kubeconfig or environment.get("KUBECONFIG", "")
    is_in_cluster = incluster_config.SERVICE_HOST_ENV_NAME in environment and not target.context
    configuration = Configuration()
    # A person waits: what is broken is better said at once than after three more attempts.
    configuration.retries = False
    try:
        if not paths and not DEFAULT_KUBECONFIG.expanduser().exists() and is_in_cluster:
            _incluster_config.load_incluster_config(client_configuration=configuration)
            namespace = NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        else:
            paths = paths or str(DEFAULT_KUBECONFIG)
            namespace = _load_kubeconfig(paths, target, configuration)
    except (ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        problem = Problem(field=f"kubeconfig {paths}".strip(), message=f"cannot be used: {reason}")
        raise InvalidError([problem]) from exc
    return Cluster(ApiClient(configuration), target.namespace or namespace or DEFAULT_NAMESPACE)


def _load_kubeconfig(paths: str, target: Target, configuration: Configuration) -> str:
    """Fill `configuration` and return the namespace of the context."""
    merged = _kube_config.KubeConfigMerger(paths)
    if merged.config is None:
        raise ConfigException("there is no such file; name one with --kubeconfig or in KUBECONFIG")
    contexts = [str(each["name"]) for each in merged.config.value.get("contexts") or ()]
    wanted = target.context or merged.config.value.get("current-context")
    if wanted not in contexts:
        what = f"no context {wanted!r}" if wanted else "no current context, and --context names none"
        raise ConfigException(f"it has {what}; it has {', '.join(contexts) or 'none'}")
    loader = _kube_config.KubeConfigLoader(
        config_dict=merged.config,
        config_base_path=None,
        active_context=wanted,
        config_persister=merged.save_changes,
    )
    loader.load_and_set(configuration)
    return str(loader.current_context["context"].get("namespace") or "")


def _header(kind: str) -> dict[str, str]:
    return {"apiVersion": "v1" if kind in CORE_PLURALS else f"{GROUP}/{VERSION}", "kind": kind}


def _path(kind: str, namespace: str | None, name: str) -> str:
    root = "/api/v1" if kind in CORE_PLURALS else f"/apis/{GROUP}/{VERSION}"
    inside = f"/namespaces/{quote(namespace, safe='')}" if namespace is not None else ""
    plural = CORE_PLURALS.get(kind) or PLURALS[kind]
    return f"{root}{inside}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def _resource(kind: str) -> str:
    return CORE_PLURALS.get(kind) or f"{PLURALS[kind]}.{GROUP}"


def _read(data: bytes | None) -> Manifest:
    try:
        answer = json.loads(data or b"{}")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, ApiException) else error
    return " ".join(str(reason).split())
