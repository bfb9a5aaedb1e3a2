"""`kubectl baleen pin | reject | rollback | approve | pause`: write a policy's override.

Gateways read it themselves, so the first three work with the operator down, too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

import typer

from baleen_cli.cluster import FIELD_MANAGER, Cluster
from baleen_cli.console import lines, note
from baleen_cli.kubectl_commands.facts import Facts, Manifest, find_digest, short, with_override, without_managed_fields
from baleen_cli.kubectl_commands.options import (
    ContextOption,
    KubeconfigOption,
    Name,
    NamespaceOption,
    OutputOption,
    clock,
    open_cluster,
    print_object,
)
from baleen_cli.kubectl_commands.overrides import (
    REASON_ANNOTATION,
    Change,
    approved,
    others_saying,
    paused,
    pinned,
    read_expiry,
    rejected,
    said_by,
    says_nothing_else,
    unapproved,
    unpaused,
    unpinned,
    unrejected,
)
from baleen_cli.kubectl_commands.people import applier_of, approver_of
from baleen_cli.kubectl_commands.reading import read_facts
from baleen_cli.kubectl_commands.rollouts import (
    AT_GATE,
    Rollout,
    describe_rollout,
    find_rollout,
    read_plan,
    steps_to_approve,
)
from baleen_core.errors import InvalidError, NotFound, Problem, Stale
from baleen_core.policy.in_force import Approval, Override
from baleen_core.policy.schema import Plan, Step
from baleen_core.reading import unknown_name
from baleen_core.resources import OVERRIDE_KIND

ReasonOption = Annotated[str, typer.Option(help="Why, for whoever looks later")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Ask the API server, and change nothing")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What to change in our part of an override, how it is taken back, and what must come of it.

    `digest` is of the revision that it is about (empty: of none); `is_pinned`, `is_rejected` and `is_approved` say what
    must hold of it then, `is_paused` what must hold of the override (None: either). `told` is the answer's first line,
    `qualify` what is added to it of how the policy stands then: what others say may keep some of it from holding.
    """

    change: Change
    digest: str
    undo: str
    reason: str = ""
    told: str = ""
    qualify: Callable[[Facts], str] = lambda after: ""
    is_pinned: bool | None = None
    is_rejected: bool | None = None
    is_approved: bool | None = None
    is_paused: bool | None = None


Decide = Callable[[Facts, datetime], Intent]


