"""`kubectl baleen get | history | effective | explain`: look, and change nothing."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from msgspec import Struct, to_builtins
from rich.console import Group, RenderableType
from rich.text import Text

from baleen_cli.console import lines, output, table
from baleen_cli.kubectl_commands.facts import (
    Facts,
    age,
    candidates,
    condition,
    history,
    overriding,
    row_in_force,
    short,
    without_managed_fields,
)
from baleen_cli.kubectl_commands.gateways import (
    DEFAULT_SYSTEM,
    GatewayOption,
    SystemOption,
    call,
    find_gateways,
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
from baleen_cli.kubectl_commands.rollouts import (
    Rollout,
    as_candidate,
    describe_rollout,
    find_rollout,
    find_rollouts,
)
from baleen_cli.kubectl_commands.watching import View, watch_view
from baleen_cli.kubectl_commands.words import describe_author, describe_place, explain_digest, explain_policy
from baleen_core.policy.schema import Verdict
from baleen_core.policy.scope import Candidate, resolve
from baleen_core.records import Context
from baleen_core.resources import POLICY_KIND
from baleen_operator.resources.policy import Row

DECISION_ID: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
PlaceOption = Annotated[str | None, typer.Option(help="Where the content comes from")]
COLOURS = {"True": "green", "False": "red", "Unknown": "yellow"}


class Explained(Struct, frozen=True):
    """A decision in sentences, as gateways explain it."""

    id: str
    decision: Verdict
    explanation: tuple[str, ...]


def get(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The policy's name; else all")] = "",
    namespace: NamespaceOption = "",
    all_namespaces: AllOption = False,
    kube_context: ContextOption = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C")] = False,
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Show policies, which revision of each is in force, an override considered, and how far its candidate is."""
    if name and all_namespaces:
        raise typer.BadParameter("a policy's name says too little in all namespaces; leave out one of the two")
    if watch and output_format:
        raise typer.BadParameter("--watch shows a table; leave out one of --watch and --output")
    cluster = open_cluster(context, namespace, kube_context, kubeconfig)

    def look() -> list[Facts]:
        if name:
            return [read_facts(cluster, name)]
        return read_all_facts(cluster, None if all_namespaces else cluster.namespace)

    def view() -> View:
        found = look()
        where = "any namespace" if all_namespaces else f"namespace {cluster.namespace}"
        shown = (
            show_policies(found, clock(), with_namespaces=all_namespaces) if found else Text(f"no policies in {where}")
        )
        return View(sources=[each.versions for each in found], shown=shown)

    if watch:
        watch_view(view, output, sleep=time.sleep)
    elif output_format:
        found, now = look(), clock()
        objects = [as_object(each, now) for each in found]
        print_object(objects[0] if name else {"items": objects}, output_format)
    else:
        output.print(view().shown)


