"""What reconciling remembers so as not to work it out again: verdicts and digests, never content."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, TypeVar

from baleen_core.policy.schema import Plan
from baleen_operator.plan.acceptance import Refused, Verdict
from baleen_operator.plan.trial import Known, Processes
from baleen_operator.resources.policy import Meaning

MAX_POLICIES: Final = 20_000
MAX_REVISIONS: Final = 60_000
MAX_TOLD: Final = 10_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Newest(Generic[K, V]):
    """The values that were put in last, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Find a value."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, in the place of the oldest one if there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget a value."""
        self._values.pop(key, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict, and the fingerprint of all that it was made of."""

    fingerprint: bytes
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What gateways had counted of a rollout (`PublishedRoute.rollout`) when it began, and at the last look, its time.

    `plan` is the one that it goes by, for as long as what the policy says cannot be read; empty where nobody can tell.
    `doubted` names gateways that said at that look what cannot be true. `judged` are the decisions that were known of
    before this operator began; once all gateways had answered, those of them that nobody says any more are `lost`.
    """

    rollout: str
    plan: Plan
    baseline: Processes
    processes: Processes
    time: datetime
    doubted: tuple[str, ...] = ()
    judged: Known = field(default_factory=Known)
    lost: Known | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Verdicts by policy, and what reconciling found out before.

    `proofs` say why a change (from one digest to another, with the categories that count) is refused, or True;
    `counted` is by policy; `meanings` say what revisions mean (or why they cannot be used) by uid; `told`
    what people were told.
    """

    verdicts: Newest[tuple[str, str], Judged] = field(default_factory=lambda: Newest(MAX_POLICIES))
    meanings: Newest[str, Meaning | str] = field(default_factory=lambda: Newest(MAX_REVISIONS))
    proofs: Newest[tuple[str, str, tuple[str, ...]], Refused | bool] = field(
        default_factory=lambda: Newest(MAX_POLICIES)
    )
    counted: Newest[tuple[str, str], Counted] = field(default_factory=lambda: Newest(MAX_POLICIES))
    told: Newest[tuple[str, str], str] = field(default_factory=lambda: Newest(MAX_TOLD))
