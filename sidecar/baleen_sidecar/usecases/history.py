"""The history of what was in force: a row for every change of it, with its reason, owed until it is written."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from baleen_core.decision.snapshot import Standing
from baleen_core.errors import BaleenError, Problem
from baleen_core.policy.in_force import Override
from baleen_sidecar.ports import Activation, Key, RevisionStore

APPLIED: Final = "Applied"
PINNED: Final = "Pinned"
REMOVED: Final = "Removed"
ROLLED_BACK: Final = "RolledBack"
MAX_KNOWN: Final = 1_000
"""Activations by which a policy's own revisions are known."""


def name_of(key: Key) -> str:
    """Write a policy's key as the history has it."""
    return "/".join(key)


async def known_digests(store: RevisionStore, key: Key) -> frozenset[str]:
    """Return the revisions that were in force here for a policy, of which the newest MAX_KNOWN times count.

    Raises:
        StateError: the store cannot be read now.
    """
    return frozenset(row.digest for row in await store.history(name_of(key), limit=MAX_KNOWN) if row.digest)


def key_of(row: Activation) -> Key:
    """Read the key of a row's policy."""
    namespace, _, name = row.policy.partition("/")
    return namespace, name


def activation(key: Key, digest: str, version: str, reason: str) -> Activation:
    """Make a row that has no time yet."""
    return Activation(policy=name_of(key), digest=digest, version=version, time="", reason=reason)


def reason_for(standing: Standing, digest: str, override: Override | None) -> str:
    """Say in a word, and with the words of whoever pinned it, why a revision came into force."""
    if standing is Standing.CURRENT:
        return APPLIED
    if override and override.pin and override.pin.digest == digest:
        return f"{PINNED}: {override.pin.reason}" if override.pin.reason else PINNED
    return ROLLED_BACK if override else standing.value


async def record(
    store: RevisionStore, owed: Iterable[Activation], *, now: datetime
) -> tuple[list[Activation], list[Problem]]:
    """Write rows; return those that could not be written, which are owed again, and why."""
    time = now.isoformat(timespec="milliseconds")
    unwritten, problems = [], []
    for row in owed:
        try:
            await store.record_activation(replace(row, time=time))
        except BaleenError as exc:
            unwritten.append(row)
            problems.append(Problem(field=row.policy, message=f"acts, but its history cannot be written: {exc}"))
    return unwritten, problems