def show_policies(found: Sequence[Facts], now: datetime, *, with_namespaces: bool) -> RenderableType:
    """Make the table of policies, and one of those with a candidate, with a line on what each of these waits for."""
    place = ["NAMESPACE"] if with_namespaces else []
    columns = ["NAME", "VERSION", "DIGEST", "EPOCH", "ACCEPTED", "READY", "CONVERGED", "OVERRIDE", "SINCE", "AGE"]
    shown = table(*place, *columns)
    on_the_way = table(*place, "NAME", "CANDIDATE", "DIGEST", "STEP", "WEIGHT", "REASON", "SINCE")
    waits = []
    for each in found:
        where = [each.namespace] if with_namespaces else []
        shown.add_row(*where, *_row(each, now))
        if (rollout := find_rollout(each, now)) is not None:
            since = age(rollout.step_time or rollout.start_time, now)
            cells = [rollout.version, short(rollout.digest), rollout.step, rollout.weight, rollout.reason, since]
            on_the_way.add_row(*where, each.name, *cells)
            waits.append(Text(f"{each.key if with_namespaces else each.name}: {describe_rollout(rollout)}"))
    return Group(shown, on_the_way, *waits) if waits else shown


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
    rows, current, rollout = history(facts), facts.in_force(now), find_rollout(facts, now)
    if output_format:
        activations = [{**_as_activation(row), "standing": _word(facts, row, current)} for row in rows]
        whole: dict[str, Any] = {"namespace": facts.namespace, "name": facts.name, "activations": activations}
        whole["candidate"] = as_candidate(rollout) if rollout else None
        whole["failed"] = [asdict(each) for each in facts.status.failed]
        print_object(whole, output_format)
        return
    shown = table("EPOCH", "TIME", "VERSION", "DIGEST", "REASON", "BY", "APPROVED BY", "NOW")
    for row in rows:
        cells = [row.version, short(row.digest), row.reason, describe_author(row), row.approved_by]
        shown.add_row(str(row.epoch), row.time, *cells, _word(facts, row, current))
    output.print(shown)
    lines([f"on its way: {describe_rollout(rollout)}"] if rollout else [])
    lines(
        f"failed{f' at {each.time}' if each.time else ''}: {facts.named(each.digest)}: {each.reason}: {each.message}"
        for each in facts.status.failed
    )


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
    policies = read_all_facts(cluster, namespace or None)
    competing, rollouts = candidates(policies, now), find_rollouts(policies, now)
    if output_format:
        found = resolve(competing, place)
        whole: dict[str, Any] = {"context": {"tenant": tenant, "surface": surface, "source": source}}
        for field in ("winners", "floors", "dry_runs"):
            spelling = "dryRuns" if field == "dry_runs" else field
            whole[spelling] = [_as_competing(each, rollouts) for each in getattr(found, field)]
        print_object(whole, output_format)
        return
    lines(describe_place(competing, place, rollouts))


def explain(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="A policy's name, a revision's digest (or its beginning), or a decision's id")
    ],
    namespace: NamespaceOption = "",
    system_namespace: SystemOption = DEFAULT_SYSTEM,
    gateway: GatewayOption = None,
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Say in words what is in force, why what was written last is not, and what to do next; or why a decision is so."""
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
    if not policies and DECISION_ID.fullmatch(name) and cluster.get(POLICY_KIND, cluster.namespace, name) is None:
        answers = find_gateways(cluster, system_namespace, gateway).ask_all(
            lambda ask: call(ask, "GET", f"/v1/decisions/{name}/explain", Explained)
        )
        # One has it on record; that others have not is how it should be.
        found = next(iter(answers.answers.values()))
        if output_format:
            print_object({"items": [to_builtins(found)], "explanation": list(found.explanation)}, output_format)
        else:
            lines(found.explanation)
        return
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
        "commit": row.commit if row else "",
        "approvedBy": row.approved_by if row else "",
        "override": overriding(facts, now),
    }
    resources = {
        "policy": facts.policy,
        "route": facts.route_manifest,
        "override": facts.override_manifest,
    }
    rollout = find_rollout(facts, now)
    whole: dict[str, Any] = {"namespace": facts.namespace, "name": facts.name, "inForce": in_force}
    whole["candidate"] = as_candidate(rollout) if rollout else None
    whole["problems"] = [each for each in (facts.route_problem, facts.override_problem) if each]
    whole |= {name: without_managed_fields(each) for name, each in resources.items() if each is not None}
    whole["revisions"] = [without_managed_fields(each) for each in facts.revisions.manifests]
    return whole


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
        return "Failed" if facts.failed(row.digest) else ""
    is_last = row == next(each for each in history(facts) if each.digest == current)
    return "InForce" if is_last else ""


def _as_activation(row: Row) -> dict[str, Any]:
    """Write a row for machines, with all its fields."""
    return {"approvedBy" if field == "approved_by" else field: value for field, value in asdict(row).items()}


def _as_competing(candidate: Candidate, rollouts: Mapping[tuple[str, str], Rollout]) -> dict[str, Any]:
    rollout = rollouts.get((candidate.namespace, candidate.name))
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
        "candidate": as_candidate(rollout) if rollout else None,
    }
