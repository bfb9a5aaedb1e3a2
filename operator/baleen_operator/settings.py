"""Everything that an installation can set for the operator; only `main` reads the environment."""

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

from baleen_core.environment import (
    Readers,
    json_reader,
    read_level,
    read_names,
    read_pause,
    read_port,
    read_positive,
    read_seconds,
    read_switch,
    read_tenants,
    read_url,
    read_urls,
    read_variables,
)
from baleen_core.errors import InvalidError, Problem
from baleen_core.model.schema import Backend
from baleen_core.policy.grants import Grants
from baleen_operator.plan.injection import InjectionRules, read_amount
from baleen_operator.plan.manifests import RuntimeRules
from baleen_operator.plan.scaling import Pace, ScalingRules

T = TypeVar("T")

PREFIX: Final = "BALEEN_OPERATOR_"
WORKLOAD_KINDS: Final = ("Deployment", "StatefulSet")


class CertificateSource(StrEnum):
    """Who makes the webhooks' certificate: the operator, or somebody who also tells API servers whom to trust."""

    MANAGED = "Managed"
    PROVIDED = "Provided"


class PullPolicy(StrEnum):
    """When an image is pulled, in Kubernetes' words."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The defaults suit one operator for a whole cluster; each field is set by `BALEEN_OPERATOR_<FIELD>`."""

    host: str = "0.0.0.0"  # noqa: S104 - the kubelet asks from outside the pod; nothing here is secret
    """The address of /health, /ready and /metrics."""
    port: int = 8080
    """Their port; 0 takes a free one, which the log names."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    namespaces: frozenset[str] = frozenset()
    """The namespaces (comma-separated) whose resources are looked after; empty: all of them."""
    policy_namespaces: frozenset[str] = frozenset()
    """The namespaces (comma-separated) in which policies count; empty: all of them."""
    floor_namespaces: frozenset[str] = frozenset()
    """The namespaces (comma-separated) in which floors count, for any tenant; empty: all, each for its own tenants."""
    tenants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The tenants that each namespace may speak for, as JSON: {"team-a": ["acme"], "safety": ["*"]}; empty: any.

    Where namespaces are named for floors, those may bind any tenant by them.
    """
    approval_by_another: bool = False
    """Whether only approvals by somebody else count than whoever applied the content, both known by the webhooks."""
    lease_namespace: str = "baleen-system"
    """The namespace of the Lease that one operator at a time holds."""
    lease_name: str = "baleen-operator"
    """Its name."""
    lease_duration_seconds: int = 15
    """How long a Lease that is not renewed keeps others from taking over."""
    lease_retry_seconds: float = 2.0
    """How often the Lease is renewed, or tried for."""
    workers: int = 8
    """How many policies are worked on at the same time."""
    model_workers: int = 16
    """How many ModelDeployments are looked at at the same time; each may wait for minutes while a model is loaded."""
    system_namespace: str = "baleen-system"
    """The namespace where operator and gateways run, whose pods may talk to the runtimes."""
    model_files: Path = Path("models")
    """The folder of the models' files, by which golden questions are asked; shipped ones are found without it."""
    fetch_image: str = ""
    """The image with the command `baleen`, which puts the models' files in place; empty: no runtimes are made."""
    fetch_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the container that fetches, as JSON, such as where the package index is."""
    fetch_networks: tuple[str, ...] = RuntimeRules().fetch_networks
    """The networks (comma-separated CIDRs) in which runtimes may reach port 443."""
    runtime_images: Mapping[Backend, str] = field(default_factory=lambda: RuntimeRules().images)
    """Triton's image for each backend where a ModelDeployment names none, as JSON: {"Onnxruntime": "…"}."""
    allowed_images: tuple[str, ...] = RuntimeRules().allowed_images
    """Beginnings (comma-separated) of the images that may run."""
    allowed_sources: tuple[str, ...] = RuntimeRules().allowed_sources
    """Beginnings (comma-separated) of the addresses that models may come from."""
    request_timeout_seconds: float = 10.0
    """How long one call to the API server may take."""
    relist_seconds: float = 600.0
    """How often everything is listed anew, to find what the watches missed."""
    secret_poll_seconds: float = 30.0
    """How often policies whose lists are Secrets are looked at; Secrets are read and never watched."""
    drain_seconds: float = 5.0
    """How long work that has begun may take to end once the operator is told to stop."""
    prometheus_url: str = ""
    """The server that PromQL metrics are asked of: what is before /api/v1/query; empty: such metrics are refused."""
    prometheus_ca_file: Path | None = None
    """The file (PEM) of the authorities that its certificate may be by; without it those that the system trusts."""
    prometheus_token_file: Path | None = None
    """The file of a bearer token, which is only sent by https; read again each time."""
    prometheus_timeout_seconds: float = 5.0
    """How long one answer of it may take."""
    prometheus_namespaces: frozenset[str] = frozenset()
    """The namespaces (comma-separated) whose policies may ask it; empty: all of them."""
    gateway_urls: tuple[str, ...] = ()
    """The gateways (comma-separated base URLs), where they are not found by a Service."""
    gateway_namespace: str = "baleen-system"
    """The namespace of the gateways' Service."""
    gateway_service: str = ""
    """The Service whose EndpointSlices are the gateways; empty: none, or those of `gateway_urls`."""
    gateway_port: int = 8081
    """The port of their authenticated listener."""
    gateway_token_file: Path | None = None
    """The file of a token of the operator's ServiceAccount for the audience `baleen-gateway`; read again each time."""
    gateway_timeout_seconds: float = 5.0
    """How long one answer of a gateway may take."""
    gateway_workload: str = ""
    """The gateways' workload to scale, such as Deployment/baleen-gateway; empty: somebody else decides how many."""
    gateway_min_replicas: int = 3
    """The least number of gateways, where they are scaled."""
    gateway_max_replicas: int = 20
    """The largest number of gateways."""
    gateway_target_in_flight: int = 16
    """How many requests a gateway should be answering at the same time, on average."""
    gateway_scale_seconds: float = 15.0
    """How often the number of gateways is decided anew."""
    gateway_up_percent: int = 100
    """By how much the number may grow in a period, in percent; by one it always may."""
    gateway_up_period_seconds: float = 15.0
    """That period."""
    gateway_up_window_seconds: float = 60.0
    """How long more gateways must have been needed before they come; 0: not at all."""
    gateway_down_percent: int = 10
    """By how much the number may shrink in a period, in percent; by one it always may."""
    gateway_down_period_seconds: float = 60.0
    """That period."""
    gateway_down_window_seconds: float = 300.0
    """How long fewer gateways must have been enough before they go; 0: not at all."""
    webhook_names: tuple[str, ...] = ()
    """The names (comma-separated) of the webhooks' Service, which their certificate is for; empty: there are none."""
    webhook_port: int = 8443
    """The webhooks' port; 0 takes a free one, which the log names."""
    webhook_secret: str = "baleen-webhook"  # noqa: S105 - a name
    """The Secret of the webhooks' certificate, in the system's namespace."""
    webhook_certificate: CertificateSource = CertificateSource.MANAGED
    """`Managed`: the operator makes it, and tells API servers whom to trust; `Provided`: it is only read."""
    webhook_certificate_hours: float = 2160.0
    """How long a certificate that the operator makes is good for; the next one is made after two thirds of it."""
    sidecar_image: str = ""
    """The image of injected sidecars; empty: pods that ask for one are refused."""
    sidecar_versions: Mapping[str, str] = field(default_factory=dict)
    """Images of other versions, by the name that a pod's annotation gives, as JSON: {"0.1.0": "…"}."""
    sidecar_pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When their images are pulled: Always, IfNotPresent or Never."""
    sidecar_gateway_url: str = InjectionRules().gateway_url
    """The gateways' policy stream, which injected sidecars follow."""
    sidecar_resources: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: InjectionRules().resources)
    """What their containers ask for and may use, as JSON: {"requests": {"cpu": "100m"}, "limits": {}}."""
    sidecar_state_size: str = InjectionRules().state_size
    """What their decision logs and spools may take of the node's disk."""
    sidecar_temporary_size: str = InjectionRules().temporary_size
    """The size of their /tmp."""
    sidecar_user: int = InjectionRules().user
    """The user and group of their containers; 0: those that the platform gives."""
    sidecar_environment: Mapping[str, str] = field(default_factory=dict)
    """More variables of theirs, as JSON: {"BALEEN_DURABILITY": "Interval"}."""

    @property
    def grants(self) -> Grants:
        """Return which namespaces may bind what."""
        return Grants(
            policy_namespaces=self.policy_namespaces,
            floor_namespaces=self.floor_namespaces,
            tenants=self.tenants,
            has_provider=bool(self.prometheus_url),
            query_namespaces=self.prometheus_namespaces,
        )

    @property
    def runtime_rules(self) -> RuntimeRules:
        """Return what the installation allows for runtimes."""
        return RuntimeRules(
            fetch_image=self.fetch_image,
            images=self.runtime_images,
            allowed_images=self.allowed_images,
            allowed_sources=self.allowed_sources,
            fetch_environment=self.fetch_environment,
            fetch_networks=self.fetch_networks,
            system_namespace=self.system_namespace,
        )

    @property
    def injection_rules(self) -> InjectionRules:
        """Return what the installation says about injected sidecars."""
        return InjectionRules(
            image=self.sidecar_image,
            versions=self.sidecar_versions,
            pull_policy=self.sidecar_pull_policy.value,
            gateway_url=self.sidecar_gateway_url,
            resources=self.sidecar_resources,
            state_size=self.sidecar_state_size,
            temporary_size=self.sidecar_temporary_size,
            user=self.sidecar_user,
            environment=self.sidecar_environment,
        )

    @property
    def webhook_certificate_lifetime(self) -> timedelta | None:
        """Return how long certificates are good for; None where somebody else makes them."""
        is_ours = self.webhook_certificate is CertificateSource.MANAGED
        return timedelta(hours=self.webhook_certificate_hours) if is_ours else None

    @property
    def scaling_rules(self) -> ScalingRules:
        """Return within which bounds, and how fast, gateways come and go."""
        return ScalingRules(
            min_replicas=self.gateway_min_replicas,
            max_replicas=self.gateway_max_replicas,
            target_in_flight=self.gateway_target_in_flight,
            up=Pace(
                percent=self.gateway_up_percent,
                period_seconds=self.gateway_up_period_seconds,
                window_seconds=self.gateway_up_window_seconds,
            ),
            down=Pace(
                percent=self.gateway_down_percent,
                period_seconds=self.gateway_down_period_seconds,
                window_seconds=self.gateway_down_window_seconds,
            ),
        )

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read `BALEEN_OPERATOR_*` variables.

        Raises:
            InvalidError: a variable that is not a setting, or a value that is not of its kind; all of them at once.
        """
        values, problems = read_variables(env, PREFIX, _READERS)
        settings = cls(**values)
        problems += settings._conflicts()
        if problems:
            raise InvalidError(problems)
        return settings

    def _conflicts(self) -> tuple[Problem, ...]:
        problems = []
        # A holder gives up after two thirds of the duration; it must have had time to try more than once.
        if self.lease_retry_seconds * 3 > self.lease_duration_seconds:
            message = f"must be at most a third of the Lease's duration, which is {self.lease_duration_seconds} s"
            problems.append(Problem(field=PREFIX + "LEASE_RETRY_SECONDS", message=message))
        if self.gateway_urls and self.gateway_service:
            message = "cannot stand beside GATEWAY_URLS: gateways are found in one way"
            problems.append(Problem(field=PREFIX + "GATEWAY_SERVICE", message=message))
        if self.gateway_workload and not (self.gateway_urls or self.gateway_service):
            message = (
                "cannot be set without GATEWAY_SERVICE or GATEWAY_URLS: nobody would say how busy the gateways are"
            )
            problems.append(Problem(field=PREFIX + "GATEWAY_WORKLOAD", message=message))
        address = urlsplit(self.prometheus_url)
        if address.username is not None or address.query or address.fragment:
            # Said here, where nobody repeats what was written, which may be a password.
            message = "must have no user, query or fragment; a token has a file of its own, PROMETHEUS_TOKEN_FILE"
            problems.append(Problem(field=PREFIX + "PROMETHEUS_URL", message=message))
        for name in ("prometheus_ca_file", "prometheus_token_file"):
            if getattr(self, name) is not None and not self.prometheus_url.startswith("https:"):
                message = "is for a PROMETHEUS_URL that begins with https: nothing else keeps a token to itself"
                problems.append(Problem(field=PREFIX + name.upper(), message=message))
        if self.approval_by_another and not self.webhook_names:
            message = "cannot be set without WEBHOOK_NAMES: nobody would know who applies and who approves"
            problems.append(Problem(field=PREFIX + "APPROVAL_BY_ANOTHER", message=message))
        if self.gateway_min_replicas > self.gateway_max_replicas:
            message = f"must be at most GATEWAY_MAX_REPLICAS, which is {self.gateway_max_replicas}"
            problems.append(Problem(field=PREFIX + "GATEWAY_MIN_REPLICAS", message=message))
        return tuple(problems)


def _names(text: str) -> frozenset[str]:
    return frozenset(read_names(text))


def _read_resources(text: str) -> Mapping[str, Mapping[str, str]]:
    found: Mapping[str, Mapping[str, str]] = _RESOURCES(text)
    unknown = found.keys() - {"requests", "limits"}
    if unknown:
        raise ValueError(f"there are requests and limits, and no {', '.join(sorted(unknown))}")
    for amounts in found.values():
        for amount in amounts.values():
            read_amount(amount)
    return found


_RESOURCES: Final = json_reader('{"requests": {"cpu": "100m"}}', dict[str, dict[str, str]])


def _read_hours(text: str) -> float:
    hours = float(text)
    if not 0 < hours <= _MOST_HOURS or math.isnan(hours):
        raise ValueError(f"it must be above 0 and at most {_MOST_HOURS}")
    return hours


_MOST_HOURS: Final = 100_000


def _read_user(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise ValueError("a user is 0 to 2147483647")
    return number


def _networks(text: str) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(part)) for part in read_names(text))


def _workload(text: str) -> str:
    kind, _, name = text.partition("/")
    if text and (kind not in WORKLOAD_KINDS or not name or "/" in name):
        raise ValueError("write Deployment/name or StatefulSet/name")
    return text


_READERS: Final[Readers] = {
    "host": str,
    "port": read_port,
    "log_level": read_level,
    "namespaces": _names,
    "policy_namespaces": _names,
    "floor_namespaces": _names,
    "tenants": read_tenants,
    "approval_by_another": read_switch,
    "lease_namespace": str,
    "lease_name": str,
    "lease_duration_seconds": read_positive,
    "lease_retry_seconds": read_seconds,
    "workers": read_positive,
    "model_workers": read_positive,
    "system_namespace": str,
    "model_files": Path,
    "fetch_image": str,
    "fetch_environment": json_reader('{"PIP_INDEX_URL": "https://…"}', dict[str, str]),
    "fetch_networks": _networks,
    "runtime_images": json_reader('{"Onnxruntime": "registry.example/triton:25.08"}', dict[Backend, str]),
    "allowed_images": read_names,
    "allowed_sources": read_names,
    "request_timeout_seconds": read_seconds,
    "relist_seconds": read_seconds,
    "secret_poll_seconds": read_seconds,
    "drain_seconds": read_seconds,
    "prometheus_url": read_url,
    "prometheus_ca_file": Path,
    "prometheus_token_file": Path,
    "prometheus_timeout_seconds": read_seconds,
    "prometheus_namespaces": _names,
    "gateway_urls": read_urls,
    "gateway_namespace": str,
    "gateway_service": str,
    "gateway_port": read_port,
    "gateway_token_file": Path,
    "gateway_timeout_seconds": read_seconds,
    "gateway_workload": _workload,
    "gateway_min_replicas": read_positive,
    "gateway_max_replicas": read_positive,
    "gateway_target_in_flight": read_positive,
    "gateway_scale_seconds": read_seconds,
    "gateway_up_percent": read_positive,
    "gateway_up_period_seconds": read_seconds,
    "gateway_up_window_seconds": read_pause,
    "gateway_down_percent": read_positive,
    "gateway_down_period_seconds": read_seconds,
    "gateway_down_window_seconds": read_pause,
    "webhook_names": read_names,
    "webhook_port": read_port,
    "webhook_secret": str,
    "webhook_certificate": CertificateSource,
    "webhook_certificate_hours": _read_hours,
    "sidecar_image": str,
    "sidecar_versions": json_reader('{"0.1.0": "registry.example/baleen-sidecar:0.1.0"}', dict[str, str]),
    "sidecar_pull_policy": PullPolicy,
    "sidecar_gateway_url": read_url,
    "sidecar_resources": _read_resources,
    "sidecar_state_size": read_amount,
    "sidecar_temporary_size": read_amount,
    "sidecar_user": _read_user,
    "sidecar_environment": json_reader('{"BALEEN_DURABILITY": "Interval"}', dict[str, str]),
}
