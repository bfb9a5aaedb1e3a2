"""Quotas that this process counts for itself."""

from collections.abc import Callable, Sequence

from baleen_sidecar.flow.quotas import Claim, Standing, Windows


class LocalQuotas:
    """The port Quotas, in memory: a new process begins at nothing, and knows nothing of others."""

    def __init__(self, monotonic_seconds: Callable[[], float]) -> None:
        self._monotonic_seconds = monotonic_seconds
        self._windows = Windows()
        self.problem = ""

    async def take(self, claims: Sequence[Claim]) -> Sequence[Standing]:
        """See ports.Quotas."""
        return self._windows.take(claims, self._monotonic_seconds())
