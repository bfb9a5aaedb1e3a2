"""`kubectl baleen top`: how much each revision decides, and how, by what gateways have on record."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from baleen_cli.console import lines, note, output, table
from baleen_cli.kubectl_commands.facts import Facts, short
from baleen_cli.kubectl_commands.gateways import (
    DEFAULT_SYSTEM,
    Ask,
    GatewayOption,
    SystemOption,
    call,
    find_gateways,
)
from baleen_cli.kubectl_commands.options import (
    AllOption,
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    OutputOption,
    clock,
    open_cluster,
    print_object,
)
from baleen_cli.kubectl_commands.reading import read_all_facts, read_facts
from baleen_cli.kubectl_commands.rollouts import find_rollout
from baleen_core.decision.logs import one_per_log
from baleen_core.decision.performance import NO_OUTCOMES, Outcomes, add_outcomes
from baleen_core.errors import ContentError, NotFound, Problem
from baleen_sidecar.usecases.survey import MAX_SECONDS, MAX_SURVEYED
from baleen_sidecar.web.surveys import OutcomesAnswer, PerformanceAnswer, RevisionAnswer

MAX_POLICIES: Final = 50
"""Each is looked for in the log of each gateway."""
TOP_SECONDS: Final = 60
TOP_DECISIONS: Final = 2_000

STABLE: Final = "Stable"
CANDIDATE: Final = "Candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One revision of a policy: what came of its decisions, how many there are, and who judges by it.

    `side` is empty for one that is neither in force nor the candidate, and still has decisions. `said` is what it says
    by itself of all content that both sides of a rollout judged. `enforcing` of the `answered` gateways judge by it.
    """

    namespace: str
    name: str
    digest: str
    version: str
    side: str
    weight: str
    per_second: float
    outcomes: Outcomes
    said: Outcomes
    enforcing: int
    answered: int

    @property
    def decisions(self) -> int:
        """How many decisions it counted for."""
        return sum(self.outcomes)


def show_top(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The policy's name; else all")] = "",
    seconds: Annotated[
        int, typer.Option(help="Look at decisions of the last so many seconds", min=1, max=MAX_SECONDS)
    ] = TOP_SECONDS,
    decisions: Annotated[
        int, typer.Option(help="Look at so many of a policy at each gateway", min=1, max=MAX_SURVEYED)
    ] = TOP_DECISIONS,
    namespace: NamespaceOption = "",
    all_namespaces: AllOption = False,
    system_namespace: SystemOption = DEFAULT_SYSTEM,
    gateway: GatewayOption = None,
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output_format: OutputOption = None,
) -> None:
    """Show what each revision decides: how often, with which shares, for whom, and at how many gateways."""
    if name and all_namespaces:
        raise typer.BadParameter("a policy's name says too little in all namespaces; leave out one of the two")
    cluster, now = open_cluster(context, namespace, kube_context, kubeconfig), clock()
    if name:
        found = [read_facts(cluster, name)]
    else:
        found = read_all_facts(cluster, None if all_namespaces else cluster.namespace)
    routed = [each for each in found if each.route is not None]
    if len(routed) > MAX_POLICIES:
        message = f"there are {len(routed)}, and at most {MAX_POLICIES} are looked at: name one of them, or a namespace"
        raise ContentError([Problem(field="policies", message=message)])
    if not routed:
        where = "any namespace" if all_namespaces else f"namespace {cluster.namespace}"
        raise NotFound(f"no policy in {where} is routed, so nothing decides by one")
    query = f"by=revision&seconds={seconds}&decisions={decisions}"

    def look(ask: Ask) -> Mapping[str, PerformanceAnswer]:
        return {each.key: answer for each in routed if (answer := _ask(ask, each, query)) is not None}

    answers = find_gateways(cluster, system_namespace, gateway).ask_all(look)
    answers.note()
    rows = [row for each in routed for row in top_rows(each, answers.answers, now)]
    if output_format:
        items = [
            {**asdict(row), "outcomes": _named(row.outcomes), "said": _named(row.said), "decisions": row.decisions}
            for row in rows
        ]
        converged = {each.key: _convergence(each) for each in routed}
        print_object(
            {"items": items, "convergence": converged, "gateways": answers.as_object()},
            output_format,
        )
        return
    place = ["NAMESPACE"] if all_namespaces else []
    columns = ["NAME", "VERSION", "DIGEST", "SIDE", "WEIGHT", "PER SECOND", "ALLOW", "REVIEW", "BLOCK", "GATEWAYS"]
    shown = table(*place, *columns)
    for row in rows:
        shown.add_row(*([row.namespace] if place else []), *_cells(row))
    output.print(shown)
    lines(filter(None, map(_say_convergence, routed)))
    for each in routed:
        if count := count_no_namespace(each, answers.answers):
            note(f"{each.key}: {count:,} more may be of it: an earlier release wrote no namespaces of policies")
    if any(_is_only_said(row) for row in rows):
        note("in brackets: what a candidate says that does not count for anybody")


