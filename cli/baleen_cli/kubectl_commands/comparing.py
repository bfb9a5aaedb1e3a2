"""`kubectl baleen diff`: compare revisions, or an author's file with what is in force."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from baleen_cli.cluster import Cluster
from baleen_cli.console import lines
from baleen_cli.kubectl_commands.facts import (
    Facts,
    Manifest,
    find_digest,
    short,
)
from baleen_cli.kubectl_commands.options import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    OutputOption,
    clock,
    open_cluster,
    print_object,
)
from baleen_cli.kubectl_commands.reading import read_facts
from baleen_cli.kubectl_commands.rollouts import find_rollout
from baleen_core.checking import Place, find_lists, texts_of
from baleen_core.errors import InvalidError, NotFound, PolicyError, Problem
from baleen_core.policy.diff import Change, describe, diff
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import Policy, RevisionContent
from baleen_core.resources import POLICY_KIND
from baleen_sidecar.adapters.resources import read_file
from baleen_sidecar.usecases.policy_documents import Document, Documents, sort_documents


def show_diff(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The policy's name; with --file it may be left out")] = "",
    old: Annotated[str, typer.Argument(help="Digest (or its beginning) or version; else what was before")] = "",
    new: Annotated[
        str, typer.Argument(help="The same; else what is in force. Without both: the candidate, if any")
    ] = "",
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
    rollout = find_rollout(facts, now)
    if file is None and rollout is not None and rollout.digest == after.digest:
        titles[-1] += ", the candidate"
    lines([" → ".join(titles), *(describe(changes) or ["no difference"])])


def read_policy_file(file: Path, name: str) -> tuple[str, Policy, Mapping[Place, Mapping[str, Any]]]:
    """Read an author's policy from a file, with the namespace that is written there, and the lists in the same file.

    Raises:
        PolicyError: the file cannot be read, or its policy is not valid. NotFound: it has no such policy, or several.
    """
    manifest, documents = read_policy_documents(file, name)
    contents = sort_documents(Documents(documents=documents)).contents
    return str(manifest["metadata"].get("namespace") or ""), parse_policy(manifest), contents


def read_policy_documents(file: Path, name: str) -> tuple[Manifest, tuple[Document, ...]]:
    """Read an author's policy as it is written, and all that is in the same file.

    Raises:
        PolicyError: the file cannot be read. NotFound: it has no such policy, or several.
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
    return manifest, documents


def choose_two(facts: Facts, old: str, new: str, now: datetime) -> tuple[RevisionContent | None, RevisionContent]:
    """Find the two revisions to compare; what is not named is what was before, and what is in force.

    Where none is named and there is a candidate, these are what is in force and the candidate.

    Raises:
        NotFound: one of them is not known, or nothing is in force.
    """
    known, current, rollout = facts.known, facts.in_force(now), find_rollout(facts, now)
    if not old and not new and rollout is not None and rollout.digest in facts.revisions:
        return facts.revisions.content(current) if current else None, facts.revisions.content(rollout.digest)
    after = find_digest(new, facts, known) if new else current
    if after is None:
        raise NotFound(f"nothing of {facts.key} is in force; name two revisions: {', '.join(map(short, known))}")
    if old:
        before: str | None = find_digest(old, facts, known)
    else:
        before = next((each for each in facts.activated if each != after), None)
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
