"""`baleen policy validate`, `test`, `diff` and `simulate`: what files say; records are read where one asks for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml

from baleen_cli.commands.policy import StateOption
from baleen_cli.console import coloured, lines, note, output, table
from baleen_cli.models.catalog import load_catalog
from baleen_core.analysis.metrics import MetricType
from baleen_core.checking import Checked, check_policy
from baleen_core.decision.engine import compile_policy, decide
from baleen_core.decision.explain import explain
from baleen_core.decision.lists import compile_list, find_hits
from baleen_core.decision.snapshot import LoadedPolicy, PolicySnapshot
from baleen_core.errors import ContentError, InvalidError, NotFound, PolicyError, Problem
from baleen_core.model.parse import parse_model
from baleen_core.model.schema import Model
from baleen_core.policy.diff import describe, diff
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import RevisionContent
from baleen_core.policy.scope import Candidate
from baleen_core.ratio import parse_ratio
from baleen_core.reading import unknown_name
from baleen_core.records import ContentFacts, Context, DecisionRecord, Evidence
from baleen_core.textnorm import count_links
from baleen_core.validation import tests_report
from baleen_sidecar.adapters.model_dir import read_deployments
from baleen_sidecar.adapters.resources import read_file, read_folder
from baleen_sidecar.usecases.policy_documents import (
    Documents,
    sort_documents,
)

Folder = Annotated[Path, typer.Argument(help="Folder (or one file) of policies and their lists")]
ModelsOption = Annotated[
    Path | None, typer.Option("--models", help="Folder of ModelDeployments; else all shipped models")
]
PlaceOption = Annotated[str | None, typer.Option(help="Where the content comes from; it selects the policies")]


def validate(folder: Folder, models: ModelsOption = None) -> None:
    """Check every policy as the sidecar would, its own tests included, and name everything that is wrong."""
    problems: list[Problem] = []
    checked = _check_all(folder, served_models(models), problems)
    for (namespace, name), policy in checked.items():
        revision = make_revision(policy.policy, policy.lists)
        version = policy.policy.version or "no version"
        lines([f"{namespace}/{name} is valid: {version}, {revision.digest}, {len(policy.policy.tests)} tests passed"])
        analysis = policy.policy.plan.analysis
        if named := [each.name for each in analysis.metrics if each.type is MetricType.PROMQL] if analysis else []:
            note(
                f"{namespace}/{name}: whether an installation has a Prometheus to ask for {', '.join(named)}, and what "
                "it says to a query, is only known there"
            )
    if problems:
        raise PolicyError(problems)


def run_tests(folder: Folder, models: ModelsOption = None) -> None:
    """Run the tests that policies carry, and show each result."""
    served = served_models(models)
    problems: list[Problem] = []
    shown = table("POLICY", "TEST", "EXPECTED", "FOUND", "BECAUSE")
    # A failing test makes a policy invalid; here the other tests are of interest too.
    for key, checked in _check_all(folder, served, problems, with_tests=False).items():
        for result in tests_report(checked.policy, checked.lists, served):
            found = coloured(result.found) if result.passed else f"{result.found} (wrong)"
            shown.add_row("/".join(key), result.name, str(result.expected), found, result.because)
            if not result.passed:
                message = f"expected {result.expected}, found {result.found}"
                problems.append(Problem(field=f"{'/'.join(key)}: {result.name}", message=message))
    output.print(shown)
    if problems:
        raise PolicyError(problems)


def show_diff(
    old: Annotated[str, typer.Argument(help="A file, or the digest (or its beginning) of a revision on record")],
    new: Annotated[str, typer.Argument(help="The same")],
    state: StateOption = Path(".state"),
    models: ModelsOption = None,
) -> None:
    """Show every difference between two policies that can change a decision."""
    before, after = _revision(old, state, models), _revision(new, state, models)
    lines(describe(diff(before, after)) or ["no difference"])


def simulate(
    folder: Folder,
    signal: Annotated[list[str] | None, typer.Option(help="A score, such as toxicity.toxic=80%; repeat it")] = None,
    text: Annotated[str | None, typer.Option(help="Text, for lists and rules")] = None,
    language: Annotated[str | None, typer.Option(help="ISO 639-1 code of the text's language")] = None,
    tenant: PlaceOption = None,
    surface: PlaceOption = None,
    source: PlaceOption = None,
    last: Annotated[int, typer.Option(help="Judge the last N decisions on record instead", min=0, max=100_000)] = 0,
    state: StateOption = Path(".state"),
    models: ModelsOption = None,
) -> None:
    """Say what the policies of a folder would decide, without asking a model and without putting them in force."""
    served = served_models(models)
    problems: list[Problem] = []
    snapshot = _compile(_check_all(folder, served, problems))
    if problems:
        raise PolicyError(problems)
    if last:
        # Here, since the store takes longer to import than a folder to check.
        from baleen_cli.commands.policy_records import recent_decisions

        _print_flips(snapshot, recent_decisions(state, last))
        return
    context = Context(tenant=tenant, surface=surface, source=source)
    in_force = snapshot.in_force(context)
    if not in_force.winners:
        raise NotFound("no policy of these binds that place; name one with --tenant, --surface or --source")
    scores = dict(_read_score(each, served) for each in signal or ())
    evidence = Evidence(
        content=ContentFacts(type="text", digest="", length=len(text or ""), links=count_links(text or "")),
        context=context,
        signals={**dict.fromkeys(in_force.wanted("text", language), 0), **scores},
        language=language,
        lists=find_hits(in_force.lists, text=text, digest="", pdq=None),
    )
    decision = decide(in_force, evidence)
    record = DecisionRecord(id="simulated", time="", evidence=evidence, decision=decision)
    output.print(coloured(decision.decision))
    lines(explain(record, {policy.revision.digest: policy for policy in in_force.policies}))


def _revision(text: str, state: Path, models: Path | None) -> RevisionContent:
    if Path(text).exists():
        policy = checked_policy(Path(text), served_models(models))
        return read_revision(make_revision(policy.policy, policy.lists))
    # Here, as in `simulate`.
    from baleen_cli.commands.policy_records import stored_revision

    return stored_revision(text, state)


def checked_policy(file: Path, served: Sequence[Model]) -> Checked:
    """Check the one policy of a file, or of a folder.

    Raises:
        PolicyError: everything that is wrong with it, or it is not alone.
    """
    problems: list[Problem] = []
    checked = _check_all(file, served, problems)
    if problems or len(checked) != 1:
        raise PolicyError(problems or f"{file} has {len(checked)} policies; name a file with one")
    (policy,) = checked.values()
    return policy


def read_documents(folder: Path) -> Documents:
    """Read the resources of a folder or of one file.

    Raises:
        PolicyError: the file cannot be read.
    """
    if not folder.is_file():
        return read_folder(folder)
    try:
        return Documents(documents=tuple(read_file(folder, folder.name)))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as exc:
        problem = Problem(field=str(folder), message=f"cannot be read: {' '.join(str(exc).split())}")
        raise PolicyError([problem]) from exc


def served_models(folder: Path | None) -> tuple[Model, ...]:
    """Return the models of a folder's deployments, or all that are shipped."""
    if folder is None:
        return tuple(parse_model(source.entry) for source in load_catalog())
    return tuple(model for deployment in read_deployments(folder) for model in deployment.models)