def _ask(ask: Ask, facts: Facts, query: str) -> PerformanceAnswer | None:
    """Return how the revisions of a policy did at a gateway; None where that does not know the policy (yet)."""
    path = f"/v1/policies/{facts.namespace}.{facts.name}/performance?{query}"
    try:
        return call(ask, "GET", path, PerformanceAnswer)
    except NotFound:
        return None


def top_rows(facts: Facts, answers: Mapping[str, Mapping[str, PerformanceAnswer]], now: datetime) -> list[Row]:
    """Add up what gateways say of a policy: what is in force, its candidate, then what has decisions still.

    Decisions count once for each log, and who judges by what, for each gateway.
    """
    said = {name: found[facts.key] for name, found in answers.items() if facts.key in found}
    in_force, rollout = facts.in_force(now) or "", find_rollout(facts, now)
    candidate = rollout.digest if rollout is not None and rollout.is_judging else ""
    by_digest: dict[str, list[tuple[RevisionAnswer, float]]] = {each: [] for each in (in_force, candidate) if each}
    for answer in one_per_log(said, lambda each: each.log).values():
        for revision in answer.revisions:
            by_digest.setdefault(revision.digest, []).append((revision, answer.seconds))
    rows = []
    for digest, parts in by_digest.items():
        is_candidate = digest == candidate
        side = STABLE if digest == in_force else CANDIDATE if is_candidate else ""
        rows.append(
            Row(
                namespace=facts.namespace,
                name=facts.name,
                digest=digest,
                version=facts.version(digest) or max((each.version for each, _ in parts), default=""),
                side=side,
                weight=rollout.weight if rollout is not None and is_candidate else "",
                per_second=round(sum(each.decisions / seconds for each, seconds in parts), 3),
                outcomes=_add([each.outcomes for each, _ in parts]),
                said=_add([each.said for each, _ in parts]),
                enforcing=sum(digest == (each.candidate if is_candidate else each.in_force) for each in said.values()),
                answered=len(answers),
            )
        )
    order = {STABLE: 0, CANDIDATE: 1, "": 2}
    return sorted(rows, key=lambda row: (order[row.side], -row.decisions, row.digest))


def count_no_namespace(facts: Facts, answers: Mapping[str, Mapping[str, PerformanceAnswer]]) -> int:
    """Return how many decisions may be of the policy, and do not say it; those of a log that is shared count once."""
    said = {name: found[facts.key] for name, found in answers.items() if facts.key in found}
    return sum(each.no_namespace for each in one_per_log(said, lambda each: each.log).values())


def _add(counts: Sequence[OutcomesAnswer]) -> Outcomes:
    total = NO_OUTCOMES
    for each in counts:
        total = add_outcomes(total, (each.allow, each.review, each.block))
    return total


def _cells(row: Row) -> list[str | Text]:
    shares = _shares(row.said) if _is_only_said(row) else _shares(row.outcomes)
    words = [f"({each})" if _is_only_said(row) and each else each for each in shares]
    of_all = Text(f"{row.enforcing}/{row.answered}", style="" if not row.side or _is_everywhere(row) else "yellow")
    return [row.name, row.version, short(row.digest), row.side, row.weight, f"{row.per_second:,.1f}", *words, of_all]


def _is_everywhere(row: Row) -> bool:
    return row.enforcing == row.answered


def _is_only_said(row: Row) -> bool:
    return not row.decisions and row.side == CANDIDATE and bool(sum(row.said))


def _shares(counts: Outcomes) -> list[str]:
    total = sum(counts)
    return [f"{count / total:.1%}" if total else "" for count in counts]


def _named(counts: Outcomes) -> dict[str, int]:
    return dict(zip(("allow", "review", "block"), counts, strict=True))


def _convergence(facts: Facts) -> Mapping[str, Any]:
    found = ((facts.policy or {}).get("status") or {}).get("convergence") or {}
    return {"total": found.get("total", 0), "current": found.get("current", 0), "stale": list(found.get("stale") or ())}


def _say_convergence(facts: Facts) -> str:
    """Say which gateways and sidecars are behind, as the operator last saw it; nothing where none is known to be."""
    found = _convergence(facts)
    if found["current"] >= found["total"]:
        return ""
    behind = f": behind are {', '.join(map(str, found['stale']))}" if found["stale"] else ""
    return f"{facts.key}: {found['current']} of {found['total']} gateways and sidecars enforce what is routed{behind}"
