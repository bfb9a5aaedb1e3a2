"""Why a ModelDeployment is not accepted, each reason with every field that is to blame."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from baleen_core.errors import Problem
from baleen_core.model.rendering import warmup_bytes
from baleen_core.model.schema import Device, ModelDeployment, SourceType
from baleen_operator.plan.manifests import MAX_NAME_LENGTH, RuntimeRules, runtime_image

Key = tuple[str, str]

MAX_WARMUP_BYTES: Final = 512 << 10
"""A ConfigMap has room for 1 MiB, in which these are a third longer."""

NAME_CONFLICT: Final = "NameConflict"
_BOUNDARIES: Final = "/:@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a condition says of a deployment that is not accepted."""

    reason: str
    problems: tuple[Problem, ...]


def refuse_invalid(problems: Iterable[Problem]) -> Refusal:
    """Name what core refused: a field that is for later, or one that is wrong."""
    found = tuple(problems)
    is_later = any(problem.message.startswith("NotYetSupported") for problem in found)
    return Refusal(reason="NotYetSupported" if is_later else "Invalid", problems=found)


def refuse_conflicts(deployment: ModelDeployment, claimant: Callable[[str], Key | None]) -> Refusal | None:
    """A model's name is one in the whole installation: the older deployment keeps it."""
    own = (deployment.namespace, deployment.name)
    problems = []
    for model in deployment.models:
        other = claimant(model.name)
        if other not in (None, own):
            assert other is not None
            message = (
                f"{model.name!r} belongs to ModelDeployment {other[0]}/{other[1]}, which is older; use another name"
            )
            problems.append(Problem(field=f"spec.models[{model.name}].name", message=message))
    return Refusal(reason=NAME_CONFLICT, problems=tuple(problems)) if problems else None


def refuse_runtime(deployment: ModelDeployment, rules: RuntimeRules) -> Refusal | None:
    """Say what the installation does not allow, or cannot make a runtime of."""
    if deployment.endpoints:
        return None
    found: Mapping[str, Callable[[ModelDeployment, RuntimeRules], Iterator[Problem]]] = {
        "ImageNotAllowed": _image_problems,
        "SourceNotAllowed": _source_problems,
        "NotAllowed": _account_problems,
        "Invalid": _shape_problems,
        "NotConfigured": _installation_problems,
    }
    for reason, find in found.items():
        if problems := tuple(find(deployment, rules)):
            return Refusal(reason=reason, problems=problems)
    return None


def is_within(address: str, prefixes: Iterable[str]) -> bool:
    """Say whether an address begins with one of the prefixes, and that ends where a part of the address does."""
    for prefix in prefixes:
        rest = address.removeprefix(prefix)
        ends_well = not rest or rest[0] in _BOUNDARIES or prefix[-1:] in tuple(_BOUNDARIES)
        if prefix and address.startswith(prefix) and ends_well:
            return True
    return False


def _image_problems(deployment: ModelDeployment, rules: RuntimeRules) -> Iterator[Problem]:
    image = runtime_image(deployment, rules)
    if image is None:
        message = f"is required for backend {deployment.backend}: an image of Triton with that backend and onnxruntime"
        yield Problem(field="spec.runtime.image", message=message)
    elif deployment.image and not is_within(image, rules.allowed_images):
        message = f"{image!r} is not allowed here; images must begin with {_listed(rules.allowed_images)}"
        yield Problem(field="spec.runtime.image", message=message)


def _source_problems(deployment: ModelDeployment, rules: RuntimeRules) -> Iterator[Problem]:
    for model in deployment.models:
        field = f"spec.models[{model.name}].source"
        if model.source.type is SourceType.FILE:
            yield Problem(field=f"{field}.type", message="File is for `baleen serve` alone; in a cluster give Package")
        elif not is_within(model.source.uri, rules.allowed_sources):
            allowed = _listed(rules.allowed_sources)
            message = f"{model.source.uri!r} is not allowed here; sources must begin with {allowed}"
            yield Problem(field=f"{field}.uri", message=message)


def _account_problems(deployment: ModelDeployment, rules: RuntimeRules) -> Iterator[Problem]:
    account = deployment.pod_template.service_account_name
    if deployment.namespace == rules.system_namespace and account in rules.system_service_accounts:
        message = f"{account!r} is an account of Baleen itself, under which no model may run; use one of your own"
        yield Problem(field="spec.podTemplate.serviceAccountName", message=message)


def _shape_problems(deployment: ModelDeployment, rules: RuntimeRules) -> Iterator[Problem]:
    if len(deployment.name) > MAX_NAME_LENGTH:
        message = f"has {len(deployment.name)} characters; a Service is named after it, so at most {MAX_NAME_LENGTH}"
        yield Problem(field="metadata.name", message=message)
    for model in deployment.models:
        if model.instances.kind is Device.GPU and deployment.gpu is None:
            message = "is GPU, and the pods have none; say how many under spec.gpu"
            yield Problem(field=f"spec.models[{model.name}].instances.kind", message=message)
        if (size := warmup_bytes(model)) > MAX_WARMUP_BYTES:
            message = (
                f"make warm-up rows of {size:,} bytes, of at most {MAX_WARMUP_BYTES:,}; lower dims or maxBatchSize"
            )
            yield Problem(field=f"spec.models[{model.name}].inputs", message=message)


def _installation_problems(deployment: ModelDeployment, rules: RuntimeRules) -> Iterator[Problem]:
    if not rules.fetch_image:
        message = "the installation names no image that fetches models; set it, or give runtime.external"
        yield Problem(field="spec.runtime", message=message)


def _listed(allowed: Iterable[str]) -> str:
    return ", ".join(allowed) or "nothing at all"
