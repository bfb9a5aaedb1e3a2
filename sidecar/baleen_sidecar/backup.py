"""Backups of the gateways' state, `python -m baleen_sidecar.backup`: taken from outside, checked, pruned, put back."""

import argparse
import hashlib
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from baleen_core.decision_chain import Head
from baleen_core.errors import BaleenError, IntegrityError, InvalidError, UpstreamError
from baleen_core.policy_stream import REPLICA_HEADER, SHA256_HEADER, SNAPSHOT_PATH
from baleen_sidecar.adapters.store.copies import Contents, check_backup, check_chain, check_copy, restore, sums_of
from baleen_sidecar.adapters.store.state_folder import sync
from baleen_sidecar.adapters.token_file import TokenFile
from baleen_sidecar.flow.backups import find_outdated, name_of
from baleen_sidecar.logs import set_up_logging
from baleen_sidecar.settings import BackupSettings

logger = logging.getLogger("baleen_sidecar.backup")

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
CONNECT_SECONDS: Final = 10.0
MAX_SAID_BYTES: Final = 2000
REPLICA: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
"""What may be the name of a folder here, whoever says it."""
SHA256: Final = re.compile(r"[0-9a-f]{64}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    set_up_logging()
    given = _parser().parse_args(arguments)
    try:
        match given.command:
            case "take":
                settings = BackupSettings.from_env(os.environ)
                return take(settings, now=datetime.now(UTC))
            case "verify":
                contents = check_backup(given.file)
                head = check_chain(given.file, [Head.parse(each) for each in given.head])
                _say("the backup is in order", given.file, contents, head="" if head is None else str(head))
            case "restore":
                aside = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
                _say("restored", given.file, restore(given.file, given.state, replace=given.replace, aside=aside))
    except InvalidError as exc:
        for problem in exc.problems:
            logger.error("a setting is wrong", extra={"setting": problem.field, "problem": problem.message})
        return EXIT_SETTINGS
    except BaleenError as exc:
        logger.error("failed", extra={"reason": str(exc)})
        return EXIT_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m baleen_sidecar.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("take", help="take a backup of every gateway, as BALEEN_BACKUP_* say")
    for name, help in (("verify", "check a backup"), ("restore", "put a backup in the place of a state's database")):
        command = commands.add_parser(name, help=help)
        command.add_argument("file", type=Path, help="the backup, beside which its .sha256 is")
        if name == "verify":
            command.add_argument("--head", action="append", default=[], help="a head of the log that was noted before")
        if name == "restore":
            command.add_argument("--state", type=Path, default=Path("/state"), help="the state folder")
            command.add_argument("--replace", action="store_true", help="move a database that is there aside")
    return parser


def _say(event: str, path: Path, contents: Contents, **more: str) -> None:
    logger.info(event, extra={"file": str(path), "schema": contents.schema, "decisions": contents.decisions, **more})


def take(settings: BackupSettings, *, now: datetime) -> int:
    """Take a backup of each gateway in turn, and return the exit code: one that failed keeps no other from its own."""
    try:
        urls = find_gateways(settings.gateways)
    except OSError as exc:
        logger.error("no gateways were found", extra={"url": settings.gateways, "reason": str(exc)})
        return EXIT_FAILED
    token = TokenFile(settings.token_file)
    failed = 0
    timeout = httpx.Timeout(settings.timeout_seconds, connect=CONNECT_SECONDS)
    with httpx.Client(timeout=timeout, trust_env=False) as client:
        for url in urls:
            try:
                path, contents = take_one(client, url, token.read(), settings.folder, now)
                pruned = prune(path, settings.keep_days)
            except (BaleenError, OSError) as exc:
                failed += 1
                logger.error("a backup failed", extra={"url": url, "reason": str(exc)})
                continue
            said = {"url": url, "file": str(path), "decisions": contents.decisions, "pruned": list(pruned)}
            logger.info("a backup was taken", extra=said)
    return EXIT_FAILED if failed else 0


def find_gateways(url: str) -> tuple[str, ...]:
    """Return the address of each replica behind the name in `url`: a headless Service has one for each that is ready.

    Raises:
        OSError: the name has none.
    """
    parts = urlsplit(url)
    found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    hosts = sorted({str(address[4][0]) for address in found})
    return tuple(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or 80}" for host in hosts)


def take_one(client: httpx.Client, url: str, token: str, folder: Path, now: datetime) -> tuple[Path, Contents]:
    """Write the state of one gateway into its replica's folder; nothing of what is not whole and sound stays.

    Raises:
        UpstreamError: the gateway refused, or did not answer to the end. IntegrityError, StateError: what it sent is
        not what it promised, or damaged. OSError: the folder cannot be written.
    """
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with client.stream("GET", url + SNAPSHOT_PATH, headers=headers) as response:
            if response.status_code != 200:
                said = response.read()[:MAX_SAID_BYTES].decode(errors="replace")
                raise UpstreamError(f"status {response.status_code}: {said}")
            replica, sha256 = response.headers.get(REPLICA_HEADER, ""), response.headers.get(SHA256_HEADER, "")
            if not REPLICA.fullmatch(replica) or not SHA256.fullmatch(sha256):
                raise UpstreamError("the answer names no replica, or no SHA-256")
            path = folder / replica / name_of(now)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            part = path.with_name(f"{path.name}.part")
            try:
                return path, _write(response, part, path, sha256)
            finally:
                part.unlink(missing_ok=True)
    except httpx.HTTPError as exc:
        raise UpstreamError(str(exc) or type(exc).__name__) from exc


def _write(response: httpx.Response, part: Path, path: Path, sha256: str) -> Contents:
    found = hashlib.sha256()
    with part.open("wb") as file:
        for chunk in response.iter_raw(1 << 20):
            found.update(chunk)
            file.write(chunk)
    if found.hexdigest() != sha256:
        raise IntegrityError(str(path), expected=sha256, found=found.hexdigest())
    part.chmod(0o600)
    sync(part)
    contents = check_copy(part)
    sums_of(path).write_text(f"{sha256}  {path.name}\n", encoding="ascii")
    sync(sums_of(path))
    part.rename(path)
    sync(path.parent)
    return contents


def prune(newest: Path, keep_days: int) -> tuple[str, ...]:
    """Delete the backups of a replica that have had their time, now that there is a newer one; return their names."""
    outdated = find_outdated((each.name for each in newest.parent.iterdir()), newest.name, keep_days)
    for name in outdated:
        (newest.parent / name).unlink()
        sums_of(newest.parent / name).unlink(missing_ok=True)
    return outdated


if __name__ == "__main__":
    sys.exit(main())
