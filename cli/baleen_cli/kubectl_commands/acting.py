"""`kubectl baleen pin | reject | rollback`: write a policy's override, which works with the operator down, too."""

from collections.abc import Callable
from dataclasses import dataclass
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
    others_saying,
    pinned,
    read_expiry,
    rejected,
    said_by,
    says_nothing_else,
    unpinned,
    unrejected,
)
from baleen_cli.kubectl_commands.reading import read_facts
from baleen_core.errors import InvalidError, NotFound, Problem, Stale
from baleen_core.policy.in_force import Override
from baleen_core.resources import OVERRIDE_KIND

RevisionArgument = Annotated[str, typer.Argument(help="Digest (or its beginning) or version of the revision")]
ReasonOption = Annotated[str, typer.Option(help="Why, for whoever looks later")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Ask the API server, and change nothing")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What to change in our part of an override, how it is taken back, and what must come of it.

    `digest` is of the revision that it is about; `is_pinned` and `is_rejected` say what must hold of it then (None:
    either).
    """

    change: Change
    digest: str
    undo: str
    reason: str = ""
    is_pinned: bool | None = None
    is_rejected: bool | None = None


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
    revision: RevisionArgument,
    reason: ReasonOption = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the rejection back")] = False,
    dry_run: DryRunOption = False,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Never have a revision in force: the newest that is not rejected is, and the next edit goes live as usual."""

    def decide(facts: Facts, now: datetime) -> Intent:
        said = facts.override
        if remove:
            digest = find_digest(revision, facts, sorted(said.reject) if said else ())
            undo = f"kubectl baleen reject {facts.name} {short(digest)} -n {facts.namespace}"
            return Intent(change=unrejected(digest), digest=digest, undo=undo, is_rejected=False)
        return _reject(facts, find_digest(revision, facts, facts.known), reason)

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
    """Go back to what was in force before: reject what is in force now, and with --to pin another."""
    # What is meant is what was in force when the command was given, not what somebody else made of it meanwhile.
    meant: list[str] = []

    def decide(facts: Facts, now: datetime) -> Intent:
        current = meant[0] if meant else facts.in_force(now)
        if current is None:
            raise NotFound(f"nothing of {facts.key} is in force; there is nothing to go back from")
        meant[:] = [current]
        if not to:
            return _reject(facts, current, reason)
        wanted = find_digest(to, facts, tuple(facts.revisions))
        if wanted == current:
            raise NotFound(f"{facts.named(current)} is in force already; name another one with --to")
        both, aimed = _reject(facts, current, reason), _pin(facts, wanted, reason, "")
        undo = f"{both.undo} && kubectl baleen pin {facts.name} -n {facts.namespace} --remove"
        return Intent(
            change=lambda said: aimed.change(both.change(said)), digest=wanted, undo=undo, reason=reason, is_pinned=True
        )

    _override(open_cluster(context, namespace, kube_context, kubeconfig), name, decide, dry_run, output_format)


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
    body = _body(facts, intent)
    target = (OVERRIDE_KIND, facts.namespace, name)
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
    said, manifest = facts.override, facts.override_manifest
    names: list[str] = []
    if said and said.pin and said.pin.digest == intent.digest and intent.is_pinned is False:
        field, names = "spec.pin", others_saying(manifest, "pin", None, but=FIELD_MANAGER)
    if said and intent.digest in said.reject and intent.is_rejected is False:
        field, names = "spec.reject", others_saying(manifest, "reject", intent.digest, but=FIELD_MANAGER)
    if names:
        what = f"{short(intent.digest)} is written by {', '.join(names)} too, so it would stay; take it out there"
        edit = f"kubectl edit modover {facts.name} -n {facts.namespace}"
        raise InvalidError([Problem(field=f"override {facts.key}: {field}", message=f"{what}, or with `{edit}`")])


def _check_outcome(facts: Facts, intent: Intent, written: Manifest | None, now: datetime) -> None:
    """Refuse an override that is not what was meant, or that leaves the policy with nothing in force."""
    after = with_override(facts, written)
    said = after.override or Override()
    is_pinned = said.pin is not None and said.pin.digest == intent.digest
    is_as_meant = intent.is_pinned in (None, is_pinned) and intent.is_rejected in (
        None,
        intent.digest in said.reject,
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
