"""Calls to the API server as they are: JSON bytes over the official client's connections, and its refusals as ours."""

import asyncio
import json
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

from baleen_core.errors import ClusterError, Stale
from baleen_operator.metrics import Metrics
from baleen_operator.plan.actions import Target

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
STRATEGIC_MERGE: Final = "application/strategic-merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

MAX_ERROR_BYTES: Final = 1 << 20
MAX_FORBIDDEN: Final = 64
_CANNOT: Final = re.compile(r"cannot (?P<verb>[a-z]+) resource")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where the API server is and with what to speak to it, for kopf, which has connections of its own."""

    server: str
    ca_file: str | None
    token: str | None
    certificate_file: str | None
    key_file: str | None
    insecure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: `verb` in RBAC's words, for messages and metrics; `path` from the server's root."""

    verb: str
    path: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        what = f"{self.resource}/{self.name}" if self.name else self.resource
        return f"{self.verb} {what}{where}"


def call_on(target: Target, verb: str, namespace: str, name: str = "", *, subresource: str = "") -> Call:
    """Return the call that does something with an object, or with all of a namespace (of all, if that is empty)."""
    parts = ["/api" if not target.group else f"/apis/{target.group}", target.version]
    parts += ["namespaces", namespace] if namespace else []
    parts += [part for part in (target.plural, name, subresource) if part]
    resource = f"{target.plural}/{subresource}" if subresource else target.plural
    return Call(verb=verb, path="/".join(parts), resource=resource, namespace=namespace, name=name)


_METHODS: Final[Mapping[str, str]] = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}


class ApiServer:
    """The API server; `problem` says why it did not answer last time, `forbidden` what RBAC refuses."""

    def __init__(self, api: client.ApiClient, *, timeout_seconds: float, metrics: Metrics) -> None:
        self._api: Any = api
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._forbidden: dict[tuple[str, str, str], str] = {}
        self.problem = ""

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, *, timeout_seconds: float, metrics: Metrics, connections: int, kubeconfig: str | None = None
    ) -> AsyncIterator[Self]:
        """Find the credentials of the pod, or else of `kubeconfig` (by default the one in the home directory).

        Connections are kept until the end.

        Raises:
            ClusterError: there are neither, or they cannot be used.
        """
        configuration: Any = client.Configuration()
        await _load(configuration, kubeconfig)
        configuration.connection_pool_maxsize = connections
        # Proxies and .netrc of whoever started the process are not meant for the API server; kopf ignores them, too.
        configuration.client_session_kwargs = {"trust_env": False}
        try:
            api: Any = client.ApiClient(configuration)
        except (OSError, ssl.SSLError) as exc:
            raise ClusterError(f"the credentials of the API server cannot be used: {exc}") from exc
        try:
            yield cls(api, timeout_seconds=timeout_seconds, metrics=metrics)
        finally:
            await api.close()

    @property
    def forbidden(self) -> tuple[str, ...]:
        """What RBAC refused last time it was tried, one sentence each."""
        return tuple(self._forbidden.values())

    async def connection(self) -> Connection:
        """Return the connection's data; a token is read anew when it is old."""
        configuration = self._api.configuration
        authorization: str | None = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return Connection(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            token=authorization.split(" ", 1)[1].strip() if authorization else None,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            insecure=not configuration.verify_ssl,
        )

    async def request(
        self,
        call: Call,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_seconds: float | None = None,
    ) -> bytes | None:
        """Make a call and return the answer's body; None when what it is about is not there.

        Raises:
            Stale: the object is another one by now. ClusterError: refused, or no answer; the call is named.
        """
        seconds = timeout_seconds or self._timeout_seconds
        started = time.monotonic()
        code = "none"
        try:
            status, data = await self._exchange(call, query, body, content_type, accept, seconds)
            code = str(status)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            reason = f"no answer in {seconds:g} s" if isinstance(exc, TimeoutError) else _in_words(exc)
            self.problem = f"the API server does not answer: {reason}"
            raise ClusterError(f"{call}: {reason}") from exc
        finally:
            self._metrics.requests.labels(call.verb, call.resource, code).inc()
            self._metrics.request_seconds.labels(call.verb).observe(time.monotonic() - started)
        self.problem = "" if status < 500 else f"the API server answers with status {status}"
        return self._judge(call, status, data)

    async def _exchange(
        self,
        call: Call,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
        accept: str,
        seconds: float,
    ) -> tuple[int, bytes]:
        url = self._api.configuration.host + call.path + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": content_type, "Accept": accept, "User-Agent": "baleen-operator"}
        for each in (await self._api.configuration.auth_settings()).values():
            headers[each["key"]] = each["value"]
        async with asyncio.timeout(seconds):
            response = await self._api.call_api(
                _METHODS[call.verb],
                url,
                header_params=headers,
                body=body,
                _request_timeout=aiohttp.ClientTimeout(total=seconds),
            )
            return response.status, await response.read()

    def _judge(self, call: Call, status: int, data: bytes) -> bytes | None:
        key = (call.verb, call.resource, call.namespace)
        if status < 300:
            self._forbidden.pop(key, None)
            return data
        if status == 404:
            self._forbidden.pop(key, None)
            return None
        reason, message = _read_status(data)
        if status == 409:
            raise Stale(f"{call}: {message}")
        if status == 403 and (match := _CANNOT.search(message)):
            # Server-side apply of an object that is not there asks for `create`, too: the server names the verb.
            place = f" in namespace {call.namespace}" if call.namespace else " in the cluster"
            refusal = f"RBAC: may not {match['verb']} {call.resource}{place}"
            if key in self._forbidden or len(self._forbidden) < MAX_FORBIDDEN:
                self._forbidden[key] = refusal
            self._metrics.forbidden.labels(match["verb"], call.resource).inc()
            raise ClusterError(refusal)
        raise ClusterError(f"{call}: the API server refused ({status} {reason}): {message}")


def is_forbidden(error: BaseException) -> bool:
    """Say whether it was RBAC that refused."""
    return isinstance(error, ClusterError) and str(error).startswith("RBAC: ")


def _read_status(data: bytes) -> tuple[str, str]:
    try:
        status = json.loads(data[:MAX_ERROR_BYTES])
        return str(status.get("reason", "")), str(status.get("message", ""))[:1024]
    except (ValueError, AttributeError):
        return "", "the answer is not a Status of Kubernetes"


def _in_words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, socket.gaierror):
        return "its name cannot be resolved"
    # Some of aiohttp's errors have no words of their own.
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _load(configuration: Any, kubeconfig: str | None) -> None:
    load_in_cluster: Any = config.load_incluster_config
    load_file: Any = config.load_kube_config
    try:
        load_in_cluster(client_configuration=configuration)
    except ConfigException as outside:
        try:
            await load_file(kubeconfig, client_configuration=configuration, persist_config=False)
        except (ConfigException, OSError, yaml.YAMLError, ValueError, KeyError) as exc:
            raise ClusterError(
                f"there are no credentials of the API server: neither those of a pod ({outside}) "
                f"nor those of KUBECONFIG ({exc})"
            ) from exc
