"""What is put into a pod that asks for a sidecar: JSON Patches that add, and never change what the application says.

The sidecar is a native one, an init container that goes on: it is up before the application and ends after it. The
fewest rights: it runs under the pod's own ServiceAccount, with a token for gateways where its API token would be.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec

from baleen_core.errors import ContentError, Problem
from baleen_core.policy.parse import exact_source, place
from baleen_core.reading import pattern, show, unknown_name
from baleen_core.resources import GROUP
from baleen_operator.plan.manifests.security import build_container_security

INJECT_LABEL: Final = f"{GROUP}/inject"
INJECTED_ANNOTATION: Final = f"{GROUP}/injected"
VERSION_ANNOTATION: Final = f"{GROUP}/version"
CONTAINER: Final = "baleen-sidecar"
AUDIENCE: Final = "baleen-gateway"

_TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
"""Where the token of the application would be mounted, if nothing were: the sidecar has no use for that one."""
_STATE_FOLDER: Final = "/state"
_TOKEN_SECONDS: Final = 3600
_DEFAULT_PORT: Final = 8080
_PREFIX: Final = f"{GROUP}/"

_QUANTITY: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_POWERS: Final[Mapping[str, Decimal]] = {"": Decimal(1), "m": Decimal("0.001")} | {
    suffix: Decimal(base**power)
    for base, suffixes in ((1000, ("k", "M", "G", "T", "P", "E")), (1024, ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")))
    for power, suffix in enumerate(suffixes, start=1)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionRules:
    """What the installation says about sidecars. `versions` are images that a pod may ask for by name."""

    image: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    pull_policy: str = "IfNotPresent"
    gateway_url: str = "http://baleen-gateway-stream.baleen-system.svc:8081"
    resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    )
    state_size: str = "1Gi"
    temporary_size: str = "500Mi"
    user: int = 65532
    environment: Mapping[str, str] = field(default_factory=dict)


Patch = tuple[Mapping[str, Any], ...]
"""Operations of RFC 6902."""


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of a pod; fields that are not looked at may be anything."""


class _Port(_Struct, frozen=True):
    container_port: int = 0
    protocol: str = "TCP"


class _Container(_Struct, frozen=True):
    name: str = ""
    ports: list[_Port] | None = None
    restart_policy: str | None = None


class _Volume(_Struct, frozen=True):
    name: str = ""


class _System(_Struct, frozen=True):
    name: str = "linux"


class _Spec(_Struct, frozen=True):
    containers: list[_Container]
    init_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    host_network: bool | None = None
    os: _System | None = None


class _Metadata(_Struct, frozen=True):
    annotations: dict[str, str] | None = None