def _check_all(
    folder: Path, served: Sequence[Model], problems: list[Problem], *, with_tests: bool = True
) -> Mapping[tuple[str, str], Checked]:
    documents = read_documents(folder)
    found = sort_documents(documents)
    problems += (*documents.problems, *found.problems)
    checked: dict[tuple[str, str], Checked] = {}
    for key, manifest in found.policies.items():
        try:
            checked[key] = check_policy(manifest, found.contents, served, with_tests=with_tests)
        except InvalidError as exc:
            problems += [
                Problem(field=f"{'/'.join(key)}: {problem.field}", message=problem.message) for problem in exc.problems
            ]
    if not found.policies and not problems:
        problems.append(Problem(field=str(folder), message="there is no ModerationPolicy"))
    return checked


def _compile(checked: Mapping[tuple[str, str], Checked]) -> PolicySnapshot:
    """Make a folder's policies ready to judge, each where it binds, as if they were in force."""
    loaded = []
    for (namespace, name), policy in checked.items():
        content = read_revision(make_revision(policy.policy, policy.lists))
        version = policy.policy.version
        by_name = {each.name: each for each in policy.policy.content.lists}
        lists = (
            compile_list(each, max_distance=by_name[list_name].max_distance) for list_name, each in policy.lists.items()
        )
        loaded.append(
            LoadedPolicy(
                candidate=Candidate(name=name, namespace=namespace, created="", revision=content, version=version),
                compiled=compile_policy(name, version, content, ()),
                lists=tuple(lists),
            )
        )
    return PolicySnapshot(policies=tuple(loaded))


def _read_score(text: str, served: Sequence[Model]) -> tuple[str, int]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ContentError([Problem(field="--signal", message=f"{text!r} is not NAME=SCORE, as in toxicity.toxic=80%")])
    known = {f"{model.name}.{signal.name}" for model in served for signal in model.signals}
    if name not in known:
        raise ContentError([Problem(field="--signal", message=unknown_name(name, known, "signal"))])
    try:
        return name, parse_ratio(value)
    except ValueError as exc:
        raise ContentError([Problem(field=f"--signal {name}", message=str(exc))]) from None


def _print_flips(snapshot: PolicySnapshot, records: list[DecisionRecord]) -> None:
    flips: dict[tuple[str, str], list[str]] = {}
    unbound = 0
    for record in records:
        in_force = snapshot.in_force(record.evidence.context)
        if not in_force.winners:
            unbound += 1
            continue
        after = decide(in_force, record.evidence).decision
        flips.setdefault((record.decision.decision.value, after.value), []).append(record.id)
    shown = table("WAS", "WOULD BE", "DECISIONS", "FOR EXAMPLE")
    for (was, would_be), ids in sorted(flips.items()):
        shown.add_row(coloured(was), coloured(would_be), str(len(ids)), ids[0])
    output.print(shown)
    if unbound:
        note(f"{unbound} decisions were made where none of these policies binds; they would be refused")
    note("list hits and scores are those on record; lists that are new here were not looked up then")
