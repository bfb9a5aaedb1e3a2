"""`kubectl baleen get | history | diff | effective | explain`: look, and change nothing."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from baleen_cli.cluster import Cluster
from baleen_cli.console import lines, output, table
from baleen_cli.kubectl_commands.facts import (
    Facts,
    age,
    candidates,
    condition,
    find_digest,
    history,
    overriding,
    row_in_force,
    short,
    without_managed_fields,
)
from baleen_cli.kubectl_commands.options import (
    AllOption,
    ContextOption,
    KubeconfigOption,
    Name,
    NamespaceOption,
    OutputOption,
    clock,
    open_cluster,
    print_object,
)
from baleen_cli.kubectl_commands.reading import policies_with, read_all_facts, read_facts
from baleen_cli.kubectl_commands.words import describe_place, explain_digest, explain_policy
from baleen_core.checking import Place, find_lists, texts_of
from baleen_core.errors import InvalidError, NotFound, PolicyError, Problem
from baleen_core.policy.diff import Change, describe, diff
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import Policy, RevisionContent
from baleen_core.policy.scope import Candidate, resolve
from baleen_core.records import Context
from baleen_core.resources import POLICY_KIND
from baleen_operator.resources.policy import Row
from baleen_sidecar.adapters.resources import read_file
from baleen_sidecar.usecases.policy_documents import Documents, sort_documents

PlaceOption = Annotated[str | None, typer.Option(help="Where the content comes from")]
COLOURS = {"True": "green", "False": "red", "Unknown": "yellow"}


def get(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The policy's name; else all")] = "",
    namespace: NamespaceOption = "",
    all_namespaces: AllOption = False,
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Show policies, and which revision of each is in force, an override considered."""
    if name and all_namespaces:
        raise typer.BadParameter("a policy's name says too little in all namespaces; leave out one of the two")
    cluster, now = open_cluster(context, namespace, kube_context, kubeconfig), clock()
    found = (
        [read_facts(cluster, name)] if name else read_all_facts(cluster, None if all_namespaces else cluster.namespace)
    )
    if output_format:
        objects = [as_object(each, now) for each in found]
        print_object(objects[0] if name else {"items": objects}, output_format)
        return
    if not found:
        lines([f"no policies in {'any namespace' if all_namespaces else f'namespace {cluster.namespace}'}"])
        return
    columns = ["NAME", "VERSION", "DIGEST", "EPOCH", "ACCEPTED", "READY", "CONVERGED", "OVERRIDE", "SINCE", "AGE"]
    shown = table(*(["NAMESPACE"] if all_namespaces else []), *columns)
    for each in found:
        shown.add_row(*([each.namespace] if all_namespaces else []), *_row(each, now))
    output.print(shown)