class _Pod(_Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """What a pod's annotations say."""

    image: str
    port: int
    resources: Mapping[str, Mapping[str, str]]
    context: Mapping[str, str]


def inject(pod: Mapping[str, Any], rules: InjectionRules) -> Patch:
    """Return what adds the sidecar to a pod; nothing when it has one already.

    Raises:
        ContentError: the pod cannot have one: every annotation or field that is to blame, and why.
    """
    try:
        read = msgspec.convert(pod, _Pod)
    except msgspec.ValidationError as exc:
        raise ContentError(f"this is no pod: {exc}") from None
    if _is_injected(read):
        return ()
    problems: list[Problem] = []
    wishes = _read_wishes(read.metadata.annotations or {}, rules, problems)
    volumes = _build_volumes(rules)
    problems += _find_obstacles(read, wishes, {each["name"] for each in volumes})
    if not rules.image:
        problems.append(Problem(field="", message="the installation names no image of the sidecar"))
    if problems:
        raise ContentError(problems)
    return (
        *_annotate(read.metadata.annotations, wishes.image),
        *_extend("/spec/volumes", read.spec.volumes, volumes, "-"),
        # One after the other at the front, so the last one first.
        *_extend("/spec/initContainers", read.spec.init_containers, [_build_sidecar(wishes, rules)][::-1], "0"),
    )


def _is_injected(pod: _Pod) -> bool:
    # A pod made from a copy of another: what it has is kept. Without the container the annotation says nothing.
    has_container = any(
        each.name == CONTAINER and each.restart_policy == "Always" for each in pod.spec.init_containers or ()
    )
    return has_container and bool((pod.metadata.annotations or {}).get(INJECTED_ANNOTATION))


# What the pod says


def _read_wishes(annotations: Mapping[str, str], rules: InjectionRules, problems: list[Problem]) -> _Wishes:
    path = "metadata.annotations"
    said = {
        name: text for name, text in annotations.items() if name.startswith(_PREFIX) and name != INJECTED_ANNOTATION
    }
    found: dict[str, Any] = {}
    for name, text in sorted(said.items()):
        convert = _ANNOTATIONS.get(name.removeprefix(_PREFIX))
        try:
            if convert is None:
                raise ValueError(unknown_name(name, map(_PREFIX.__add__, _ANNOTATIONS), "annotation"))
            found[name.removeprefix(_PREFIX)] = convert(text)
        except ValueError as exc:
            problems.append(Problem(field=f"{path}[{name}]", message=str(exc)))
    version = found.get("version")
    if version is not None and version not in rules.versions:
        message = unknown_name(version, rules.versions, "version of the sidecar here")
        problems.append(Problem(field=f"{path}[{_PREFIX}version]", message=message))
    return _Wishes(
        image=rules.image if version is None else rules.versions.get(version, ""),
        port=found.get("port", _DEFAULT_PORT),
        resources=_read_resources(found, rules, problems),
        context={name: found[name] for name in ("tenant", "surface", "source") if name in found},
    )


def _read_resources(
    found: Mapping[str, Any], rules: InjectionRules, problems: list[Problem]
) -> Mapping[str, Mapping[str, str]]:
    requests, limits = dict(rules.resources.get("requests", {})), dict(rules.resources.get("limits", {}))
    for name in ("cpu", "memory"):
        limit = f"{name}-limit"
        if name in found:
            requests[name] = found[name]
        if limit in found:
            limits[name] = found[limit]
        elif name in found and name in limits and _amount(found[name]) > _amount(limits[name]):
            # Who asks for more than usual was not asking to be refused.
            limits[name] = found[name]
        if limit in found and name not in found and _amount(requests.get(name, "0")) > _amount(found[limit]):
            requests[name] = found[limit]
        if name in requests and name in limits and _amount(requests[name]) > _amount(limits[name]):
            message = f"{limits[name]} is less than the {requests[name]} that are requested"
            problems.append(Problem(field=f"metadata.annotations[{_PREFIX}{limit}]", message=message))
    return {"requests": requests, "limits": limits}


def _read_port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or not 1024 <= int(text) <= 65535:
        raise ValueError(f"{show(text)} is not a port; give one from 1024 to 65535")
    return int(text)


def read_amount(text: str) -> str:
    """Read an amount of CPU or memory as Kubernetes writes it, above zero.

    Raises:
        ValueError: it is none.
    """
    if not _QUANTITY.fullmatch(text) or not _amount(text):
        raise ValueError(f"{show(text)} is not an amount; write one such as 250m, 1 or 512Mi")
    return text


def _amount(text: str) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    assert match is not None, "amounts are read before they are compared"
    return Decimal(match[1]) * _POWERS[match[2] or ""]


_ANNOTATIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "port": _read_port,
    "version": pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a version", max_length=128),
    "cpu": read_amount,
    "cpu-limit": read_amount,
    "memory": read_amount,
    "memory-limit": read_amount,
    "tenant": place,
    "surface": place,
    "source": exact_source,
}


