"""`baleen policy history` and `rollback`, and what is on record for the other commands of that group."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from baleen_cli.commands.policy import StateOption
from baleen_cli.console import lines, note, output, table
from baleen_core.errors import NotFound, PolicyError
from baleen_core.policy.in_force import parse_override
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import API_VERSION, RevisionContent
from baleen_core.records import DecisionRecord
from baleen_sidecar.adapters.resources import read_folder
from baleen_sidecar.adapters.store import SqliteDecisionReader, SqliteRevisionStore, StateFolder
from baleen_sidecar.ports import Activation
from baleen_sidecar.usecases.policy_documents import Documents, short, sort_documents

PoliciesOption = Annotated[Path, typer.Option("--policies", envvar="BALEEN_POLICIES", help="Folder that is served")]
Name = Annotated[str, typer.Argument(help="The policy's name, or namespace/name")]


def history(name: Name, state: StateOption = Path(".state"), limit: int = 10) -> None:
    """Show what was in force for a policy, newest first."""
    shown = table("TIME", "VERSION", "DIGEST", "REASON")
    for row in asyncio.run(_history(name, state, limit)):
        shown.add_row(row.time, row.version, row.digest, row.reason)
    output.print(shown)


def rollback(
    name: Name,
    to: Annotated[str | None, typer.Option(help="Digest (or its beginning) to pin; else what was before")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the history")] = "",
    policies: PoliciesOption = Path("policies"),
    state: StateOption = Path(".state"),
) -> None:
    """Go back to an earlier revision by writing a ModerationOverride into the served folder.

    It rejects what is in force now (or pins --to), so a later edit of the policy goes live as usual.
    """
    path, digest = write_override(name, to, reason, policies, state)
    lines([f"wrote {path}: {short(digest)} is in force in a moment; delete the file to take this back"])


def write_override(name: str, to: str | None, reason: str, policies: Path, state: Path) -> tuple[Path, str]:
    """Write the override that takes a policy back, and return its file and the digest that will be in force.

    Raises:
        NotFound: there is no such folder or policy, or nothing earlier to go back to.
        PolicyError: an override of it stands in another file, or is not valid.
    """
    if not policies.is_dir():
        raise NotFound(f"there is no folder {policies}; name the one that is served with --policies")
    rows = [row for row in asyncio.run(_history(name, state, 100)) if row.digest]
    namespace, plain = rows[0].policy.split("/", 1)
    path = policies / f"{namespace}.{plain}.override.yaml"
    spec = _existing_override(path, policies, (namespace, plain))
    if to is not None:
        digest = _one_of(to, [row.digest for row in rows])
        spec["reject"] = [each for each in spec.get("reject", ()) if each != digest]
        spec["pin"] = {"digest": digest, **({"reason": reason} if reason else {})}
    else:
        rejected = {*spec.get("reject", ()), rows[0].digest}
        digest = next((row.digest for row in rows if row.digest not in rejected), "")
        if not digest:
            raise NotFound(
                f"policy {name!r} has no earlier revision that is not rejected; there is nothing to go back to"
            )
        spec.pop("pin", None)
        spec["reject"] = sorted(rejected)
    body = {
        "apiVersion": API_VERSION,
        "kind": "ModerationOverride",
        "metadata": {"name": plain, "namespace": namespace},
        "spec": {field: value for field, value in spec.items() if value},
    }
    parse_override(body)
    # By rename: a sidecar that watches the folder must never read half of it.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    temporary.replace(path)
    return path, digest


def stored_revision(text: str, state: Path) -> RevisionContent:
    """Read the revision on record whose digest is, or begins with, `text`.

    Raises:
        NotFound: there is none, or several.
    """
    return asyncio.run(_stored_revision(text, state))


def recent_decisions(state: Path, limit: int) -> list[DecisionRecord]:
    """Read the last decisions on record, but for those that were erased: what they were made from is gone."""
    reader = SqliteDecisionReader(StateFolder(state).database)
    try:
        found = asyncio.run(reader.recent(limit=limit))
    finally:
        reader.close()
    whole = [record for record in found if not record.erased]
    if len(whole) < len(found):
        note(f"{len(found) - len(whole):,} of the last {len(found):,} decisions were erased, and are left out")
    return whole


def _existing_override(path: Path, policies: Path, key: tuple[str, str]) -> dict[str, Any]:
    for document in read_folder(policies).documents:
        if key not in sort_documents(Documents(documents=(document,))).overrides:
            continue
        if policies / document.file != path:
            raise PolicyError(f"the override of {'/'.join(key)} stands in {document.file}; edit that file")
        parse_override(document.body)
        return dict(document.body.get("spec") or {})
    return {}


async def _history(name: str, state: Path, limit: int) -> list[Activation]:
    store = SqliteRevisionStore(StateFolder(state).database, read_only=True)
    known = [row.policy for row in await store.last_active()]
    found = [policy for policy in known if name in (policy, policy.split("/", 1)[1])]
    if len(found) != 1:
        what = "is the name of several policies; give one of" if found else "is not on record; there are"
        raise NotFound(f"policy {name!r} {what} {', '.join(found or known) or 'none'}")
    return list(await store.history(found[0], limit=limit))


async def _stored_revision(text: str, state: Path) -> RevisionContent:
    store = SqliteRevisionStore(StateFolder(state).database, read_only=True)
    digests = {row.digest for each in await store.last_active() for row in await store.history(each.policy, limit=100)}
    revision = await store.get_revision(_one_of(text, sorted(digests - {""})))
    assert revision is not None, "what is in the history is in the store"
    return read_revision(revision)


def _one_of(text: str, digests: list[str]) -> str:
    found = sorted({each for each in digests if each.removeprefix("sha256:").startswith(text.removeprefix("sha256:"))})
    if len(found) != 1:
        what = "begins several digests" if found else "is neither a file nor a revision on record"
        raise NotFound(f"{text!r} {what}; there are {', '.join(found or digests) or 'none'}")
    return found[0]
