"""Replay: make a recorded decision again, from the evidence it was made from and the revisions it names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from baleen_core.decision.engine import CompiledPolicy, Sides, decide
from baleen_core.errors import NotFound
from baleen_core.records import Decision, DecisionRecord, PolicyRef, PolicyRole, Trial, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPolicies:
    """The policies that judged when a record was written, each in its role."""

    winners: tuple[CompiledPolicy, ...]
    floors: tuple[CompiledPolicy, ...]
    dry_runs: tuple[CompiledPolicy, ...]
    trials: tuple[Sides, ...] = ()


def judging_revisions(decision: Decision) -> Mapping[str, tuple[str, str]]:
    """Return the revisions without which a decision cannot be made again: policy and version by digest."""
    sides = ((digest, each.name) for each in decision.trials for digest in (each.stable, each.candidate))
    return {digest: (name, "") for digest, name in sides} | {
        ref.digest: (ref.name, ref.version) for ref in decision.policies
    }


def replay(record: DecisionRecord, policies: Mapping[str, CompiledPolicy]) -> Decision:
    """Decide again; `policies` holds the revisions at hand by their digest.

    Raises:
        NotFound: a revision that judged is not at hand.
    """
    return decide(recorded_policies(record, policies), record.evidence)


def recorded_policies(record: DecisionRecord, policies: Mapping[str, CompiledPolicy]) -> RecordedPolicies:
    """Find the policies that judged, under the names and versions that they had then.

    Raises:
        NotFound: a revision that judged is not at hand.
    """
    judged, trials = record.decision.policies, record.decision.trials
    named = judging_revisions(record.decision)
    if absent := sorted(f"{name} ({digest})" for digest, (name, _) in named.items() if digest not in policies):
        raise NotFound(f"decision {record.id} was judged by revisions that are not here: {', '.join(absent)}")

    def in_role(role: PolicyRole) -> tuple[CompiledPolicy, ...]:
        return tuple(_as_recorded(policies[ref.digest], ref) for ref in judged if ref.role is role)

    def side(trial: Trial, digest: str) -> CompiledPolicy:
        # What it is called does not show in a trial, but for the policy's name.
        return replace(policies[digest], name=trial.name, namespace=trial.namespace or "")

    return RecordedPolicies(
        winners=in_role(PolicyRole.WINNER),
        floors=in_role(PolicyRole.FLOOR),
        dry_runs=in_role(PolicyRole.DRY_RUN),
        trials=tuple(
            Sides(
                stable=side(each, each.stable),
                candidate=side(each, each.candidate),
                group=each.group,
                rollout=each.rollout,
                exposed=each.exposed,
                weight=each.weight,
            )
            for each in trials
        ),
    )


def differences(one: Decision, other: Decision) -> tuple[str, ...]:
    """Say, field by field, how two decisions differ; empty exactly if their bytes are equal."""
    return tuple(
        f"{field}: {encode(before).decode()} and {encode(after).decode()}"
        for field, before, after in _pairs(one, other)
        if encode(before) != encode(after)
    )


def _pairs(one: Decision, other: Decision) -> list[tuple[str, object, object]]:
    return [(field, getattr(one, field), getattr(other, field)) for field in Decision.__struct_fields__]


def _as_recorded(policy: CompiledPolicy, ref: PolicyRef) -> CompiledPolicy:
    # Equal content is one revision, whatever it was called: namespace, name and version are the record's.
    return replace(policy, name=ref.name, version=ref.version, cohort=ref.cohort, namespace=ref.namespace or "")
