"""The history of what was in force: rows that live in the revisions they name, and the newest in the route.

Every row has an epoch of its own, higher than all before, so that their order needs no clock: a route's rows have the
route's epochs, and what an Override brings about takes the next one.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from baleen_core.resources import PublishedRoute
from baleen_operator.resources.policy import Row

APPLIED: Final = "Applied"
PROMOTED: Final = "Promoted"
RETURNED: Final = "Returned"
RESTORED: Final = "Restored"
UPDATED: Final = "Updated"
PINNED: Final = "Pinned"
REJECTED: Final = "Rejected"
ROLLED_BACK: Final = "RolledBack"
OVERRIDE_ENDED: Final = "OverrideEnded"
MAX_ACTIVATIONS: Final = 10
"""Rows that one revision keeps; the oldest go first."""

_NOT_ROUTED: Final = (PINNED, REJECTED, ROLLED_BACK)


def row_of(route: PublishedRoute) -> Row:
    """Return the row that stands in a route; what only its candidate changed is no new one."""
    return Row(
        epoch=route.stable_epoch or route.epoch,
        digest=route.route.stable,
        version=route.version,
        time=route.time,
        reason=route.reason,
        by=route.by,
        commit=route.commit,
        approved_by=route.approved_by,
    )


def merge_rows(*sources: Iterable[Row]) -> tuple[Row, ...]:
    """Return every row once, newest first; of two that are the same, that of the earlier source."""
    found: dict[tuple[int, str], Row] = {}
    for source in sources:
        for row in source:
            found.setdefault(row.identity, row)
    return tuple(sorted(found.values(), key=lambda row: (-row.epoch, row.digest)))


def next_epoch(rows: Iterable[Row], *, route_epoch: int | None, has_past: bool) -> int:
    """Return an epoch above all that ever were.

    Where a policy has a past and no route, the row that stood in the route may be gone with it: its epoch is left out.
    """
    newest = max((row.epoch for row in rows), default=0)
    return max(newest, route_epoch or 0) + (2 if route_epoch is None and has_past else 1)


def routed_digests(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return what was stable by the operator's own decision, newest first."""
    return tuple(dict.fromkeys(row.digest for row in rows if not row.reason.startswith(_NOT_ROUTED)))


def owed_rows(rows: Iterable[Row], kept: Mapping[str, Iterable[Row]]) -> dict[str, tuple[Row, ...]]:
    """Return what the rows of each revision (by digest) must become, oldest first, where that is not what they are."""
    owed = {}
    by_digest: dict[str, list[Row]] = {}
    for row in rows:
        by_digest.setdefault(row.digest, []).append(row)
    for digest, known in kept.items():
        before = tuple(known)
        wanted = merge_rows(before, by_digest.get(digest, ()))[:MAX_ACTIVATIONS][::-1]
        if wanted != before:
            owed[digest] = wanted
    return owed
