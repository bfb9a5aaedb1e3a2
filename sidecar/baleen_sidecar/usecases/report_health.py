"""Say truthfully whether requests can be answered, and what is not as it should be."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baleen_core.decision.snapshot import PolicySnapshot, Standing
from baleen_sidecar.ports import Inference
from baleen_sidecar.usecases.serve_models import ModelSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that is needed, and whether it is well; `detail` says what is wrong."""

    name: str
    healthy: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Ready: every policy that is there is in force, and every model gave its golden answers.

    Once that was so, a model that fails is answered for by `onModelFailure`, and a policy that is not valid
    by the last good one: we are degraded then, and not unready, as long as there is a policy. Other components, such
    as the source of policies, never make us unready: what was good last is enforced without them.
    """

    ready: bool
    components: tuple[Component, ...]

    @property
    def degraded(self) -> tuple[str, ...]:
        return tuple(component.name for component in self.components if not component.healthy)


class ReportHealth:
    """Looks at policies, models and `components` each time it is asked."""

    def __init__(
        self,
        policies: Callable[[], PolicySnapshot],
        models: Callable[[], ModelSet],
        inference: Inference,
        *,
        components: Callable[[], Sequence[Component]] = lambda: (),
    ) -> None:
        self._policies = policies
        self._models = models
        self._inference = inference
        self._components = components
        self._was_ready = False

    async def readiness(self) -> Readiness:
        """Ask all models at once, and look at every policy."""
        snapshot, expected = self._policies(), self._models().expected
        answers = await asyncio.gather(*(self._inference.is_ready(model) for model in expected))
        models = [
            Component(
                name=f"model/{model.name}",
                healthy=healthy,
                detail="" if healthy else "it has not given its golden answers",
            )
            for model, healthy in zip(expected, answers, strict=True)
        ]
        # At first a floor that is not valid must not be missing unnoticed; later a bad edit must not stop everything.
        is_whole = all(status.standing is not Standing.NOTHING for status in snapshot.statuses)
        self._was_ready = self._was_ready or (bool(snapshot.policies) and is_whole and all(answers))
        return Readiness(
            ready=self._was_ready and bool(snapshot.policies),
            components=(*_policies(snapshot), *models, *self._components()),
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
