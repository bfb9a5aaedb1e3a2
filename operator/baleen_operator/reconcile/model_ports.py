"""What looking after models needs of the world outside, beside the cluster."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from baleen_core.model.schema import Model
from baleen_operator.plan.manifests import RuntimeRules
from baleen_operator.plan.model_deployment import Entry
from baleen_operator.reconcile.ports import Clock, Cluster, Key, Seen

Tensors = Mapping[str, NDArray[np.generic]]


class TritonServer(Protocol):
    """One Triton, for as long as one is connected to it."""

    async def index(self) -> Mapping[str, Sequence[Entry]]:
        """Return what is in its repository, by the models' names.

        Raises:
            ModelUnavailable: it does not answer.
        """

    async def load(self, model: Model) -> None:
        """Have it load a model, which may take minutes.

        Raises:
            ModelUnavailable: it does not answer or cannot load it; its reason is in the message.
        """

    async def infer(self, model: Model, inputs: Tensors) -> Tensors:
        """Return the outputs for a batch of rows, checked against what the model promises.

        Raises:
            ModelUnavailable: it did not answer, or not what was promised.
        """


class Triton(Protocol):
    """The Tritons that there are."""

    def connect(self, endpoint: str, *, to_load: bool = False) -> AbstractAsyncContextManager[TritonServer]:
        """Connect to `host:port`, when it is one's turn; to load is another queue than to ask, for it takes longer."""


class ModelFiles(Protocol):
    """The files that golden questions are made of."""

    async def questions(self, model: Model) -> Sequence[Sequence[Tensors]]:
        """Return the batches of tensors that each of the model's golden inputs becomes, in their order.

        Raises:
            BaleenError: a file is not there, is not the promised one, or cannot be read; it is named.
        """


class Rounds:
    """When each deployment is due again: what its own status makes people say of it must not start another round."""

    def __init__(self) -> None:
        self._due: dict[Key, tuple[str, int, datetime]] = {}

    def seconds_left(self, key: Key, uid: str, generation: int, now: datetime) -> float:
        """Return how long a deployment has time, which is 0 when it is another one or says something else by now."""
        known_uid, known_generation, due = self._due.get(key, ("", 0, now))
        if (known_uid, known_generation) != (uid, generation):
            return 0.0
        return max(0.0, (due - now).total_seconds())

    def note(self, key: Key, uid: str, generation: int, due: datetime) -> None:
        """Remember when a deployment is due."""
        self._due[key] = (uid, generation, due)

    def forget(self, key: Key) -> None:
        """Forget a deployment that is gone."""
        self._due.pop(key, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBudgets:
    """How long one round may take, in seconds, so that no server holds up the others."""

    ask_seconds: float = 60.0
    """For asking one server all golden questions of a deployment."""
    load_seconds: float = 300.0
    """For having one server load all models of a deployment that it has not loaded."""
    soon_seconds: float = 0.5
    """Until models that were just loaded are asked."""
    progress_seconds: float = 5.0
    """Until a runtime that is coming up, or a name that is taken, is looked at again."""

    def again(self, now: datetime, seconds: float) -> datetime:
        """Return when so many seconds have passed."""
        return now + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPorts:
    """All that reconciling a ModelDeployment talks to, and the settings of the installation."""

    seen: Seen
    cluster: Cluster
    clock: Clock
    triton: Triton
    files: ModelFiles
    rules: RuntimeRules = field(default_factory=RuntimeRules)
    budgets: ModelBudgets = field(default_factory=ModelBudgets)
    rounds: Rounds = field(default_factory=Rounds)
