"""`baleen keys`: make API keys, and the file that a server knows them by."""

import os
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from baleen_cli.console import lines, note
from baleen_core.api_keys import (
    CHANCE_BYTES,
    ApiKey,
    KeyList,
    KeyRole,
    hash_key,
    make_key,
    parse_keys,
    render_key_list,
)
from baleen_core.errors import InvalidError, Problem, StateError
from baleen_sidecar.adapters.key_file import read_key_list

app = typer.Typer(help="Make API keys.", no_args_is_help=True)
_DAYS: Final = re.compile(r"(\d{1,5})d")
_LIMIT: Final = re.compile(r"(\d{1,12})/([A-Za-z]+)(?::(\d{1,12}))?")


@app.callback()
def keys() -> None:
    """Make API keys."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will call with it; two keys of one name change places")],
    tenant: Annotated[str | None, typer.Option(help="The only tenant that it may speak for; any, if left out")] = None,
    role: Annotated[list[KeyRole] | None, typer.Option(help="What it may do; several may be given")] = None,
    expire: Annotated[str | None, typer.Option(help="When it ends: 2027-01-31T18:00:00Z, or 90d from now")] = None,
    top_priority: Annotated[
        str | None, typer.Option(help="The highest priority that its requests may have: Low, Normal, High, Critical")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="How often it may ask, such as 50/Second, 50/Second:200 (200 at once), 100000/Day"),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="File of keys to add it to; made if it is not there")] = None,
) -> None:
    """Make a key, and print it this once; without --file also the entry for the file of keys.

    The file has hashes alone. It is written anew as YAML, for its owner's eyes, and replaced at once; comments go.
    """
    now = datetime.now(UTC)
    key = make_key(os.urandom(CHANCE_BYTES))
    entry: dict[str, Any] = {"name": name, "sha256": hash_key(key), "roles": list(role or [KeyRole.MODERATE])}
    if tenant is not None:
        entry["tenant"] = tenant
    if top_priority is not None:
        entry["topPriority"] = top_priority
    if limit:
        entry["limits"] = [_read_limit(each, f"limits[{index}]") for index, each in enumerate(limit)]
    if expire is not None:
        entry["expireTime"] = _read_expire(expire, now)
    made = _check(entry, now)
    if file is None:
        lines([key, _write(KeyList(keys=(made,))).rstrip()])
    else:
        _add(file, made)
        lines([key])
        note(f"added to {file}; the key itself is shown this once, and kept nowhere")


def _read_expire(text: str, now: datetime) -> str:
    days = _DAYS.fullmatch(text)
    return (now + timedelta(days=int(days[1]))).isoformat(timespec="seconds") if days else text


def _read_limit(text: str, field: str) -> dict[str, Any]:
    found = _LIMIT.fullmatch(text)
    if found is None:
        message = f"{text!r} is no limit; write one such as 50/Second, or 50/Second:200 for 200 at once"
        raise InvalidError([Problem(field=field, message=message)])
    burst = {} if found[3] is None else {"burst": int(found[3])}
    return {"requests": int(found[1]), "per": found[2], **burst}


def _check(entry: dict[str, Any], now: datetime) -> ApiKey:
    try:
        (made,) = parse_keys({"keys": [entry]})
    except InvalidError as exc:
        raise InvalidError(replace(each, field=each.field.removeprefix("keys[0].")) for each in exc.problems) from None
    if made.is_over(now.timestamp()):
        raise InvalidError([Problem(field="expireTime", message=f"{made.expire_time} has passed already")])
    return made


def _write(said: KeyList) -> str:
    return yaml.safe_dump(render_key_list(said), sort_keys=False)


def _add(file: Path, made: ApiKey) -> None:
    # A link stays, and what it leads to is replaced.
    path = file.resolve()
    known = read_key_list(path) if path.exists() else KeyList()
    text = _write(replace(known, keys=(*known.keys, made)))
    try:
        # By rename: a server must never read half of it. Such a file is its owner's alone from the start.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as beside:
            try:
                beside.write(text)
                beside.flush()
                os.fsync(beside.fileno())
                Path(beside.name).replace(path)
            except BaseException:
                Path(beside.name).unlink()
                raise
    except OSError as exc:
        raise StateError(f"{file} cannot be written: {exc.strerror}") from exc
