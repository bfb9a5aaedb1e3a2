"""`kubectl baleen simulate | flips`: what an author's file would change, and on what the sides of a rollout differ."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from baleen_cli.cluster import Cluster
from baleen_cli.console import coloured, lines, output, table
from baleen_cli.flip_tables import print_parts, print_simulation
from baleen_cli.kubectl_commands.adding import add_flips, add_simulations
from baleen_cli.kubectl_commands.comparing import read_policy_documents
from baleen_cli.kubectl_commands.facts import Facts, Manifest, find_digest, without_managed_fields
from baleen_cli.kubectl_commands.gateways import (
    DEFAULT_SYSTEM,
    Answers,
    GatewayOption,
    SystemOption,
    call,
    find_gateways,
)
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
from baleen_cli.kubectl_commands.reading import read_facts
from baleen_cli.kubectl_commands.rollouts import find_rollout
from baleen_core.errors import ContentError, NotFound, PolicyError, Problem
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.schema import MAX_BACKTEST_DECISIONS, BacktestGate, Verdict
from baleen_core.ratio import parse_ratio
from baleen_sidecar.usecases.simulate import DEFAULT_DECISIONS
from baleen_sidecar.web.simulations import SimulationAnswer
from baleen_sidecar.web.surveys import RolloutFlipsAnswer

EXAMPLES_SHOWN: Final = 3
ANY_NUMBER: Final = 1
"""Of decisions, where limits are named and a number is not."""

DecisionsOption = Annotated[
    int,
    typer.Option(help="Look at so many of the policy, the newest of each gateway", min=1, max=MAX_BACKTEST_DECISIONS),
]
LimitOption = Annotated[str | None, typer.Option(help="Fail above this part, such as 2%; else as gates.backtest says")]


def simulate(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="An author's file, with its lists or without them")],
    name: Annotated[str, typer.Argument(help="The policy's name, where the file has several")] = "",
    decisions: DecisionsOption = DEFAULT_DECISIONS,
    max_flip_rate: LimitOption = None,
    max_new_blocks: LimitOption = None,
    namespace: NamespaceOption = "",
    system_namespace: SystemOption = DEFAULT_SYSTEM,
    gateway: GatewayOption = None,
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Judge the decisions that gateways have on record again, by an author's file, and show what it would change.

    Nothing is put in force. Where the file has gates.backtest, or limits are named, the exit status is 1 unless all
    gateways together have enough decisions and the limits hold.
    """
    manifest, documents = read_policy_documents(file, name)
    written = str(manifest["metadata"].get("namespace") or "")
    if namespace and written and namespace != written:
        raise typer.BadParameter(f"the policy in {file} is of namespace {written!r}; leave -n {namespace} out")
    cluster = open_cluster(context, namespace or written, kube_context, kubeconfig)
    # The file stands for what is applied: what is wrong with it is better said before anybody is asked.
    parse_policy(manifest)
    gate = read_gate(manifest, {"maxFlipRate": max_flip_rate, "maxNewBlocks": max_new_blocks})
    asked = max(decisions, gate.decisions) if gate else decisions
    body = {
        "policy": _placed(manifest, cluster.namespace),
        "contents": list(_contents(cluster, manifest, [each.body for each in documents])),
        "decisions": min(asked, MAX_BACKTEST_DECISIONS),
    }
    path = f"/v1/policies/{cluster.namespace}.{manifest['metadata']['name']}/simulate"
    answers = find_gateways(cluster, system_namespace, gateway).ask_all(
        lambda ask: call(ask, "POST", path, SimulationAnswer, body)
    )
    whole: dict[str, Any] = msgspec.to_builtins(add_simulations(answers.answers, gate))
    answers.note()
    if output_format:
        print_object({**whole, "gateways": answers.as_object()}, output_format)
    else:
        print_simulation(whole)
        lines([_by_whom(answers)])
    verdict = whole.get("gate")
    if verdict and verdict["verdict"] != "Pass":
        raise PolicyError(f"{verdict['verdict']} ({verdict['reason']}): {verdict['message']}")


