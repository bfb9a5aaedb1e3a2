"""`baleen log`: whether the decision log is as it was written, and erasure of people from it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from baleen_cli.console import lines
from baleen_core.decision_chain import ChainedRow, Fault, Head, Verification
from baleen_core.errors import IntegrityError, InvalidError, NotFound, Problem
from baleen_sidecar.adapters.store import (
    Database,
    StateFolder,
    erase_subject,
    erase_subject_of,
    read_head,
    read_heads,
    verify_database,
    verify_log,
)

app = typer.Typer(help="Verify the decision log, and erase people from it.", no_args_is_help=True)

StateOption = Annotated[Path, typer.Option("--state", envvar="BALEEN_STATE", help="Folder of the decision log")]
DatabaseOption = Annotated[
    Path | None,
    typer.Option(
        "--database",
        envvar="BALEEN_DATABASE_URL_FILE",
        help="File of the URL of the PostgreSQL database that has the decision log, instead of the folder",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one answer a line")]
DEFAULT_STATE = Path(".state")


def choose_database(context: typer.Context, database: Path | None) -> Path | None:
    """Return the database's file, or None for the state folder: what the command line names, before the environment.

    Raises:
        InvalidError: the command line names both.
    """
    if not _is_typed(context, "state"):
        return database
    if _is_typed(context, "database"):
        message = "stands beside --state; a log is in a folder or in a database: give one of them"
        raise InvalidError([Problem(field="--database", message=message)])
    return None


@app.callback()
def log() -> None:
    """Verify the decision log, and erase people from it."""


@app.command()
def verify(
    context: typer.Context,
    state: StateOption = DEFAULT_STATE,
    database: DatabaseOption = None,
    head: Annotated[
        list[str] | None, typer.Option(help="A head that was noted before: it must still be in the log; several may be")
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow the chain of the decision log from end to end; the sidecar may run or not.

    Exit status 1 and the first row that was altered, inserted or taken out, if the log is not as it was written. That
    its newest rows are gone, or that all of it was written anew, only a head shows that was noted elsewhere. In a
    database each gateway has a chain of its own, and all are followed.
    """
    database = choose_database(context, database)
    noted = [Head.parse(each) for each in head or ()]
    chains = (
        [("", verify_log(StateFolder(state).database, noted))]
        if database is None
        else [(each.writer, each.found) for each in verify_database(Database(database), noted)]
    )
    if as_json:
        for writer, found in chains:
            shown = _document(found) if database is None else {"writer": writer, **_document(found)}
            lines([json.dumps(shown, ensure_ascii=False)])
    for writer, found in chains:
        if found.fault is not None:
            whose = f"decision log of {writer}" if writer else "decision log"
            expected = f"the log as it was written, verified up to {found.head}"
            raise IntegrityError(f"{whose}: {found.fault.text}", expected=expected, found=found.fault.kind.value)
    if as_json:
        return
    if not chains:
        lines(["no chain: no gateway has written here yet"])
    for writer, found in chains:
        lines([*([f"{writer}:"] if writer else []), *_tell(found)])


@app.command()
def head(context: typer.Context, state: StateOption = DEFAULT_STATE, database: DatabaseOption = None) -> None:
    """Print the head of the decision log's chain, to be noted elsewhere, without following it; of a database, all."""
    database = choose_database(context, database)
    where = state if database is None else database
    heads = _heads(state) if database is None else read_heads(Database(database))
    if not heads:
        raise NotFound(f"{where}: no decision was put on record since the log has a chain")
    lines([str(each) for each in heads])


@app.command()
def erase(
    context: typer.Context,
    author: Annotated[str, typer.Argument(help="The author's id, as requests named it")],
    state: StateOption = DEFAULT_STATE,
    database: DatabaseOption = None,
    tenant: Annotated[str | None, typer.Option(help="Only decisions of this tenant")] = None,
) -> None:
    """Take the personal part out of every decision about an author; the sidecar may run or not.

    The chain holds, and the decisions stay, but for what could tell whom they are about; they can be replayed no more.
    """
    database = choose_database(context, database)
    erased = (
        erase_subject(StateFolder(state).database, author, tenant=tenant)
        if database is None
        else erase_subject_of(Database(database), author, tenant=tenant)
    )
    lines([f"erased from {_number(erased, 'decision')}"])


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    # By its name: some releases of typer have an enumeration of their own, others have click's.
    return source is not None and source.name == "COMMANDLINE"


def _heads(state: Path) -> list[Head]:
    found = read_head(StateFolder(state).database)
    return [] if found is None else [found]


def _tell(found: Verification) -> list[str]:
    if found.start.link == b"":
        return [f"no chain: {_number(found.outside, 'decision')} from before it, or in a spool"]
    told = [f"the log is as it was written: {_number(found.rows, 'decision')} in the chain"]
    if found.first is not None and found.last is not None:
        told.append(f"from {_name(found.first)} to {_name(found.last)}")
    if found.erased:
        told.append(f"personal part erased: {_number(found.erased, 'decision')}")
    if found.dropped:
        told.append(f"dropped by retention between others: {_number(found.dropped, 'decision')}")
    if found.outside:
        told.append(f"outside the chain, from before it or of a spool: {_number(found.outside, 'decision')}")
    told += [f"not to be checked any more, as retention dropped what was there: {each}" for each in found.passed_heads]
    return [*told, f"head {found.head}"]


def _document(found: Verification) -> dict[str, object]:
    return {
        "intact": found.fault is None,
        "decisions": found.rows,
        "erased": found.erased,
        "dropped": found.dropped,
        "outside": found.outside,
        "first": None if found.first is None else {"id": found.first.id, "time": found.first.time},
        "last": None if found.last is None else {"id": found.last.id, "time": found.last.time},
        "start": str(found.start),
        "head": str(found.head),
        "passed_heads": [str(each) for each in found.passed_heads],
        "fault": None if found.fault is None else _describe(found.fault),
    }


def _describe(fault: Fault) -> dict[str, object]:
    return {"kind": fault.kind.value, "place": fault.sequence, "id": fault.id, "time": fault.time, "text": fault.text}


def _name(row: ChainedRow) -> str:
    return f"{row.id} ({row.time})"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
