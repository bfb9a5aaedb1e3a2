"""Say truthfully whether requests can be answered, and what is not as it should be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baleen_core.decision.snapshot import PolicySnapshot, Standing
from baleen_core.model.schema import Model
from baleen_sidecar.ports import Inference


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that is needed, and whether it is well; `detail` says what is wrong."""

    name: str
    healthy: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Ready: there is a policy, and every model gave its golden answers once.

    A model that fails later is answered for by the policy's `onModelFailure`: we are degraded then, and not unready.
    """

    ready: bool
    components: tuple[Component, ...]

    @property
    def degraded(self) -> tuple[str, ...]:
        return tuple(component.name for component in self.components if not component.healthy)


class ReportHealth:
    """Looks at policies and models each time it is asked."""

    def __init__(self, policies: Callable[[], PolicySnapshot], models: Sequence[Model], inference: Inference) -> None:
        self._policies = policies
        self._models = tuple(models)
        self._inference = inference
        self._verified: set[str] = set()

    async def readiness(self) -> Readiness:
        """Ask every model, and look at every policy."""
        snapshot = self._policies()
        components = [*_policies(snapshot)]
        for model in self._models:
            healthy = await self._inference.is_ready(model)
            if healthy:
                self._verified.add(model.name)
            detail = "" if healthy else "it has not given its golden answers"
            components.append(Component(name=f"model/{model.name}", healthy=healthy, detail=detail))
        return Readiness(
            ready=bool(snapshot.policies) and len(self._verified) == len(self._models),
            components=tuple(components),
        )


def _policies(snapshot: PolicySnapshot) -> list[Component]:
    if not snapshot.statuses:
        return [Component(name="policies", healthy=False, detail="there is no policy; every request is refused")]
    return [
        Component(
            name=f"policy/{status.namespace}/{status.name}",
            healthy=not status.problems and status.standing is not Standing.NOTHING,
            detail="; ".join(map(str, status.problems)),
        )
        for status in snapshot.statuses
    ]
