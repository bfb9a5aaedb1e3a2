"""Which cluster commands are about."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which cluster, and where in it, as kubectl's options of these names say it; empty is as the kubeconfig says."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
