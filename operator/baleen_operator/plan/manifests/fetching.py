"""What a pod starts from: the rendered text of each model as an immutable ConfigMap, and the container that adds files.

ConfigMaps are named by their content, so that pods of the version before, while a new one rolls out, keep theirs.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from baleen_core.canonical import canonical_json, digest_of
from baleen_core.model.rendering import SOURCE_FILE, render_model, render_source
from baleen_core.model.schema import Model, ModelDeployment
from baleen_operator.plan.manifests.naming import CONFIG_MAPS, Owner, build_object, runtime_name
from baleen_operator.plan.manifests.rules import RuntimeRules
from baleen_operator.plan.manifests.security import build_container_security

RENDERED_FOLDER: Final = "/rendered"
REPOSITORY_FOLDER: Final = "/models"
_CACHE_FOLDER: Final = "/cache"
_RESOURCES: Final[dict[str, Any]] = {
    "requests": {"cpu": "250m", "memory": "512Mi"},
    "limits": {"memory": "4Gi"},
}


def build_config_maps(deployment: ModelDeployment, owner: Owner) -> tuple[dict[str, Any], ...]:
    """Return the ConfigMap of each model, in the order of the models."""
    return tuple(_build_config_map(model, deployment, owner) for model in deployment.models)


def build_volumes(deployment: ModelDeployment, config_maps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the volumes of what is rendered, of the repository that is made from it, and of what fetching keeps."""
    return [
        {
            "name": "rendered",
            "projected": {
                "sources": [
                    {
                        "configMap": {
                            "name": config_map["metadata"]["name"],
                            "items": [{"key": _key(model, path), "path": path} for path in _render(model, deployment)],
                        }
                    }
                    for model, config_map in zip(deployment.models, config_maps, strict=True)
                ]
            },
        },
        {"name": "models", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
    ]


def build_fetch_container(rules: RuntimeRules) -> dict[str, Any]:
    """Return the init container that puts the models' files, each of its SHA-256, beside the rendered text."""
    environment = {"XDG_CACHE_HOME": _CACHE_FOLDER, "HOME": _CACHE_FOLDER, "TMPDIR": _CACHE_FOLDER}
    return {
        "name": "fetch",
        "image": rules.fetch_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["baleen", "models", "place", RENDERED_FOLDER, REPOSITORY_FOLDER],
        "env": [
            {"name": name, "value": value} for name, value in (environment | dict(rules.fetch_environment)).items()
        ],
        "resources": _RESOURCES,
        "securityContext": build_container_security(),
        "volumeMounts": [
            {"name": "rendered", "mountPath": RENDERED_FOLDER, "readOnly": True},
            {"name": "models", "mountPath": REPOSITORY_FOLDER},
            {"name": "cache", "mountPath": _CACHE_FOLDER},
        ],
    }


def _build_config_map(model: Model, deployment: ModelDeployment, owner: Owner) -> dict[str, Any]:
    files = _render(model, deployment)
    # Warm-up data is bytes that only happen to be text: tools that show a ConfigMap must not have to escape them.
    is_raw = {path: "\x00" in text for path, text in files.items()}
    data = {_key(model, path): text for path, text in files.items() if not is_raw[path]}
    raw = {_key(model, path): b64encode(text.encode()).decode() for path, text in files.items() if is_raw[path]}
    digest = digest_of(canonical_json({"data": data, "binaryData": raw})).removeprefix("sha256:")
    return build_object(
        CONFIG_MAPS,
        owner,
        f"{runtime_name(owner.name)}-{model.name}-{digest[:10]}",
        immutable=True,
        data=data,
        **({"binaryData": raw} if raw else {}),
    )


def _render(model: Model, deployment: ModelDeployment) -> Mapping[str, str]:
    return {**render_model(model, deployment.backend), f"{model.name}/{SOURCE_FILE}": render_source(model)}


def _key(model: Model, path: str) -> str:
    """Return the key of a ConfigMap for a path in the model's folder; keys have no slashes."""
    return path.removeprefix(f"{model.name}/").replace("/", ".")
