"""Models from folders: ModelDeployments as YAML, and beside them the files that were fetched for them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from baleen_core.canonical import digest_of
from baleen_core.errors import IntegrityError, ModelError, Problem
from baleen_core.model.fallback import find_fallback_faults
from baleen_core.model.loaded import LoadedModel, load_model
from baleen_core.model.parse import parse_model_deployment
from baleen_core.model.recipes import find_recipe
from baleen_core.model.schema import Model, ModelDeployment
from baleen_sidecar.adapters.resources import read_folder

AssetReader = Callable[[Model], tuple[str, Mapping[str, Path]]]
"""Finds a model's files: the SHA-256 of what Triton loads, and its recipe's assets by name."""


def read_deployments(folder: Path) -> tuple[ModelDeployment, ...]:
    """Read every ModelDeployment of a folder.

    Raises:
        ModelError: a file that cannot be read, a deployment that is not valid, or a model name that is used twice.
    """
    documents = read_folder(folder)
    problems = list(documents.problems)
    deployments: list[ModelDeployment] = []
    for document in documents.documents:
        if document.body.get("kind") != "ModelDeployment":
            continue
        try:
            deployments.append(parse_model_deployment(document.body))
        except ModelError as exc:
            problems += [
                Problem(field=f"{document.file}: {problem.field}", message=problem.message) for problem in exc.problems
            ]
    names = [model.name for deployment in deployments for model in deployment.models]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(Problem(field=str(folder), message=f"model {name!r} is in more than one ModelDeployment"))
    if not problems:
        faults = find_fallback_faults([model for deployment in deployments for model in deployment.models], is_all=True)
        problems += [
            Problem(field=f"model {each.model}: signals[{each.index}].fallback", message=each.message)
            for each in faults
        ]
    if not deployments and not problems:
        problems.append(Problem(field=str(folder), message="there is no ModelDeployment in this folder"))
    if problems:
        raise ModelError(problems)
    return tuple(deployments)


def load_from(model: Model, sha256: str, assets: Mapping[str, Path]) -> LoadedModel:
    """Make a model's recipe ready, with its assets read from these files.

    Raises:
        IntegrityError: the model's file or an asset is not the one that the deployment names.
        ModelError: an asset is missing.
    """
    wanted = () if find_recipe(model.preprocessing.recipe).accepts == "image" else model.preprocessing.assets
    return load_model(
        model, sha256, {asset.name: _read_asset(model, asset.name, asset.sha256, assets) for asset in wanted}
    )


def _read_asset(model: Model, name: str, sha256: str | None, assets: Mapping[str, Path]) -> bytes:
    if name not in assets:
        raise ModelError(f"model {model.name}: asset {name!r} is not among its files; run `baleen models fetch`")
    content = assets[name].read_bytes()
    found = digest_of(content).removeprefix("sha256:")
    if sha256 is not None and found != sha256:
        raise IntegrityError(f"asset {name} of model {model.name}", expected=sha256, found=found)
    return content
