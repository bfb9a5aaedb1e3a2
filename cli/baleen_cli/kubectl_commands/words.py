"""Why something is as it is, and what to do next, in words."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from baleen_cli.kubectl_commands.facts import (
    Facts,
    Manifest,
    age,
    condition,
    history,
    row_in_force,
    short,
)
from baleen_cli.kubectl_commands.overrides import REASON_ANNOTATION, others_saying
from baleen_cli.kubectl_commands.people import approver_of
from baleen_cli.kubectl_commands.rollouts import Rollout, find_rollout
from baleen_core.policy.schema import Scope
from baleen_core.policy.scope import Candidate, matches, resolve
from baleen_core.records import Context
from baleen_operator.resources.policy import Row

FAILED: Final = {"Accepted": "False", "Ready": "False", "Stalled": "True", "Serving": "False", "Converged": "False"}
"""The status in which a condition of a policy is bad news."""
NEXT: Final[Mapping[str, str]] = {
    "Accepted": "correct the policy as it says and apply it again; what is in force stays in force until then",
    "Ready": "wait, and look again; the operator's log says what it is at",
    "Stalled": "correct what it says; the operator looks again by itself",
    "Serving": "requests that only this policy covers are answered with 503: apply a policy that is accepted, or pin a "
    "revision with `kubectl baleen pin`",
    "Converged": "wait; when that does not help, look at the gateways that are named: their /ready says what they lack",
}
NEXT_BY_REASON: Final[Mapping[str, str]] = {
    "AnalysisFailed": "apply other content; if you want it all the same, let it be tried again with `kubectl baleen "
    "approve`, or pin it with `kubectl baleen pin`",
    "AnalysisInconclusive": "give its steps more time or its metrics wider limits, or let it be tried again with "
    "`kubectl baleen approve`",
    "AwaitingApproval": "look at it with `kubectl baleen diff`, then let it go on with `kubectl baleen approve`, or "
    "end it with `kubectl baleen reject`",
    "DeadlineExceeded": "apply other content, or give the same more time with `rollout.progressDeadlineSeconds`, and "
    "its steps begin again; what was rolled back is also tried again by `kubectl baleen approve`",
    "Backtesting": "wait: the gateways judge what they logged again by it",
    "GateFailed": "change what it says; what `gates` asks for is changed by an edit of its own, which must be in force "
    "first. What logged decisions stopped `kubectl baleen approve` lets through as it is",
    "GateInconclusive": "wait until more is logged, or let it through with `kubectl baleen approve`",
    "GateUnanswered": "wait; when that does not help, look at the gateways that are named, or let it through with "
    "`kubectl baleen approve`",
    "GatewaysUnknown": "wait; when that does not help, the operator's log says why it cannot look the gateways up",
    "Holding": "wait until its step is over; `kubectl baleen pause` keeps it there, `kubectl baleen reject` ends it",
    "ListMissing": "create the ConfigMap or Secret, or correct its name; the operator looks again by itself",
    "ModelsUnavailable": "deploy the models that are named (`kubectl get moddep -A`), or take their signals out",
    "NoProvider": "leave the metric out, or ask whoever installed Baleen to have a Prometheus asked "
    "(`analysis.prometheus.url` of the chart)",
    "NotGranted": "ask whoever installed Baleen to grant it, or move the policy to a namespace that has the grant",
    "NotYetSupported": "leave the field out",
    "OverrideInvalid": "correct the override with `kubectl edit modover`",
    "Paused": "take `paused` out of the policy, or out of its override with `kubectl baleen pause --remove`",
    "Pinned": "take the pin back as said above, or wait until it ends",
    "Preparing": "wait; when that does not help, look at the gateways that are named: their /ready says what they lack",
    "Rejected": "apply other content, or take the rejection back as said above",
    "ScopeConflict": "narrow the scope of one of the two policies, or delete one",
    "Shadow": "wait until its step is over: nobody gets its decisions; `kubectl baleen diff` shows what it changes, "
    "`kubectl baleen reject` ends it",
    "TestsFailed": "correct the policy, or the test; `baleen policy test` shows each with what was found",
    "UnknownDigest": "pin a revision that is known, or take the pin back as said above",
}


def explain_policy(facts: Facts, now: datetime) -> list[str]:
    """Say what is in force for a policy, what is not and why, and what to do."""
    return [
        facts.key,
        *_in_force(facts, now),
        *_rollout(facts, now),
        *_override(facts, now),
        *_failed(facts),
        *_latest(facts, now),
    ]


def explain_digest(facts: Facts, digest: str, now: datetime) -> list[str]:
    """Say whether a revision is in force, and why not."""
    return [
        f"{facts.key}: revision {digest}{_version(facts, digest)}",
        *(f"  {each}" for each in _fate(facts, digest, now)),
    ]


def describe_place(
    competing: Sequence[Candidate], place: Context, rollouts: Mapping[tuple[str, str], Rollout] = MappingProxyType({})
) -> list[str]:
    """Say which policy of each type wins for content from a place, which floors bind it, and what is only tried out.

    Beside each is said what is rolled out of it (`rollouts`, by namespace and name).
    """
    found = resolve(competing, place)
    said = [
        f"Content from {_place(Scope(tenant=place.tenant, surface=place.surface, source=place.source), 'anywhere')}:"
    ]
    chosen = (*found.winners, *found.floors, *found.dry_runs)
    for winner in found.winners:
        said.append(
            f"  {winner.revision.type}: {_name(winner)} wins; it is for {_place(winner.revision.scope, 'everything')}"
        )
        said += _beside(winner, rollouts)
        others = [
            each
            for each in competing
            if each.revision.type == winner.revision.type
            and matches(each.revision.scope, place)
            and not any(each is one for one in chosen)
        ]
        said += [
            f"    instead of {_name(each)}, which is for {_place(each.revision.scope, 'everything')}" for each in others
        ]
    if not found.winners:
        said.append(
            "  no policy wins here, so such requests are answered with 503: apply one for this place, or for all"
        )
    for each in found.floors:
        said.append(f"  floor {_name(each)} binds too; it is for {_place(each.revision.scope, 'everything')}")
        said += _beside(each, rollouts)
    for each in found.dry_runs:
        said.append(f"  {_name(each)} is judged and not enforced (DryRun)")
        said += _beside(each, rollouts)
    return said


def _beside(policy: Candidate, rollouts: Mapping[tuple[str, str], Rollout]) -> Iterator[str]:
    """Say what is rolled out beside what is in force of a policy."""
    rollout = rollouts.get((policy.namespace, policy.name))
    if rollout is not None and rollout.is_judging:
        step = f" (step {rollout.step})" if rollout.step else ""
        yield f"    beside it {rollout.name} is rolled out, judging {rollout.judges}{step}"


def _in_force(facts: Facts, now: datetime) -> Iterator[str]:
    digest, route = facts.in_force(now), facts.route
    if facts.route_problem:
        yield f"The route cannot be read: {facts.route_problem}"
        yield "  Next: do not edit a ModerationRoute by hand; the operator writes it anew when it runs"
        return
    if route is None:
        gone = (
            " any more: the policy was deleted, and its revisions are its history" if facts.policy is None else " yet"
        )
        yield f"Nothing is in force{gone}"
        return
    if digest is None:
        routed = facts.named(route.route.stable)
        yield f"Nothing is in force, though {routed} is routed (epoch {route.epoch}): requests get 503"
        why, _ = _why(facts, route.route.stable, now)
        yield f"  It {why}"
        return
    row = row_in_force(facts, now)
    since = f" since {row.time} ({age(row.time, now)})" if row and row.time else ""
    why = _describe_row(row) if row else ""
    yield f"In force: {facts.named(digest)}{since}" + (f": {why}" if why else "")
    if digest != route.route.stable:
        why, _ = _why(facts, route.route.stable, now)
        yield f"  Routed is {facts.named(route.route.stable)} (epoch {route.epoch}), which {why}"


def _rollout(facts: Facts, now: datetime) -> Iterator[str]:
    """Say how far the candidate is, as gateways judge by it; what it waits for is said by the conditions."""
    rollout = find_rollout(facts, now)
    if rollout is None:
        return
    since = f" since {rollout.start_time} ({age(rollout.start_time, now)})" if rollout.start_time else ""
    yield f"Candidate: {facts.named(rollout.digest)}{since}{_where(rollout)}"
    if rollout.exposure is not None and not rollout.is_judging:
        yield "  It judges nobody, whatever its step, while another revision than the stable one is in force"


def _where(rollout: Rollout) -> str:
    """Say in which step a candidate is, and whom it judges."""
    step = f", in step {rollout.step}" if rollout.step else ", waiting to begin"
    return f"{step}, judging {rollout.judges}"


def _failed(facts: Facts) -> Iterator[str]:
    for each in facts.status.failed:
        when = f" at {each.time}" if each.time else ""
        yield f"Failed: {facts.named(each.digest)}{when} ({each.reason}): {each.message}"


def _override(facts: Facts, now: datetime) -> Iterator[str]:
    manifest, said = facts.override_manifest, facts.override
    if manifest is None:
        return
    if said is None:
        yield f"The override cannot be read, so gateways keep what they had: {facts.override_problem}"
        yield f"  Next: correct it with `kubectl edit modover {facts.name} -n {facts.namespace}`"
        return
    if said.pin:
        until = f" until {said.pin.expire_time}" if said.pin.expire_time else ""
        over = ", which has passed" if said.pin.is_over(now) else ""
        reason = f": {said.pin.reason}" if said.pin.reason else ""
        yield f"Override pins {facts.named(said.pin.digest)}{until}{over}{_by(manifest, 'pin', None)}{reason}"
        if problem := facts.revisions.problem(said.pin.digest):
            yield f"  The pin has no effect: {problem}"
        yield f"  Take it back with: kubectl baleen pin {facts.name} -n {facts.namespace} --remove"
    for digest in sorted(said.reject):
        yield f"Override rejects {facts.named(digest)}{_by(manifest, 'reject', digest)}"
        command = f"kubectl baleen reject {facts.name} {short(digest)} -n {facts.namespace} --remove"
        yield f"  Take it back with: {command}"
    if said.approve:
        through = f"through step {said.approve.through_step}" if said.approve.through_step else "through all its steps"
        user = approver_of(said, manifest)
        who = f", says {user}" if user else ""
        yield f"Override approves {facts.named(said.approve.digest)} {through}{_by(manifest, 'approve', None)}{who}"
        yield f"  Take it back with: kubectl baleen approve {facts.name} -n {facts.namespace} --remove"
    if reason := (manifest["metadata"].get("annotations") or {}).get(REASON_ANNOTATION, ""):
        yield f"  The last reason that was given: {reason}"
    if said.paused:
        yield f"Override pauses the rollout{_by(manifest, 'paused', None)}; what is in force is moderated by as usual"
        yield f"  Take it back with: kubectl baleen pause {facts.name} -n {facts.namespace} --remove"


def _latest(facts: Facts, now: datetime) -> Iterator[str]:
    """Say what is wrong with what the author wrote last."""
    policy = facts.policy
    if policy is None:
        return
    generation = policy["metadata"].get("generation", 0)
    observed = (policy.get("status") or {}).get("observedGeneration", 0)
    if observed < generation:
        yield f"The operator has not looked at generation {generation} of the policy yet; it has seen {observed}"
        yield "  Next: wait some seconds; if that stays so, look whether the operator runs and what its log says"
        return
    said: dict[str, str] = {}
    for type, failed in FAILED.items():
        found = condition(policy, type)
        if found.get("status") != failed:
            continue
        reason, message = str(found.get("reason", "")), str(found.get("message", ""))
        if reason in said:
            # Conditions sum one another up; what one says beyond the other is worth a line.
            if more := message.removeprefix(said[reason]).lstrip("; "):
                yield from [] if more == message else [f"  Besides: {more}"]
            continue
        said[reason] = message
        what = "is stalled" if type == "Stalled" else f"is not {type}"
        since = age(str(found.get("lastTransitionTime", "")), now)
        yield f"Generation {generation} {what}{f' since {since}' if since else ''} ({reason}): {message}"
        yield f"  Next: {NEXT_BY_REASON.get(reason, NEXT[type])}"
    ready = condition(policy, "Ready")
    if not said and ready.get("status") == "True":
        yield f"Generation {generation} of the policy is Ready: {ready.get('message')}"


def _fate(facts: Facts, digest: str, now: datetime) -> Iterator[str]:
    """Say what became of one revision."""
    why, then = _why(facts, digest, now)
    yield why
    if then:
        yield f"  {then}"
    for row in history(facts):
        if row.digest == digest:
            detail = _describe_row(row)
            yield f"came into force at {row.time} as epoch {row.epoch}" + (f": {detail}" if detail else "")


def _why(facts: Facts, digest: str, now: datetime) -> tuple[str, str]:
    """Say whether a revision is in force and why not, and what can be done about it."""
    current, said, route = facts.in_force(now), facts.override, facts.route
    policy = f"{facts.name} -n {facts.namespace}"
    if digest == current:
        return "is in force", ""
    if said and facts.override_manifest and digest in said.reject:
        why = f"is rejected by override {facts.key}{_by(facts.override_manifest, 'reject', digest)}"
        command = f"kubectl baleen reject {facts.name} {short(digest)} -n {facts.namespace} --remove"
        return why, f"Take that back with: {command}"
    failed, tried = facts.failed(digest), route.route.candidate if route else None
    if failed and not (tried and tried.digest == digest):
        then = f"Try it again, if it is what the policy says, with: kubectl baleen approve {policy}"
        return f"failed at {failed.time} ({failed.reason}): {failed.message}", then
    rollout, problem = find_rollout(facts, now), facts.revisions.problem(digest)
    if rollout is not None and rollout.digest == digest and not (problem and rollout.exposure):
        command = f"kubectl baleen reject {facts.name} {short(digest)} -n {facts.namespace}"
        return f"is the candidate{_where(rollout)}", f"End it with: {command}"
    if problem:
        then = "gateways keep what they have; the operator writes it anew when it runs, if it is what the policy says"
        return f"cannot be used: {problem}", f"Next: {then}"
    if route is None:
        return "is history: the policy is not routed any more", ""
    if digest == route.route.stable and current is not None:
        why = f"is routed, but override {facts.key} pins {facts.named(current)}"
        return why, f"Take that back with: kubectl baleen pin {policy} --remove"
    if digest not in facts.activated:
        return f"never was in force; stable is {facts.named(route.route.stable)}", ""
    since = f" since {route.time}" if route.time else ""
    then = f"Go back to it with: kubectl baleen pin {facts.name} {short(digest)} -n {facts.namespace}"
    return f"is superseded by {facts.named(route.route.stable)}{since}", then


def describe_author(row: Row) -> str:
    """Name whose edit it was, and the commit that it came from."""
    return ", ".join(filter(None, [row.by, f"commit {row.commit}" if row.commit else ""]))


def _describe_row(row: Row) -> str:
    author = describe_author(row)
    parts = [row.reason, f"by {author}" if author else "", f"approved by {row.approved_by}" if row.approved_by else ""]
    return ", ".join(filter(None, parts))


def _by(manifest: Manifest, path: str, item: str | None) -> str:
    """Name who wrote a part of an override; managed fields know programs, not people."""
    names = others_saying(manifest, path, item, but="")
    return f", written by {', '.join(names)}" if names else ""


def _version(facts: Facts, digest: str) -> str:
    version = facts.version(digest)
    return f" ({version})" if version else ""


def _name(candidate: Candidate) -> str:
    version = f" {candidate.version}" if candidate.version else ""
    return f"{candidate.namespace}/{candidate.name}{version} ({short(candidate.revision.digest)})"


def _place(scope: Scope, nowhere: str) -> str:
    parts = [f"{field} {value}" for field in ("tenant", "surface", "source") if (value := getattr(scope, field))]
    return ", ".join(parts) or nowhere
