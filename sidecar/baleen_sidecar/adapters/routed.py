"""Models by name, each at the servers of its deployment, in turn over those that gave the golden answers.

What fails is asked once more elsewhere, what hangs is asked elsewhere beside it, and both only as far as the model's
one budget goes. What fails on is left alone, by its breaker.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from baleen_core.errors import ModelUnavailable, Unanswerable
from baleen_core.model.schema import Model, Resilience
from baleen_sidecar.adapters.guarded import Guard, Surroundings, combine
from baleen_sidecar.flow.breaker import Manual, State
from baleen_sidecar.flow.outliers import OutlierRules, find_outlier
from baleen_sidecar.flow.retry import (
    HedgeRules,
    RetryBudget,
    RetryRules,
    after_first,
    after_spent,
    hedge_seconds,
    may_spend,
    new_budget,
)
from baleen_sidecar.ports import ANYONE, BreakerReport, Order, Tensors, Work

T = TypeVar("T", bound="Choosable")

MODEL_PREFIX: Final = "model/"
SERVER_PREFIX: Final = "server/"
_LOOK_SECONDS: Final = 1.0
"""How often replicas are compared with each other."""
_LOOK_CALLS: Final = 16
"""After how many calls it is worked out anew what a long time is."""


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
    `infer` is for golden questions, which no breaker keeps away and which it hears of; all others `begin` calls.
    """

    def __init__(self, endpoint: str, connection: Connection, surroundings: Surroundings) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._around = surroundings
        self._confirmed: dict[int, Model] = {}
        self._guards: dict[str, Guard] = {}
        self._is_failing = False
        self._calls = 0
        self._is_closed = False

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """Ask a golden question."""
        begun = self._around.monotonic_seconds()
        with self._calling(model):
            try:
                answer = await self._connection.infer(model, inputs, work)
            except (ModelUnavailable, asyncio.CancelledError):
                self._is_failing = True
                self.guard(model.name).missed()
                self.guard(model.name).probed(is_good=False, begun=begun)
                raise
            self._is_failing = False
            self.guard(model.name).heard()
            return answer

    def begin(self, model: Model, inputs: Tensors, work: Work) -> asyncio.Task[Tensors] | None:
        """Begin a live call; see Guard."""
        if self._is_closed:
            return None
        call = self.guard(model.name).begin(self._connection, model, inputs, work)
        if call is not None:
            call.add_done_callback(self._judge)
        return call

    def guard(self, name: str) -> Guard:
        """Return what stands before a model here."""
        guard = self._guards.get(name)
        if guard is None:
            guard = self._guards[name] = Guard(f"{SERVER_PREFIX}{name}/{self._endpoint}", self._around)
        return guard

    async def is_loaded(self, model: Model) -> bool:
        """Say whether the server would answer for the model."""
        if self._is_closed:
            return False
        with self._calling(model):
            is_loaded = await self._connection.is_loaded(model)
        self.guard(model.name).looked(model, is_living=is_loaded)
        return is_loaded

    async def load(self, model: Model) -> None:
        """Load the model; raises ModelUnavailable when that fails."""
        self.doubt(model)
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

    def is_ejected(self, model: Model) -> bool:
        """Say whether the model does worse here than elsewhere."""
        return self.guard(model.name).is_ejected()

    def probe_at(self, model: Model) -> float | None:
        """Return when the model is to be asked its golden questions for its breaker's sake (monotonic seconds)."""
        return self.guard(model.name).probe_at

    def is_late(self, model: Model) -> bool:
        """Say whether calls of the model take so long here that golden questions have to tell whether it hangs."""
        return self.guard(model.name).is_late()

    def confirm(self, model: Model) -> None:
        """Let the model serve, and the one that had its name before finish."""
        others = [key for key, other in self._confirmed.items() if other.name == model.name and other is not model]
        for key in others[:-1]:
            del self._confirmed[key]
        self._confirmed[id(model)] = model
        self.guard(model.name).probed(is_good=True, begun=self._around.monotonic_seconds())

    def doubt(self, model: Model) -> None:
        """Let the model serve no longer."""
        self._confirmed.pop(id(model), None)
        self.guard(model.name).probed(is_good=False, begun=self._around.monotonic_seconds())

    def doubt_all(self) -> None:
        """Let no model serve before it gave its golden answers again: another server answers here."""
        for model in list(self._confirmed.values()):
            self.doubt(model)

    @property
    def is_idle(self) -> bool:
        """Say whether no call is under way."""
        return not self._calls and not any(guard.running for guard in self._guards.values())

    async def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        await self._connection.close()
        for guard in self._guards.values():
            await guard.close()

    @contextmanager
    def _calling(self, model: Model) -> Iterator[None]:
        if self._is_closed:
            raise ModelUnavailable(f"model {model.name} {model.version}: its server is asked no more")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def _judge(self, call: asyncio.Task[Tensors]) -> None:
        if call.cancelled():
            return
        failed = call.exception()
        if failed is None:
            self._is_failing = False
        elif isinstance(failed, ModelUnavailable) and not isinstance(failed, Unanswerable):
            self._is_failing = True


