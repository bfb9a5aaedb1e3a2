"""The least that a container needs: what the Pod Security Standard `restricted` asks for, and a read-only root."""

from typing import Any, Final

_USER: Final = 1000  # the user `triton-server` of NVIDIA's images


def build_container_security() -> dict[str, Any]:
    """Return the securityContext of every container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def build_pod_security() -> dict[str, Any]:
    """Return the securityContext of the pod: one user for all containers, who owns the volumes."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
