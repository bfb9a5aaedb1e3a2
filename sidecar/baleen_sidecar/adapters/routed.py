"""Models by name, each at the servers of its deployment, in turn over those that gave the golden answers."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from baleen_core.errors import ModelUnavailable
from baleen_core.model.schema import Model
from baleen_sidecar.ports import ANYONE, Tensors, Work

T = TypeVar("T", bound="Choosable")


class Connection(Protocol):
    """One server, such as TritonInference."""

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""

    async def is_loaded(self, model: Model) -> bool:
        """Say whether the server would answer for the model."""

    async def load(self, model: Model) -> None:
        """Load the model; raises ModelUnavailable when that fails."""

    def answered(self, model: Model) -> int:
        """Return how many calls of anybody's the model has answered."""

    async def close(self) -> None:
        """Close the connection."""


class Replica:
    """One server; it is closed after its calls once it has left.

    A model counts as confirmed as the object that was verified: one of other content may have its name and version.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._confirmed: dict[int, Model] = {}
        self._is_failing = False
        self._calls = 0
        self._is_closed = False

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""
        with self._calling(model):
            try:
                answer = await self._connection.infer(model, inputs, work)
            except ModelUnavailable:
                self._is_failing = True
                raise
            self._is_failing = False
            return answer

    async def is_loaded(self, model: Model) -> bool:
        """Say whether the server would answer for the model."""
        if self._is_closed:
            return False
        with self._calling(model):
            return await self._connection.is_loaded(model)

    async def load(self, model: Model) -> None:
        """Load the model; raises ModelUnavailable when that fails."""
        with self._calling(model):
            await self._connection.load(model)

    def answered(self, model: Model) -> int:
        """Return how many calls of anybody's the model has answered."""
        return self._connection.answered(model)

    def is_confirmed(self, model: Model) -> bool:
        """Say whether the model gave its golden answers here and may serve."""
        return id(model) in self._confirmed

    def is_failing(self) -> bool:
        """Say whether the last call that anybody made here failed."""
        return self._is_failing

    def confirm(self, model: Model) -> None:
        """Let the model serve, and the one that had its name before finish."""
        others = [key for key, other in self._confirmed.items() if other.name == model.name and other is not model]
        for key in others[:-1]:
            del self._confirmed[key]
        self._confirmed[id(model)] = model

    def doubt(self, model: Model) -> None:
        """Let the model serve no longer."""
        self._confirmed.pop(id(model), None)

    @property
    def is_idle(self) -> bool:
        """Say whether nobody waits for an answer."""
        return not self._calls

    async def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        await self._connection.close()

    @contextmanager
    def _calling(self, model: Model) -> Iterator[None]:
        if self._is_closed:
            raise ModelUnavailable(f"model {model.name} {model.version}: its server is asked no more")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1


@dataclass(slots=True)
class _Route:
    """Where one model is asked, and how often it was."""

    replicas: tuple[Replica, ...]
    turn: int = 0


class RoutedInference:
    """The Inference port over the servers of all deployments; `connect` makes the connection to one address."""

    def __init__(self, connect: Callable[[str], Connection]) -> None:
        self._connect = connect
        self._replicas: dict[str, Replica] = {}
        self._routes: dict[str, _Route] = {}
        self._left: list[Replica] = []

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""
        route = self._routes.get(model.name)
        replica = None
        if route is not None:
            route.turn += 1
            replica = choose(route.replicas, model, route.turn)
        if replica is None:
            raise ModelUnavailable(f"model {model.name} {model.version} has given its golden answers at no server")
        return await replica.infer(model, inputs, work)

    async def is_ready(self, model: Model) -> bool:
        """See ports.Inference."""
        route = self._routes.get(model.name)
        confirmed = [replica for replica in route.replicas if replica.is_confirmed(model)] if route else []
        return any(await asyncio.gather(*(replica.is_loaded(model) for replica in confirmed)))

    def route(self, places: Mapping[str, Sequence[str]]) -> None:
        """See usecases.serve_models.ModelServers; an address that is new has nothing confirmed."""
        wanted = dict.fromkeys(endpoint for endpoints in places.values() for endpoint in endpoints)
        self._left += [replica for endpoint, replica in self._replicas.items() if endpoint not in wanted]
        self._replicas = {
            endpoint: self._replicas.get(endpoint) or Replica(self._connect(endpoint)) for endpoint in wanted
        }
        before = self._routes
        self._routes = {
            name: _Route(
                tuple(self._replicas[endpoint] for endpoint in dict.fromkeys(endpoints)),
                turn=before[name].turn if name in before else 0,
            )
            for name, endpoints in places.items()
        }

    def server(self, endpoint: str) -> Replica:
        """See usecases.serve_models.ModelServers."""
        return self._replicas[endpoint]

    async def sweep(self) -> None:
        """See usecases.serve_models.ModelServers."""
        idle = [replica for replica in self._left if replica.is_idle]
        self._left = [replica for replica in self._left if not replica.is_idle]
        for replica in idle:
            await replica.close()

    async def close(self) -> None:
        """Close everything; calls under way end as ModelUnavailable."""
        replicas = [*self._replicas.values(), *self._left]
        self.route({})
        self._left = []
        for replica in replicas:
            await replica.close()


class Choosable(Protocol):
    """What is to be known of a server to choose it."""

    def is_confirmed(self, model: Model) -> bool:
        """Say whether the model gave its golden answers there."""

    def is_failing(self) -> bool:
        """Say whether the last call there failed."""


def choose(servers: Sequence[T], model: Model, turn: int) -> T | None:
    """Return the first that may answer, from number `turn` on; one that failed last is asked when there is no other."""
    last = None
    for offset in range(len(servers)):
        server = servers[(turn + offset) % len(servers)]
        if not server.is_confirmed(model):
            continue
        if not server.is_failing():
            return server
        last = last or server
    return last