def show_history(
    context: typer.Context,
    name: Name,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Show what was routed for a policy, newest first; a policy that was deleted keeps its history."""
    cluster, now = open_cluster(context, namespace, kube_context, kubeconfig), clock()
    facts = read_facts(cluster, name)
    rows, current = history(facts), facts.in_force(now)
    if output_format:
        activations = [{**asdict(row), "standing": _word(facts, row, current)} for row in rows]
        whole = {"namespace": facts.namespace, "name": facts.name, "activations": activations}
        print_object(whole, output_format)
        return
    shown = table("EPOCH", "TIME", "VERSION", "DIGEST", "REASON", "BY", "NOW")
    for row in rows:
        word = _word(facts, row, current)
        shown.add_row(str(row.epoch), row.time, row.version, short(row.digest), row.reason, row.by, word)
    output.print(shown)


def show_diff(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The policy's name; with --file it may be left out")] = "",
    old: Annotated[str, typer.Argument(help="Digest (or its beginning) or version; else what was before")] = "",
    new: Annotated[str, typer.Argument(help="The same; else what is in force")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Compare an author's file with what is in force")
    ] = None,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Show every difference between two revisions that can change a decision."""
    if not name and file is None:
        raise typer.BadParameter("name a policy, or a file with --file")
    if file is not None and old:
        raise typer.BadParameter("--file is compared with what is in force; leave the revisions out")
    if file is not None:
        written, policy, contents = read_policy_file(file, name)
        if namespace and written and namespace != written:
            raise typer.BadParameter(f"the policy in {file} is of namespace {written!r}; leave -n {namespace} out")
        namespace = namespace or written
    cluster, now = open_cluster(context, namespace, kube_context, kubeconfig), clock()
    if file is not None:
        facts, (before, after) = _with_file(cluster, policy, contents, now)
    else:
        facts = read_facts(cluster, name)
        before, after = choose_two(facts, old, new, now)
    changes = diff(before, after)
    if output_format:
        print_object(_as_diff(facts, before, after, changes), output_format)
        return
    is_known = after.digest in facts.revisions
    titles = [facts.named(before.digest) if before else "nothing"]
    titles.append(facts.named(after.digest) if is_known else f"{file} ({short(after.digest)})")
    lines([" → ".join(titles), *(describe(changes) or ["no difference"])])


def effective(
    context: typer.Context,
    tenant: PlaceOption = None,
    surface: PlaceOption = None,
    source: PlaceOption = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Look at its policies only; else at all, as gateways do")
    ] = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Say which policy wins for content from a place, and which floors bind there."""
    cluster, now = open_cluster(context, namespace, kube_context, kubeconfig), clock()
    place = Context(tenant=tenant, surface=surface, source=source)
    competing = candidates(read_all_facts(cluster, namespace or None), now)
    if output_format:
        found = resolve(competing, place)
        whole: dict[str, Any] = {"context": {"tenant": tenant, "surface": surface, "source": source}}
        for field in ("winners", "floors", "dry_runs"):
            spelling = "dryRuns" if field == "dry_runs" else field
            whole[spelling] = [_as_candidate(each) for each in getattr(found, field)]
        print_object(whole, output_format)
        return
    lines(describe_place(competing, place))


def explain(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A policy's name, or a revision's digest (or its beginning)")],
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Say in words what is in force, why what was written last is not, and what to do next."""
    cluster, now = open_cluster(context, namespace, kube_context, kubeconfig), clock()
    said: list[str] = []
    policies = []
    for owner in policies_with(cluster, name):
        facts = read_facts(cluster, owner)
        matching = [
            each for each in facts.known if each.removeprefix("sha256:").startswith(name.removeprefix("sha256:"))
        ]
        said += [line for digest in matching for line in explain_digest(facts, digest, now)]
        policies.append(facts)
    if not policies:
        policies = [read_facts(cluster, name)]
        said = explain_policy(policies[0], now)
    if output_format:
        objects = [as_object(each, now) for each in policies]
        print_object({"items": objects, "explanation": said}, output_format)
        return
    lines(said)


def as_object(facts: Facts, now: datetime) -> dict[str, Any]:
    """Write how a policy stands for machines: what is in force, and its resources whole."""
    digest, route = facts.in_force(now), facts.route
    row = row_in_force(facts, now)
    in_force = {
        "digest": digest or "",
        "version": facts.version(digest) if digest else "",
        "epoch": route.epoch if route else 0,
        "time": row.time if row else "",
        "reason": row.reason if row else "",
        "by": row.by if row else "",
        "override": overriding(facts, now),
    }
    resources = {
        "policy": facts.policy,
        "route": facts.route_manifest,
        "override": facts.override_manifest,
    }
    whole: dict[str, Any] = {"namespace": facts.namespace, "name": facts.name, "inForce": in_force}
    whole["problems"] = [each for each in (facts.route_problem, facts.override_problem) if each]
    whole |= {name: without_managed_fields(each) for name, each in resources.items() if each is not None}
    whole["revisions"] = [without_managed_fields(each) for each in facts.revisions.manifests]
    return whole


def read_policy_file(file: Path, name: str) -> tuple[str, Policy, Mapping[Place, Mapping[str, Any]]]:
    """Read an author's policy from a file, with the namespace that is written there, and the lists in the same file.

    Raises:
        PolicyError: the file cannot be read, or its policy is not valid. NotFound: it has no such policy, or several.
    """
    try:
        documents = tuple(read_file(file, str(file)))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as exc:
        problem = Problem(field=str(file), message=f"cannot be read: {' '.join(str(exc).split())}")
        raise PolicyError([problem]) from exc
    found = sort_documents(Documents(documents=documents))
    named = {key: each for key, each in found.policies.items() if name in ("", key[1])}
    if len(named) != 1:
        names = ", ".join(key[1] for key in found.policies) or "none"
        what = f"no policy {name!r}" if name and not named else f"{len(named)} policies"
        raise NotFound(f"{file} has {what}; name one of those that it has: {names}")
    (manifest,) = named.values()
    return str(manifest["metadata"].get("namespace") or ""), parse_policy(manifest), found.contents


def choose_two(facts: Facts, old: str, new: str, now: datetime) -> tuple[RevisionContent | None, RevisionContent]:
    """Find the two revisions to compare; what is not named is what was before, and what is in force.

    Raises:
        NotFound: one of them is not known, or nothing is in force.
    """
    known, current = facts.known, facts.in_force(now)
    after = find_digest(new, facts, known) if new else current
    if after is None:
        raise NotFound(f"nothing of {facts.key} is in force; name two revisions: {', '.join(map(short, known))}")
    if old:
        before: str | None = find_digest(old, facts, known)
    else:
        before = next((each for each in known if each != after), None)
    return facts.revisions.content(before) if before else None, facts.revisions.content(after)


def _with_file(
    cluster: Cluster, policy: Policy, contents: Mapping[Place, Mapping[str, Any]], now: datetime
) -> tuple[Facts, tuple[RevisionContent | None, RevisionContent]]:
    found = dict(contents)
    for each in policy.content.lists:
        assert each.source is not None, "a policy as written has the source of each list"
        kind, name = each.source.type, each.source.name
        # A file that names no namespace is read as one of `default`, and applied to that of the context.
        place = (kind, policy.namespace, name)
        if place not in found and (body := cluster.get(kind.value, cluster.namespace, name)) is not None:
            found[place] = _texts(kind.value, body)
    after = read_revision(make_revision(policy, find_lists(policy, found)))
    facts = _facts_or_none(cluster, policy)
    digest = facts.in_force(now)
    return facts, (facts.revisions.content(digest) if digest else None, after)


def _facts_or_none(cluster: Cluster, policy: Policy) -> Facts:
    """Read the policy of a file; one that was never applied differs from nothing."""
    if cluster.get(POLICY_KIND, cluster.namespace, policy.name) is None:
        return Facts(namespace=cluster.namespace, name=policy.name)
    return read_facts(cluster, policy.name)


def _texts(kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return texts_of({**body, "kind": kind})
    except ValueError as exc:
        raise InvalidError([Problem(field=f"{kind} {body['metadata']['name']}", message=str(exc))]) from exc


def _row(facts: Facts, now: datetime) -> list[str | Text]:
    digest = facts.in_force(now)
    if digest is None:
        version, shown = "", "none"
    else:
        version, shown = facts.version(digest), short(digest)
    conditions = [str(condition(facts.policy, each).get("status", "")) for each in ("Accepted", "Ready", "Converged")]
    row = row_in_force(facts, now)
    created = (facts.policy or {}).get("metadata", {}).get("creationTimestamp", "")
    return [
        facts.name,
        version,
        shown,
        str(facts.route.epoch) if facts.route else "",
        *(Text(each, style=COLOURS.get(each, "")) for each in conditions),
        overriding(facts, now),
        age(row.time, now) if row else "",
        age(created, now),
    ]


def _word(facts: Facts, row: Row, current: str | None) -> str:
    if facts.override and row.digest in facts.override.reject:
        return "Rejected"
    if row.digest != current:
        return ""
    is_last = row == next(each for each in history(facts) if each.digest == current)
    return "InForce" if is_last else ""


def _as_diff(
    facts: Facts, before: RevisionContent | None, after: RevisionContent, changes: tuple[Change, ...]
) -> dict[str, Any]:
    def revision(content: RevisionContent | None) -> dict[str, str] | None:
        return {"digest": content.digest, "version": facts.version(content.digest)} if content else None

    found = [
        {"type": each.type.value, "path": each.path, "oldValue": each.old_value, "newValue": each.new_value}
        for each in changes
    ]
    whole = {"namespace": facts.namespace, "name": facts.name}
    return {**whole, "from": revision(before), "to": revision(after), "changes": found}


def _as_candidate(candidate: Candidate) -> dict[str, Any]:
    revision = candidate.revision
    scope = {field: value for field, value in asdict(revision.scope).items() if value is not None}
    return {
        "namespace": candidate.namespace,
        "name": candidate.name,
        "type": revision.type,
        "role": revision.role.value,
        "scope": scope,
        "version": candidate.version,
        "digest": revision.digest,
    }