def pin(
    context: typer.Context,
    name: Name,
    revision: Annotated[str, typer.Argument(help="Digest (or its beginning) or version of the revision")] = "",
    reason: ReasonOption = "",
    expires: Annotated[str, typer.Option(help="When the pin ends: 2h, 1d12h, or a time")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the pin back")] = False,
    dry_run: DryRunOption = False,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Put one revision in force and no other, whatever is applied meanwhile, until the pin ends or is taken back."""
    if remove == bool(revision):
        raise typer.BadParameter("name the revision to pin, or take the pin back with --remove alone")
    try:
        end = read_expiry(expires, clock()) if expires else ""
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--expires") from None

    def decide(facts: Facts, now: datetime) -> Intent:
        if remove:
            return _take_pin_back(facts)
        return _pin(facts, find_digest(revision, facts, tuple(facts.revisions)), reason, end)

    _override(open_cluster(context, namespace, kube_context, kubeconfig), name, decide, dry_run, output_format)


def reject(
    context: typer.Context,
    name: Name,
    revision: Annotated[
        str, typer.Argument(help="Digest (or its beginning) or version; else the candidate, or what is in force")
    ] = "",
    reason: ReasonOption = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the rejection back")] = False,
    dry_run: DryRunOption = False,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Never have a revision in force: the newest that is not rejected is, and the next edit goes live as usual."""
    if remove and not revision:
        raise typer.BadParameter("name the revision whose rejection is to be taken back")
    # What is meant is what was there when the command was given, not what somebody else made of it meanwhile.
    meant: list[str] = []

    def decide(facts: Facts, now: datetime) -> Intent:
        said = facts.override
        if remove:
            digest = find_digest(revision, facts, sorted(said.reject) if said else ())
            undo = f"kubectl baleen reject {facts.name} {short(digest)} -n {facts.namespace}"
            return Intent(change=unrejected(digest), digest=digest, undo=undo, is_rejected=False)
        if revision:
            return _reject(facts, find_digest(revision, facts, facts.known), reason)
        meant[:] = meant or [_find_meant(facts, now)]
        told = _tell_of_candidate(facts, meant[0], now) or f"{facts.named(meant[0])} is rejected"
        return replace(_reject(facts, meant[0], reason), told=told)

    _override(open_cluster(context, namespace, kube_context, kubeconfig), name, decide, dry_run, output_format)


def rollback(
    context: typer.Context,
    name: Name,
    to: Annotated[str, typer.Option(help="Pin this revision: digest (or its beginning) or version")] = "",
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Go back to what was before: reject the candidate, or else what is in force, and with --to pin another."""
    meant: list[str] = []

    def decide(facts: Facts, now: datetime) -> Intent:
        if not to:
            meant[:] = meant or [_find_meant(facts, now)]
            return replace(_reject(facts, meant[0], reason), told=_tell_of_candidate(facts, meant[0], now))
        current = meant[0] if meant else facts.in_force(now)
        if current is None:
            raise NotFound(f"nothing of {facts.key} is in force; there is nothing to go back from")
        meant[:] = [current]
        wanted = find_digest(to, facts, tuple(facts.revisions))
        if wanted == current:
            raise NotFound(f"{facts.named(current)} is in force already; name another one with --to")
        both, aimed = _reject(facts, current, reason), _pin(facts, wanted, reason, "")
        undo = f"{both.undo} && kubectl baleen pin {facts.name} -n {facts.namespace} --remove"
        return Intent(
            change=lambda said: aimed.change(both.change(said)), digest=wanted, undo=undo, reason=reason, is_pinned=True
        )

    _override(open_cluster(context, namespace, kube_context, kubeconfig), name, decide, dry_run, output_format)


def approve(
    context: typer.Context,
    name: Name,
    step: Annotated[str, typer.Option(help="Through this step; else through all")] = "",
    digest: Annotated[str, typer.Option(help="Only if this is the candidate: digest (or its beginning)")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the approval back")] = False,
    dry_run: DryRunOption = False,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Let the candidate pass the steps that ask for approval; one that failed is tried again."""
    if remove and (step or digest):
        raise typer.BadParameter("an approval is taken back with --remove alone")
    # What somebody looked at is approved, not what an author wrote meanwhile.
    meant: list[str] = []

    def decide(facts: Facts, now: datetime) -> Intent:
        if remove:
            return _take_approval_back(facts)
        rollout = _candidate(facts, meant[0] if meant else digest, now)
        meant[:] = [rollout.digest]
        return _approve(facts, rollout, step, now)

    _override(open_cluster(context, namespace, kube_context, kubeconfig), name, decide, dry_run, output_format)


def pause(
    context: typer.Context,
    name: Name,
    remove: Annotated[bool, typer.Option("--remove", help="Let the rollout go on")] = False,
    dry_run: DryRunOption = False,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Freeze the rollout where it is; what is in force stays, and so does whom the candidate judges."""

    def decide(facts: Facts, now: datetime) -> Intent:
        return _go_on(facts) if remove else _pause(facts, now)

    _override(open_cluster(context, namespace, kube_context, kubeconfig), name, decide, dry_run, output_format)


def _find_meant(facts: Facts, now: datetime) -> str:
    """Find the revision that is gone back from where none is named: what is rolled out, or else what is in force.

    In a shadow, too, it is the candidate: it is what was changed, and beside it what is stable is as it was.

    Raises:
        NotFound: there is neither, or what is on its way is kept from judging, so that either could be meant.
    """
    rollout, current = find_rollout(facts, now), facts.in_force(now)
    if rollout is not None and rollout.is_judging:
        return rollout.digest
    command = f"kubectl baleen reject {facts.name} REVISION -n {facts.namespace}"
    if current is None:
        raise NotFound(f"nothing of {facts.key} is in force; name the revision to reject with: {command}")
    if rollout is not None and not facts.failed(rollout.digest):
        raise NotFound(
            f"{facts.named(current)} of {facts.key} is in force, and {facts.named(rollout.digest)} waits and judges "
            f"nobody; name the one to reject with: {command}"
        )
    return current


def _tell_of_candidate(facts: Facts, digest: str, now: datetime) -> str:
    """Say that it is the candidate that is rejected; nothing where it is not."""
    rollout = find_rollout(facts, now)
    if rollout is None or rollout.digest != digest:
        return ""
    return f"{facts.named(digest)}, the candidate, is rejected: nobody is judged by it any more"


def _candidate(facts: Facts, wanted: str, now: datetime) -> Rollout:
    """Find the candidate, which must be the one that is `wanted`, if that says anything.

    Raises:
        NotFound: there is none, or another one.
    """
    rollout = find_rollout(facts, now)
    if rollout is None:
        written, said, current = facts.status.candidate, facts.override, facts.in_force(now)
        if written and said and written.digest in said.reject:
            command = f"kubectl baleen reject {facts.name} {short(written.digest)} -n {facts.namespace} --remove"
            raise NotFound(f"{facts.named(written.digest)} of {facts.key} is rejected; take that back with: {command}")
        there = f"{facts.named(current)} is in force" if current else "nothing is in force"
        raise NotFound(f"{facts.key} has no candidate, so there is nothing to approve; {there}")
    if wanted and (found := find_digest(wanted, facts, facts.known)) != rollout.digest:
        raise NotFound(
            f"{facts.named(found)} is not the candidate of {facts.key}; that is {facts.named(rollout.digest)}"
        )
    return rollout


def _approve(facts: Facts, rollout: Rollout, step: str, now: datetime) -> Intent:
    plan = read_plan(facts.policy)
    if plan is None:
        raise NotFound(f"what {facts.key} says now is not valid, so its steps are not known; correct it first")
    failed = facts.failed(rollout.digest) is not None
    through = _find_through(facts, plan, rollout, step)
    if not through and not failed and not _is_at_gate(rollout):
        names = ", ".join(each.name for each in plan.steps)
        steps = f"its steps are {names}" if names else "it has no steps"
        until = f" up to step {step}" if step else ""
        raise NotFound(f"nothing of {facts.key} needs an approval{until}: {describe_rollout(rollout)}; {steps}")
    return Intent(
        change=approved(rollout.digest, through=step),
        digest=rollout.digest,
        undo=f"kubectl baleen approve {facts.name} -n {facts.namespace} --remove",
        told=f"{facts.named(rollout.digest)}, the candidate, is approved",
        qualify=lambda after: _tell_how_far(facts, after, rollout, now),
        is_approved=True,
    )


def _is_at_gate(rollout: Rollout) -> bool:
    return not rollout.step and rollout.reason in AT_GATE


def _tell_how_far(before: Facts, after: Facts, rollout: Rollout, now: datetime) -> str:
    """Say through which step a candidate is approved by its override as it is then, and what it waits for still."""
    said, earlier = after.override or Override(), (before.override or Override()).approve
    words = _through(said.approve)
    if after.failed(rollout.digest):
        words += "; it failed, and begins again at the first"
    elif _is_at_gate(rollout):
        words += "; it passes its gate"
    others = others_saying(before.override_manifest, "approve", None, but=FIELD_MANAGER)
    if others and earlier != said.approve:
        # An approval is one value: ours took the place of theirs, until whatever keeps theirs in Git applies it again.
        whose = "it" if earlier is not None and earlier.digest == rollout.digest else "another revision"
        words += f"; {', '.join(others)} approved {whose}{_through(earlier)}, which holds again once that is applied"
    words += _tell_whose(before, after)
    if _is_paused(after):
        return f"{words}; it is paused, and so waits still"
    if said.pin and not said.pin.is_over(now):
        return f"{words}; {after.named(said.pin.digest)} is pinned, and so it waits still"
    if after.route and after.route.route.stable in said.reject:
        return f"{words}; what is stable is rejected, and so it waits still"
    return words


def _tell_whose(before: Facts, after: Facts) -> str:
    """Say where the installation may not count an approval, or where it is not in the name of whoever asks for it."""
    said, words = after.override or Override(), ""
    user = approver_of(said, after.override_manifest)
    if user and before.override and said.approve == before.override.approve:
        command = f"kubectl baleen approve {after.name} -n {after.namespace} --remove"
        words += f"; {user} approved it before, and it stays in that name: to approve in another, first run `{command}`"
    if user and user == applier_of(after):
        words += f"; {user} applied it, too: where `approvalByAnother` is on, that does not count"
    return words


def _through(approval: Approval | None) -> str:
    return f" through step {approval.through_step}" if approval and approval.through_step else " through all its steps"


def _find_through(facts: Facts, plan: Plan, rollout: Rollout, step: str) -> tuple[Step, ...]:
    """Return the steps that would be approved.

    Raises:
        NotFound: the plan has no such step.
    """
    names = [each.name for each in plan.steps]
    if step and step not in names:
        raise NotFound(unknown_name(step, names, f"step of {facts.key}"))
    last = names.index(step) if step else len(names)
    return tuple(each for each in steps_to_approve(plan, rollout) if names.index(each.name) <= last)


def _take_approval_back(facts: Facts) -> Intent:
    if facts.override is None or facts.override.approve is None:
        raise NotFound(f"nothing of {facts.key} is approved")
    digest = facts.override.approve.digest
    undo = f"kubectl baleen approve {facts.name} --digest {short(digest)} -n {facts.namespace}"
    told = f"{facts.named(digest)} is not approved any more; steps that it went through stay behind it"
    return Intent(change=unapproved, digest=digest, undo=undo, told=told, is_approved=False)


def _pause(facts: Facts, now: datetime) -> Intent:
    rollout = find_rollout(facts, now)
    told = "what is applied from now on waits"
    if rollout is not None and rollout.exposure is not None:
        where = f"step {rollout.step}" if rollout.step else "its step"
        told = f"{facts.named(rollout.digest)}, the candidate, stays in {where}, judging {rollout.judges}"
    undo = f"kubectl baleen pause {facts.name} -n {facts.namespace} --remove"
    return Intent(change=paused, digest="", undo=undo, told=told, is_paused=True)


def _go_on(facts: Facts) -> Intent:
    if facts.override is None or not facts.override.paused:
        by = "; its author's own `paused` is taken out there" if _is_paused(facts) else ""
        raise NotFound(f"no override pauses {facts.key}{by}")
    still = (facts.policy or {}).get("spec", {}).get("paused") is True
    told = "the policy itself says paused, and so waits still" if still else "the rollout goes on"
    undo = f"kubectl baleen pause {facts.name} -n {facts.namespace}"
    return Intent(change=unpaused, digest="", undo=undo, told=told, is_paused=False)


def _is_paused(facts: Facts) -> bool:
    is_said = facts.override is not None and facts.override.paused
    return is_said or (facts.policy or {}).get("spec", {}).get("paused") is True


def _pin(facts: Facts, digest: str, reason: str, end: str) -> Intent:
    # A pin of what cannot be used has no effect, silently: better said now.
    facts.revisions.content(digest)
    return Intent(
        change=pinned(digest, reason=reason, expires=end),
        digest=digest,
        undo=f"kubectl baleen pin {facts.name} -n {facts.namespace} --remove",
        is_pinned=True,
        is_rejected=False,
    )


def _take_pin_back(facts: Facts) -> Intent:
    if facts.override is None or facts.override.pin is None:
        raise NotFound(f"nothing of {facts.key} is pinned")
    digest = facts.override.pin.digest
    undo = f"kubectl baleen pin {facts.name} {short(digest)} -n {facts.namespace}"
    return Intent(change=unpinned, digest=digest, undo=undo, is_pinned=False)


def _reject(facts: Facts, digest: str, reason: str) -> Intent:
    return Intent(
        change=rejected(digest),
        digest=digest,
        undo=f"kubectl baleen reject {facts.name} {short(digest)} -n {facts.namespace} --remove",
        reason=reason,
        is_pinned=False,
        is_rejected=True,
    )


def _override(cluster: Cluster, name: str, decide: Decide, dry_run: bool, output_format: OutputOption) -> None:
    """Look, decide and write; when somebody else wrote in between, once more."""
    try:
        facts, intent, written = _attempt(cluster, name, decide, dry_run)
    except Stale:
        try:
            facts, intent, written = _attempt(cluster, name, decide, dry_run)
        except Stale as exc:
            raise Stale(
                f"somebody else writes this override at the same time; look at it and try again: {exc}"
            ) from exc
    now, after = clock(), with_override(facts, written)
    if output_format:
        gone = {**(facts.override_manifest or {}), "spec": {}}
        print_object(without_managed_fields(written or gone), output_format)
        return
    before, digest = facts.in_force(now), after.in_force(now)
    if told := intent.told + intent.qualify(after):
        lines([f"{facts.key}: {told}{' (dry run)' if dry_run else ''}"])
    if digest is None:
        lines([f"{facts.key}: nothing is in force, as before"])
    elif before == digest:
        lines([f"{facts.key}: {after.named(digest)} is in force, as before{' (dry run)' if dry_run else ''}"])
    else:
        was = f" (was {facts.named(before)})" if before else ""
        when = "would be in force" if dry_run else "is in force in a moment"
        lines([f"{facts.key}: {after.named(digest)} {when}{was}"])
    if not dry_run:
        note(f"take it back with: {intent.undo}")


def _attempt(cluster: Cluster, name: str, decide: Decide, dry_run: bool) -> tuple[Facts, Intent, Manifest | None]:
    facts, now = read_facts(cluster, name), clock()
    if facts.override_problem:
        raise InvalidError(
            [Problem(field=f"override {facts.key}", message=f"cannot be read: {facts.override_problem}")]
        )
    intent = decide(facts, now)
    _check_others(facts, intent)
    manifest, body = facts.override_manifest, _body(facts, intent)
    target = (OVERRIDE_KIND, facts.namespace, name)
    version = manifest["metadata"]["resourceVersion"] if manifest else ""
    if manifest and not body["spec"] and says_nothing_else(manifest, but=FIELD_MANAGER):
        # Server-side apply cannot leave an empty spec behind, and an override that says nothing is not missed.
        _check_outcome(facts, intent, None, now)
        cluster.delete(*target, resource_version=version, dry_run=dry_run)
        return facts, intent, None
    # The API server says what would come of it, so that nothing is written which leaves the policy with nothing.
    would = cluster.apply(*target, body, resource_version=version, dry_run=True)
    _check_outcome(facts, intent, would, now)
    if dry_run:
        return facts, intent, would
    if not version:
        version = cluster.create_empty(*target)["metadata"]["resourceVersion"]
    return facts, intent, cluster.apply(*target, body, resource_version=version)


def _body(facts: Facts, intent: Intent) -> dict[str, Any]:
    """Write all that our tools say about the override from now on."""
    mine = said_by(facts.override_manifest, FIELD_MANAGER)
    spec = dict(intent.change(mine.get("spec", {})))
    annotations = dict((mine.get("metadata") or {}).get("annotations") or {})
    if intent.reason:
        annotations[REASON_ANNOTATION] = intent.reason
    if not spec.get("reject"):
        annotations.pop(REASON_ANNOTATION, None)
    return {"metadata": {"annotations": annotations} if annotations else {}, "spec": spec}


def _check_others(facts: Facts, intent: Intent) -> None:
    """Refuse to take back what another manager says as well: it would stay, and nobody would know why."""
    said, manifest = facts.override or Override(), facts.override_manifest
    taken: dict[str, str | None] = {}
    if said.pin and said.pin.digest == intent.digest and intent.is_pinned is False:
        taken["pin"] = None
    if intent.digest in said.reject and intent.is_rejected is False:
        taken["reject"] = intent.digest
    if intent.is_approved is False:
        taken["approve"] = None
    if intent.is_paused is False:
        taken["paused"] = None
    for path, item in taken.items():
        names, field = others_saying(manifest, path, item, but=FIELD_MANAGER), f"spec.{path}"
        if not names:
            continue
        what = (
            f"{short(intent.digest) or path} is written by {', '.join(names)} too, so it would stay; take it out there"
        )
        edit = f"kubectl edit modover {facts.name} -n {facts.namespace}"
        raise InvalidError([Problem(field=f"override {facts.key}: {field}", message=f"{what}, or with `{edit}`")])


def _check_outcome(facts: Facts, intent: Intent, written: Manifest | None, now: datetime) -> None:
    """Refuse an override that is not what was meant, or that leaves the policy with nothing in force."""
    after = with_override(facts, written)
    said = after.override or Override()
    is_as_meant = (
        intent.is_pinned in (None, said.pin is not None and said.pin.digest == intent.digest)
        and intent.is_rejected in (None, intent.digest in said.reject)
        and intent.is_approved in (None, said.approve is not None and said.approve.digest == intent.digest)
        and intent.is_paused in (None, said.paused)
    )
    if after.override_problem or not is_as_meant:
        found = after.override_problem or f"its spec would be {dict((written or {}).get('spec', {}))}"
        raise InvalidError([Problem(field=f"override {facts.key}", message=f"would not be what was meant: {found}")])
    adds = bool(intent.is_pinned or intent.is_rejected)
    if after.in_force(now) is None and (adds or facts.in_force(now) is not None):
        if facts.route is None:
            what = "was deleted" if facts.policy is None else "has no revision that was accepted yet"
            raise NotFound(f"{facts.key} is not routed, since it {what}; there is nothing to override")
        raise NotFound(
            f"{facts.key} has no other revision that is present and not rejected, so nothing would be in force and "
            "requests would be answered with 503; there is nothing to go back to"
        )