def flips(
    context: typer.Context,
    name: Name,
    old: Annotated[str, typer.Argument(help="Digest (or its beginning) or version of the stable revision")] = "",
    new: Annotated[str, typer.Argument(help="The same of the candidate; without both, of the rollout under way")] = "",
    decisions: DecisionsOption = DEFAULT_DECISIONS,
    namespace: NamespaceOption = "",
    system_namespace: SystemOption = DEFAULT_SYSTEM,
    gateway: GatewayOption = None,
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Show on what the sides of a rollout differ, with decisions for example: `explain` says more of each."""
    if old and not new:
        raise typer.BadParameter("name both sides of a rollout, or neither for the one under way")
    cluster = open_cluster(context, namespace, kube_context, kubeconfig)
    facts = read_facts(cluster, name)
    stable, candidate = choose_sides(facts, old, new, clock())
    path = f"/v1/policies/{facts.namespace}.{facts.name}/flips?from={stable}&to={candidate}&decisions={decisions}"
    answers = find_gateways(cluster, system_namespace, gateway).ask_all(
        lambda ask: call(ask, "GET", path, RolloutFlipsAnswer)
    )
    whole: dict[str, Any] = msgspec.to_builtins(add_flips(answers.answers))
    answers.note()
    if output_format:
        print_object({**whole, "gateways": answers.as_object()}, output_format)
        return
    lines([f"{facts.key}: {facts.named(stable)} → {facts.named(candidate)}"])
    print_flips(whole)
    lines([_by_whom(answers)])


def choose_sides(facts: Facts, old: str, new: str, now: datetime) -> tuple[str, str]:
    """Return the digests of a rollout's sides: those that are named, those of the one under way, or of the last failed.

    Raises:
        NotFound: there is none, or no such revision.
    """
    if old:
        return find_digest(old, facts, facts.known), find_digest(new, facts, facts.known)
    stable, rollout = facts.route.route.stable if facts.route else "", find_rollout(facts, now)
    tried = rollout.digest if rollout and rollout.exposure is not None else ""
    if not tried and facts.status.failed:
        tried = max(facts.status.failed, key=lambda each: each.time).digest
    if not stable or not tried:
        names = ", ".join(facts.named(each) for each in facts.known) or "none"
        raise NotFound(f"nothing of {facts.key} is rolled out, or failed; name both sides of a rollout: {names}")
    return stable, tried


def read_gate(manifest: Manifest, limits: Mapping[str, str | None]) -> BacktestGate | None:
    """Return what a policy's gates.backtest holds an edit to, by limits that are named instead; None where none is.

    Raises:
        ContentError: a limit is no ratio.
    """
    written = ((manifest.get("spec") or {}).get("gates") or {}).get("backtest") or {}
    found = {name: limit or written.get(name) for name, limit in limits.items()}
    if not written and not any(found.values()):
        return None
    return BacktestGate(
        decisions=int(written.get("decisions", ANY_NUMBER)),
        max_flip_rate=_read_ratio("maxFlipRate", found["maxFlipRate"]),
        max_new_blocks=_read_ratio("maxNewBlocks", found["maxNewBlocks"]),
    )


def print_flips(answer: Mapping[str, Any]) -> None:
    """Print how many went from each verdict to each, examples of each kind of flip, and where they come from."""
    matrix = table("STABLE ↓ CANDIDATE →", *(verdict.value for verdict in Verdict))
    for verdict, row in zip(Verdict, answer["matrix"], strict=True):
        matrix.add_row(coloured(verdict), *(f"{count:,}" for count in row))
    output.print(matrix)
    if answer["flips"]:
        kinds = table("STABLE", "CANDIDATE", "DECISIONS", "FOR EXAMPLE")
        for flip in answer["flips"]:
            some = " ".join(flip["examples"][:EXAMPLES_SHOWN])
            kinds.add_row(coloured(flip["from"]), coloured(flip["to"]), f"{flip['count']:,}", some)
        output.print(kinds)
    print_parts(answer)
    erased = f", {answer['erased']:,} of them erased, with no categories" if answer["erased"] else ""
    lines([f"{answer['compared']:,} decisions were judged by both{erased}"])


def _by_whom(answers: Answers[Any]) -> str:
    return f"by what {len(answers.answers)} of {answers.asked} gateways have on record"


def _placed(manifest: Manifest, namespace: str) -> dict[str, Any]:
    """Write a resource with the namespace that it would be applied to."""
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def _contents(cluster: Cluster, manifest: Manifest, bodies: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the ConfigMaps and Secrets of a policy's lists: from its file, and else as they are in the cluster."""
    in_file = {(each.get("kind"), each["metadata"]["name"]): each for each in bodies if each.get("metadata")}
    sources = [each.source for each in parse_policy(manifest).content.lists if each.source is not None]
    for kind, name in dict.fromkeys((source.type.value, source.name) for source in sources):
        found = in_file.get((kind, name)) or cluster.get(kind, cluster.namespace, name)
        if found is not None:
            yield _placed({**without_managed_fields(found), "kind": kind, "apiVersion": "v1"}, cluster.namespace)


def _read_ratio(field: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_ratio(str(text))
    except ValueError as exc:
        raise ContentError([Problem(field=f"spec.gates.backtest.{field}", message=str(exc))]) from None