@dataclass(slots=True, kw_only=True)
class _Route:
    """Where one model is asked, how often it was, and what is left for asking twice."""

    replicas: tuple[Replica, ...]
    turn: int = 0
    retries: RetryRules = field(default_factory=RetryRules)
    budget: RetryBudget
    retried: int = 0
    hedged: int = 0
    look_at: float = 0.0
    """When its replicas are compared again."""
    patience: float | None = None
    """After how many seconds a call is made twice; None: none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A call that was begun, and by whom it is answered."""

    replica: Replica
    call: asyncio.Task[Tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What somebody asks."""

    model: Model
    inputs: Tensors
    work: Work


class RoutedInference:
    """The Inference port over the servers of all deployments; `connect` makes the connection to one address."""

    def __init__(
        self,
        connect: Callable[[str], Connection],
        *,
        monotonic_seconds: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connect = connect
        self._around = Surroundings(monotonic_seconds=monotonic_seconds, jitter=jitter)
        self._outliers = OutlierRules()
        self._hedges = HedgeRules()
        self._replicas: dict[str, Replica] = {}
        self._routes: dict[str, _Route] = {}
        self._orders: dict[str, Order] = {}
        self._left: list[Replica] = []

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference; when all breakers are open, it fails at once."""
        route = self._routes.get(model.name)
        if route is None:
            raise ModelUnavailable(f"model {model.name} {model.version} has given its golden answers at no server")
        order = self._orders.get(model.name)
        if order is not None and order.state is Manual.OPEN:
            raise ModelUnavailable(f"model {model.name} {model.version}: its breaker was opened by {order.by}")
        asked = _Asked(model=model, inputs=inputs, work=work)
        self._compare(route, model)
        route.turn += 1
        route.budget = after_first(route.budget, route.retries)
        begun: list[_Begun] = []
        if not self._begin(route, asked, begun):
            raise ModelUnavailable(_say_why(route.replicas, model))
        try:
            return await self._first_answer(route, asked, begun)
        finally:
            for each in begun:
                each.replica.guard(model.name).abandon(each.call)

    def replicas(self, model: Model) -> int:
        """Return at how many servers the model may be asked now."""
        route = self._routes.get(model.name)
        return sum(replica.is_confirmed(model) for replica in route.replicas) if route else 0

    async def is_ready(self, model: Model) -> bool:
        """See ports.Inference; a model whose breaker is not closed anywhere is not ready."""
        route, order = self._routes.get(model.name), self._orders.get(model.name)
        if route is None or (order is not None and order.state is Manual.OPEN):
            return False
        closed = [
            replica
            for replica in route.replicas
            if replica.is_confirmed(model) and replica.guard(model.name).state() is State.CLOSED
        ]
        return any(await asyncio.gather(*(replica.is_loaded(model) for replica in closed)))

    def route(self, places: Mapping[str, Sequence[str]], resilience: Mapping[str, Resilience] | None = None) -> None:
        """See usecases.serve_models.ModelServers; an address that is new has nothing confirmed."""
        wanted = dict.fromkeys(endpoint for endpoints in places.values() for endpoint in endpoints)
        self._left += [replica for endpoint, replica in self._replicas.items() if endpoint not in wanted]
        self._replicas = {endpoint: self._replicas.get(endpoint) or self._replica(endpoint) for endpoint in wanted}
        before = self._routes
        self._routes = {
            name: self._renewed(
                before.get(name),
                name,
                tuple(self._replicas[endpoint] for endpoint in dict.fromkeys(endpoints)),
                (resilience or {}).get(name, Resilience()),
            )
            for name, endpoints in places.items()
        }

    def server(self, endpoint: str) -> Replica:
        """See usecases.serve_models.ModelServers."""
        return self._replicas[endpoint]

    def reports(self) -> tuple[BreakerReport, ...]:
        """See ports.Breakers: each model's, followed by those of its servers."""
        return tuple(itertools.chain.from_iterable(self._report(name, route) for name, route in self._routes.items()))

    def order(self, name: str, order: Order) -> BreakerReport | None:
        """See ports.Breakers; what is ordered for a model counts for all its servers, those to come included."""
        for model, route in self._routes.items():
            if name == MODEL_PREFIX + model:
                self._order_all(model, route, order)
            elif (guard := next((each for each in _guards(route, model) if each.name == name), None)) is not None:
                guard.order(order)
            else:
                continue
            return next(each for each in self._report(model, route) if each.name == name)
        return None

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

    async def _first_answer(self, route: _Route, asked: _Asked, begun: list[_Begun]) -> Tensors:
        """Wait for the first of the calls that is answered; another one is made if that takes long, or failed."""
        patience = route.patience if len(route.replicas) > 1 else None
        while True:
            waiting = {each.call for each in begun if not each.call.done()}
            if waiting:
                await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            ended = [each.call for each in begun if each.call.done()]
            for call in ended:
                if not call.cancelled() and call.exception() is None:
                    return call.result()
            repeats = len(begun) == 1 and self._may_repeat(route, asked, ended)
            if not (repeats and self._repeat(route, asked, begun)) and len(ended) == len(begun):
                raise _failure(ended[0], asked.model)
            patience = None

    def _may_repeat(self, route: _Route, asked: _Asked, ended: Sequence[asyncio.Task[Tensors]]) -> bool:
        if self._around.monotonic_seconds() >= asked.work.deadline:
            return False
        if any(_is_final(call) for call in ended):
            return False
        return may_spend(route.budget, keeping=0 if ended else self._hedges.keeping)

    def _repeat(self, route: _Route, asked: _Asked, begun: list[_Begun]) -> bool:
        is_hedge = not begun[0].call.done()
        if not self._begin(route, asked, begun):
            return False
        route.budget = after_spent(route.budget)
        route.hedged += int(is_hedge)
        route.retried += int(not is_hedge)
        return True

    def _begin(self, route: _Route, asked: _Asked, begun: list[_Begun]) -> bool:
        """Begin a call at the first replica that allows it and was not asked for this yet."""
        tried = [each.replica for each in begun]
        for replica in ranked(route.replicas, asked.model, route.turn):
            if replica in tried:
                continue
            call = replica.begin(asked.model, asked.inputs, asked.work)
            if call is not None:
                begun.append(_Begun(replica=replica, call=call))
                return True
        return False

    def _compare(self, route: _Route, model: Model) -> None:
        """Leave a replica alone that does much worse than the others, and learn what a long time is."""
        if len(route.replicas) < 2:
            return
        if route.turn % _LOOK_CALLS == 0:
            seconds = [each for guard in _guards(route, model.name) for each in guard.durations]
            route.patience = hedge_seconds(seconds, self._hedges)
        now = self._around.monotonic_seconds()
        if now < route.look_at:
            return
        route.look_at = now + _LOOK_SECONDS
        guards = [replica.guard(model.name) for replica in route.replicas if replica.is_confirmed(model)]
        away = [guard.is_ejected() or guard.state() is State.OPEN for guard in guards]
        found = find_outlier([guard.recent() for guard in guards], away, self._outliers)
        if found is not None:
            guards[found.index].eject(found.why)

    def _replica(self, endpoint: str) -> Replica:
        return Replica(endpoint, self._connect(endpoint), self._around)

    def _renewed(
        self, before: _Route | None, name: str, replicas: tuple[Replica, ...], resilience: Resilience
    ) -> _Route:
        order = self._orders.get(name)
        for replica in replicas:
            guard = replica.guard(name)
            guard.follow(resilience)
            if (
                order is not None
                and order.state is Manual.CLOSED
                and (before is None or replica not in before.replicas)
            ):
                guard.order(order)
        retries = RetryRules(ratio=resilience.retry_budget)
        if before is None:
            return _Route(replicas=replicas, retries=retries, budget=new_budget(retries))
        budget = before.budget if before.retries == retries else new_budget(retries)
        return replace(before, replicas=replicas, retries=retries, budget=budget)

    def _order_all(self, model: str, route: _Route, order: Order) -> None:
        self._orders.pop(model, None)
        if order.state is not Manual.AUTO:
            self._orders[model] = order
        if order.state is not Manual.OPEN:
            for guard in _guards(route, model):
                guard.order(order)

    def _report(self, name: str, route: _Route) -> tuple[BreakerReport, ...]:
        servers = tuple(guard.report() for guard in _guards(route, name))
        whole = replace(combine(MODEL_PREFIX + name, servers), retries=route.retried, hedges=route.hedged)
        order = self._orders.get(name)
        if order is not None:
            whole = replace(whole, order=order)
            if order.state is Manual.OPEN:
                whole = replace(whole, state=State.OPEN, why=order.reason, next_try_at=None)
        return (whole, *servers)


class Choosable(Protocol):
    """What is to be known of a server to choose it."""

    def is_confirmed(self, model: Model) -> bool:
        """Say whether the model gave its golden answers there."""

    def is_failing(self) -> bool:
        """Say whether the last call there failed."""

    def is_ejected(self, model: Model) -> bool:
        """Say whether the model does worse there than elsewhere."""


def ranked(servers: Sequence[T], model: Model, turn: int) -> list[T]:
    """Return those that may answer, from number `turn` on; those that fail, or do worse than others, come last."""
    turned = [servers[(turn + offset) % len(servers)] for offset in range(len(servers))]
    confirmed = [server for server in turned if server.is_confirmed(model)]
    return sorted(confirmed, key=lambda server: server.is_failing() or server.is_ejected(model))


def _guards(route: _Route, name: str) -> Iterator[Guard]:
    return (replica.guard(name) for replica in route.replicas)


def _is_final(call: asyncio.Task[Tensors]) -> bool:
    """Say whether asking elsewhere could not help: the content has no answer, or others go first."""
    failed = None if call.cancelled() else call.exception()
    return isinstance(failed, Unanswerable) or (failed is not None and not isinstance(failed, ModelUnavailable))


def _failure(call: asyncio.Task[Tensors], model: Model) -> BaseException:
    failed = None if call.cancelled() else call.exception()
    return failed or ModelUnavailable(f"model {model.name} {model.version}: its server is asked no more")


def _say_why(replicas: Sequence[Replica], model: Model) -> str:
    """Say it in the same words for as long as the reason is the same: whoever logs it does so once."""
    who = f"model {model.name} {model.version}"
    guards = [replica.guard(model.name) for replica in replicas if replica.is_confirmed(model)]
    if not guards:
        return f"{who} has given its golden answers at no server"
    if any(guard.may_call() for guard in guards):
        return f"{who}: too many calls are under way that nobody waits for any more"
    whys = "; ".join(dict.fromkeys(guard.why for guard in guards))
    return f"{who}: its breaker is open at each of its {len(guards)} servers: {whys}"
