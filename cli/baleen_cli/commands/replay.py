"""`baleen replay`: make a decision once more from the decision log."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from baleen_cli.commands.log import DatabaseOption, choose_database
from baleen_cli.console import lines
from baleen_core.errors import IntegrityError
from baleen_core.records import encode
from baleen_sidecar.adapters.store import (
    Database,
    DecisionReader,
    PostgresDecisionReader,
    PostgresRevisionStore,
    SqliteDecisionReader,
    SqliteRevisionStore,
    StateFolder,
)
from baleen_sidecar.usecases.read_decisions import ReadDecisions, Replay

StateOption = Annotated[Path, typer.Option("--state", envvar="BALEEN_STATE", help="Folder of the decision log")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one answer a line")]


def replay(
    context: typer.Context,
    decision_id: str,
    state: StateOption = Path(".state"),
    database: DatabaseOption = None,
    as_json: Json = False,
) -> None:
    """Make a decision once more from its record alone; the sidecar may run or not.

    Exit status 1 and the differences, if it does not come out the same bit for bit.
    """
    made = asyncio.run(_replay(state, choose_database(context, database), decision_id))
    if as_json:
        lines([encode(made.again).decode()])
    if made.differences:
        raise IntegrityError(
            f"decision {decision_id}: {'; '.join(made.differences)}",
            expected=made.record.decision.decision.value,
            found=made.again.decision.value,
        )
    if not as_json:
        lines([f"{decision_id} is {made.again.decision.value}, bit for bit as on record ({made.record.time})"])


async def _replay(state: Path, database: Path | None, decision_id: str) -> Replay:
    with ExitStack() as stack:
        reader: DecisionReader
        store: SqliteRevisionStore | PostgresRevisionStore
        if database is None:
            path = StateFolder(state).database
            reader, store = SqliteDecisionReader(path), SqliteRevisionStore(path, read_only=True)
        else:
            found = Database(database)
            reader, store = PostgresDecisionReader(found), PostgresRevisionStore(found)
        stack.callback(reader.close)
        stack.callback(store.close)
        return await ReadDecisions(reader, store, frozenset).replay(decision_id)
