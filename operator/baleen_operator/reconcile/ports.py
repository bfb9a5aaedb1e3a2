"""What reconciling needs from the world outside, as small Protocols in its own words."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from baleen_core.model.schema import Model
from baleen_core.policy.grants import Grants
from baleen_core.policy.schema import ListSourceType, Scope
from baleen_core.policy_stream import BacktestQuestion, TrialCounts
from baleen_operator.plan.actions import Action, Target
from baleen_operator.plan.gate import Asked, Question
from baleen_operator.plan.looks import Looked, Queries
from baleen_operator.reconcile.memory import Memory

T = TypeVar("T")

Key = tuple[str, str]
"""Namespace and name."""
Manifest = Mapping[str, Any]


class Seen(Protocol):
    """What was last seen of the resources that are watched: no waiting, and as fresh as the watch is.

    What the operator itself wrote is seen at once. `kind` is one of `baleen_core.resources.PLURALS`.
    """

    def get(self, kind: str, key: Key) -> Manifest | None:
        """Return a resource as the API server gave it, without `metadata.managedFields`; None when it is not there."""

    def keys(self, kind: str) -> Sequence[Key]:
        """Return the keys of all resources of a kind."""

    def revisions(self, key: Key) -> Sequence[Manifest]:
        """Return the ModerationPolicyRevisions of a policy, whether the policy itself is there or not."""

    def sharing_scope(self, type: str, scope: Scope) -> Sequence[Key]:
        """Return the policies whose `spec`, or whose route's, says this type and scope, in the order of their keys.

        A policy that says no type is of type Moderation; a route may outlive its policy.
        """

    def models(self) -> Sequence[Model]:
        """Return the models of every ModelDeployment that is accepted, by which policies are checked."""

    def claimant(self, model: str) -> Key | None:
        """Return the ModelDeployment whose model of this name counts: the oldest valid one that claims it."""


class Cluster(Protocol):
    """Reads that are not watched, and all writes."""

    async def read_texts(self, type: ListSourceType, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return the texts of a ConfigMap or Secret by their keys; None when there is no such object.

        Raises:
            ValueError: its data is not text. ClusterError: the API server refused (the verb and resource are named)
            or did not answer.
        """

    async def list_metadata(self, type: ListSourceType, namespace: str, name: str) -> Manifest | None:
        """Return the `metadata` of an object that keeps (a shard of) a list; None when it is not there.

        Raises:
            ClusterError: as above.
        """

    async def read(self, target: Target, namespace: str, name: str) -> Manifest | None:
        """Return an object of any kind, such as one that the operator made; None when it is not there.

        Raises:
            ClusterError: as above.
        """

    async def select(self, target: Target, namespace: str, labels: Mapping[str, str]) -> Sequence[Manifest]:
        """Return the objects of a namespace that have all these labels, in the order of their names.

        Raises:
            ClusterError: as above.
        """

    async def act(self, action: Action) -> Manifest | None:
        """Carry an action out, and have what was written seen at once; deleting what is gone is no error.

        Raises:
            Stale: what the action was planned on is not what is there now: plan again.
            ClusterError: the API server refused (the verb and resource are named) or did not answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """Who enforces a route: how many are known, how many do, and at most 10 names of those that are behind.

    Until somebody `has_looked`, nobody is known, though there may be some.
    """

    total: int = 0
    current: int = 0
    stale: tuple[str, ...] = ()
    has_looked: bool = True


class Gateways(Protocol):
    """What the gateways said last about themselves and the sidecars that follow them."""

    def acknowledged(self, key: Key, epoch: int) -> Acknowledged:
        """Say who adopted this epoch, or a later one, of a policy's route; a gateway that does not answer is behind."""

    def trial(self, key: Key, rollout: str) -> Mapping[str, TrialCounts]:
        """Return what gateways that answer saw of a rollout (`PublishedRoute.rollout`), by the gateways' names."""


class Backtests(Protocol):
    """What the gateways' decision logs say of candidates; asked in the background, so that nobody waits here."""

    def asked(self, key: Key) -> Asked:
        """Return what came of asking about a policy; it is worked on again when that changes."""

    def ask(self, key: Key, question: Question, content: BacktestQuestion) -> None:
        """Ask, unless this very question is under way; `content` is what gateways are told."""


class Provider(Protocol):
    """What the installation's server says to queries of rollouts; asked in the background: nobody waits here."""

    def looked(self, key: Key) -> Looked:
        """Return what came of asking for a policy; it is worked on again when that changes."""

    def ask(self, key: Key, queries: Queries) -> None:
        """Ask, unless these very queries are under way."""


class Clock(Protocol):
    """The wall clock."""

    def __call__(self) -> datetime:
        """Return now, in UTC."""


class Salt(Protocol):
    """Where secrets come from that nobody can guess."""

    def __call__(self) -> str:
        """Return a new one of at least 128 bits, in at most 128 characters."""


class OffLoop(Protocol):
    """Where work goes that takes CPU time."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Do the work elsewhere, and return or raise what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that reconciling a policy needs; `memory` only saves work."""

    seen: Seen
    cluster: Cluster
    gateways: Gateways
    backtests: Backtests
    provider: Provider
    clock: Clock
    off_loop: OffLoop
    salt: Salt
    grants: Grants = field(default_factory=Grants)
    approval_by_another: bool = False
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a reconcile wants next: to be called again after so many seconds, or only when something changes.

    `affected` are other policies that have to look again, because this one came, went or changed its scope.
    """

    requeue_seconds: float | None = None
    affected: frozenset[Key] = field(default_factory=frozenset)