def _find_obstacles(pod: _Pod, wishes: _Wishes, volumes: set[str]) -> Iterator[Problem]:
    spec = pod.spec
    if spec.host_network:
        message = "the sidecar would answer the whole node, not this pod alone; call a gateway instead"
        yield Problem(field="spec.hostNetwork", message=message)
    if spec.os is not None and spec.os.name != "linux":
        yield Problem(field="spec.os.name", message="the sidecar runs on linux only; call a gateway instead")
    for where, containers in (("containers", spec.containers), ("initContainers", spec.init_containers or ())):
        for index, each in enumerate(containers):
            if each.name == CONTAINER:
                message = f"{each.name!r} is the name of a container that is injected; use another one"
                yield Problem(field=f"spec.{where}[{index}].name", message=message)
            for port in each.ports or ():
                if port.container_port == wishes.port and port.protocol == "TCP":
                    message = f"{wishes.port} is a port of container {show(each.name)}, too; give the sidecar another"
                    yield Problem(field=f"metadata.annotations[{_PREFIX}port]", message=message)
    for index, volume in enumerate(spec.volumes or ()):
        if volume.name in volumes:
            message = f"{volume.name!r} is the name of a volume that is injected; use another one"
            yield Problem(field=f"spec.volumes[{index}].name", message=message)


# What is added


def _annotate(annotations: Mapping[str, str] | None, image: str) -> Patch:
    if annotations is None:
        return ({"op": "add", "path": "/metadata/annotations", "value": {INJECTED_ANNOTATION: image}},)
    escaped = INJECTED_ANNOTATION.replace("~", "~0").replace("/", "~1")
    return ({"op": "add", "path": f"/metadata/annotations/{escaped}", "value": image},)


def _extend(path: str, there: Sequence[object] | None, added: Sequence[Mapping[str, Any]], place: str) -> Patch:
    if there is None:
        return ({"op": "add", "path": path, "value": list(added[::-1] if place == "0" else added)},)
    return tuple({"op": "add", "path": f"{path}/{place}", "value": each} for each in added)


def _build_volumes(rules: InjectionRules) -> list[dict[str, Any]]:
    token = {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    return [
        {"name": "baleen-state", "emptyDir": {"sizeLimit": rules.state_size}},
        {"name": "baleen-temporary", "emptyDir": {"sizeLimit": rules.temporary_size}},
        {"name": "baleen-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]


def _build_sidecar(wishes: _Wishes, rules: InjectionRules) -> dict[str, Any]:
    environment = {
        **rules.environment,
        "BALEEN_PORT": str(wishes.port),
        "BALEEN_STATE": _STATE_FOLDER,
        "BALEEN_GATEWAY_URL": rules.gateway_url,
        "BALEEN_GATEWAY_TOKEN_FILE": f"{_TOKEN_FOLDER}/token",
        **{f"BALEEN_DEFAULT_{name.upper()}": value for name, value in wishes.context.items()},
    }
    mounts = [
        {"name": "baleen-state", "mountPath": _STATE_FOLDER},
        {"name": "baleen-temporary", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod's own
        {"name": "baleen-token", "mountPath": _TOKEN_FOLDER, "readOnly": True},
    ]
    return {
        "name": CONTAINER,
        "image": wishes.image,
        "imagePullPolicy": rules.pull_policy,
        "restartPolicy": "Always",
        "command": ["python", "-m", "baleen_sidecar"],
        "env": [
            *({"name": name, "value": value} for name, value in environment.items()),
            {"name": "BALEEN_REPLICA", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {name: dict(amounts) for name, amounts in wishes.resources.items() if amounts},
        "securityContext": _build_security(rules),
        # The application begins once this one is up, and gets requests while there is a policy to judge by.
        "startupProbe": _build_probe("/health", period_seconds=1, failures=120),
        "readinessProbe": _build_probe("/ready", period_seconds=10, failures=2),
        "livenessProbe": _build_probe("/health", period_seconds=30, failures=3),
        "volumeMounts": mounts,
    }


def _build_probe(path: str, *, period_seconds: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": ["python", "-m", "baleen_sidecar.probe", path]},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _build_security(rules: InjectionRules) -> dict[str, Any]:
    # A pod's own user may be root; where a platform gives users, it gives one to this container, too.
    user = {"runAsUser": rules.user, "runAsGroup": rules.user} if rules.user else {}
    return {**build_container_security(), **user}
