"""Whose policy a decision on record names: earlier releases wrote a policy's name without its namespace."""

from collections.abc import Iterable
from dataclasses import dataclass

from baleen_core.records import DecisionRecord, PolicyRef, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOnRecord:
    """A policy as it is looked for on record; `digests` are revisions that it is known to have, or to have had."""

    namespace: str
    name: str
    digests: frozenset[str] = frozenset()

    def is_meant(self, named: PolicyRef | Trial) -> bool | None:
        """Say whether a record means this policy; None where it has the name, no namespace, and another revision.

        By a revision of this policy it is known without a namespace: type and scope are in its digest, so another
        policy with the same one would have judged the same content in the same way.
        """
        if named.name != self.name:
            return False
        if named.namespace:
            return named.namespace == self.namespace
        digest = named.digest if isinstance(named, PolicyRef) else named.stable
        return True if digest in self.digests else None

    def is_among(self, named: Iterable[PolicyRef | Trial]) -> bool | None:
        """Say whether any of these is this policy; None where one may be."""
        found: bool | None = False
        for each in named:
            meant = self.is_meant(each)
            if meant:
                return True
            if meant is None:
                found = None
        return found

    def had_part(self, record: DecisionRecord) -> bool | None:
        """Say whether a revision of the policy judged for a decision, or tried to; None where one may have."""
        return self.is_among((*record.decision.policies, *record.decision.trials))
