"""`baleen policy backtest` and `suggest`: what the decisions on record say of a policy that is still a file."""

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from baleen_cli.client import KEY_VARIABLE, Client
from baleen_cli.commands.policy import StateOption
from baleen_cli.commands.policy_files import ModelsOption, checked_policy, read_documents, served_models
from baleen_cli.console import lines, note, output, table
from baleen_cli.flip_tables import print_simulation
from baleen_core.decision.engine import compile_policy
from baleen_core.decision.snapshot import PolicySnapshot, PolicyStatus, Standing
from baleen_core.decision.suggest import Suggestion, suggest
from baleen_core.errors import ContentError, NotFound, PolicyError, Problem
from baleen_core.model.schema import Model
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import MAX_BACKTEST_DECISIONS, BacktestGate
from baleen_core.policy.scope import matches
from baleen_core.ratio import format_ratio, parse_ratio
from baleen_core.records import Evidence, decode_record
from baleen_sidecar.adapters.store import SqliteDecisionReader, SqliteRevisionStore, StateFolder
from baleen_sidecar.usecases.loading import Identity, PolicyLoader
from baleen_sidecar.usecases.look_back import SCANNED_PER_DECISION
from baleen_sidecar.usecases.policy_documents import sort_documents
from baleen_sidecar.usecases.simulate import (
    DEFAULT_DECISIONS,
    Draft,
    Simulate,
)
from baleen_sidecar.web.simulations import to_simulation_answer

PAGE_ROWS: Final = 1_000
LIMIT_SECONDS: Final = 3600.0

File = Annotated[
    Path, typer.Argument(help="File (or folder) with one policy, and the ConfigMaps and Secrets of its lists")
]
Url = Annotated[
    str | None, typer.Option(help="Ask this sidecar or gateway, which has its own log; else --state is read")
]
Decisions = Annotated[int, typer.Option(help="Compare so many, the newest", min=1, max=MAX_BACKTEST_DECISIONS)]
Limit = Annotated[str | None, typer.Option(help="Fail above this part, such as 2%")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]


def run_backtest(
    file: File,
    url: Url = None,
    state: StateOption = Path(".state"),
    decisions: Decisions = DEFAULT_DECISIONS,
    max_flip_rate: Limit = None,
    max_new_blocks: Limit = None,
    models: ModelsOption = None,
    as_json: Json = False,
) -> None:
    """Judge the decisions on record again, by a policy's file and by its revision in force, and show what differs.

    With --max-flip-rate or --max-new-blocks, the exit status is 1 unless at least --decisions can be compared and the
    limits hold. A sidecar is shown the API key in BALEEN_API_KEY, which needs the role admin.
    """
    limits = {"max_flip_rate": max_flip_rate, "max_new_blocks": max_new_blocks}
    given = {name: _read_rate(f"--{name.replace('_', '-')}", text) for name, text in limits.items() if text is not None}
    if url is None:
        gate = BacktestGate(decisions=decisions, **given) if given else None
        answer = _ask_state(file, state, served_models(models), decisions, gate)
    else:
        asked = {"decisions": decisions} | {name: limits[name] for name in given} if given else None
        answer = _ask_sidecar(file, url, decisions, asked)
    if as_json:
        lines([json.dumps(answer, ensure_ascii=False)])
    else:
        print_simulation(answer)
    gate_answer = answer.get("gate")
    if gate_answer and gate_answer["verdict"] != "Pass":
        raise PolicyError(f"{gate_answer['verdict']} ({gate_answer['reason']}): {gate_answer['message']}")


def show_suggestions(
    file: File,
    max_block_rate: Annotated[str, typer.Option(help="The part of the decisions that a signal may block, such as 1%")],
    state: StateOption = Path(".state"),
    decisions: Decisions = DEFAULT_DECISIONS,
    models: ModelsOption = None,
) -> None:
    """Show, for each signal of a policy's categories, the lowest block threshold that blocks at most that part.

    It goes by the scores of the newest decisions on record where the policy would bind. A signal alone is looked at:
    with several in a category of which any may block, together they may block more.
    """
    rate = _read_rate("--max-block-rate", max_block_rate)
    if not rate:
        raise ContentError([Problem(field="--max-block-rate", message="must be above 0%")])
    checked = checked_policy(file, served_models(models))
    content = read_revision(make_revision(checked.policy, checked.lists))
    policy = compile_policy(checked.policy.name, checked.policy.version, content, ())
    with closing(SqliteDecisionReader(StateFolder(state).database)) as reader:
        here = (each for each in _read_evidence(reader, decisions) if matches(content.scope, each.context))
        found = suggest(policy, islice(here, decisions), max_block_rate=rate)
    shown = table("CATEGORY", "SIGNAL", "BLOCK NOW", "SUGGESTED", "WOULD BLOCK", "OF")
    for each in found:
        now = "" if each.now is None else format_ratio(each.now)
        suggested = "none" if each.suggested is None else format_ratio(each.suggested)
        shown.add_row(each.category, each.signal, now, suggested, f"{each.blocked:,}", f"{each.scored:,}")
    output.print(shown)
    for each in found:
        if why := _why_none(each, max_block_rate):
            note(f"{each.category}, {each.signal}: {why}")
    if found and all(each.is_log_too_small for each in found):
        raise NotFound(f"the log is too small for {max_block_rate}: a signal needs {found[0].needed:,} scores of it")


def _why_none(each: Suggestion, rate: str) -> str:
    if each.is_log_too_small:
        return f"{each.scored:,} decisions have a score of it, and for {rate} it takes {each.needed:,}"
    if each.suggested is None:
        return f"more than {rate} of the decisions have a score of 100%"
    return ""


def _read_evidence(reader: SqliteDecisionReader, decisions: int) -> Iterator[Evidence]:
    """Yield evidence, newest first, of SCANNED_PER_DECISION decisions for each that is wanted."""
    before, room = None, decisions * SCANNED_PER_DECISION
    while room > 0:
        page = asyncio.run(reader.newest(before=before, limit=min(PAGE_ROWS, room)))
        if not page:
            return
        for row in page:
            yield decode_record(row.record).evidence
        before, room = page[-1].sequence, room - len(page)


def _ask_sidecar(file: Path, url: str, decisions: int, gate: Mapping[str, Any] | None) -> dict[str, Any]:
    draft, (namespace, name) = _read_draft(file)
    body: dict[str, Any] = {"policy": draft.policy, "contents": list(draft.contents), "decisions": decisions}
    with Client(url, os.environ.get(KEY_VARIABLE, "")) as client:
        return client.post(f"/v1/policies/{namespace}.{name}/simulate", body | ({"gate": gate} if gate else {}))


def _ask_state(
    file: Path, state: Path, models: tuple[Model, ...], decisions: int, gate: BacktestGate | None
) -> dict[str, Any]:
    draft, key = _read_draft(file)
    found = asyncio.run(_simulate(draft, key, state, models, decisions, gate))
    answer: dict[str, Any] = msgspec.to_builtins(found)
    return answer


async def _simulate(
    draft: Draft,
    key: tuple[str, str],
    state: Path,
    models: tuple[Model, ...],
    decisions: int,
    gate: BacktestGate | None,
) -> object:
    """Compare with what was last in force, as the sidecar whose folder it is would."""
    database = StateFolder(state).database
    store = SqliteRevisionStore(database, read_only=True)
    with ThreadPoolExecutor(1) as executor, closing(SqliteDecisionReader(database)) as reader:
        rows = {row.policy: row for row in await store.last_active() if row.digest}
        row = rows.get("/".join(key))
        if row is None:
            raise NotFound(f"policy {'/'.join(key)} is not in force; on record are {', '.join(sorted(rows)) or 'none'}")
        loader = PolicyLoader(store, frozenset, executor=executor)
        loaded = await loader.load(Identity(key=key, digest=row.digest, version=row.version))
        status = PolicyStatus(
            namespace=key[0], name=key[1], version=row.version, digest=row.digest, standing=Standing.CURRENT
        )
        snapshot = PolicySnapshot(policies=(loaded,), statuses=(status,))
        simulate = Simulate(
            lambda: snapshot,
            lambda: models,
            reader,
            store,
            executor=executor,
            monotonic_seconds=time.monotonic,
            page_rows=PAGE_ROWS,
            limit_seconds=LIMIT_SECONDS,
        )
        return to_simulation_answer(await simulate.run(".".join(key), draft, decisions=decisions, gate=gate))


def _read_draft(file: Path) -> tuple[Draft, tuple[str, str]]:
    """Read the one policy of a file, and what its lists are in.

    Raises:
        PolicyError: it cannot be read, or has not one policy.
    """
    documents = read_documents(file)
    found = sort_documents(documents)
    if documents.problems or found.problems:
        raise PolicyError((*documents.problems, *found.problems))
    if len(found.policies) != 1:
        raise PolicyError(f"{file} has {len(found.policies)} policies; name a file with one")
    ((key, policy),) = found.policies.items()
    contents = tuple(each.body for each in documents.documents if each.body.get("kind") in ("ConfigMap", "Secret"))
    return Draft(policy=policy, contents=contents), key


def _read_rate(option: str, text: str) -> int:
    try:
        return parse_ratio(text)
    except ValueError as exc:
        raise ContentError([Problem(field=option, message=str(exc))]) from None
