"""Which revisions may go: nothing that can be in force again by a route, an Override or an edit that waits."""

from collections.abc import Collection, Iterable, Mapping

from baleen_operator.resources.policy import KeptRevision, Row


def find_prunable(
    revisions: Mapping[str, KeptRevision], rows: Iterable[Row], *, stable: str, needed: Collection[str], limit: int
) -> tuple[KeptRevision, ...]:
    """Return the old revisions beyond the limit, by their newest activation; `needed` digests stay, however old."""
    newest: dict[str, int] = {}
    for row in rows:
        newest[row.digest] = max(row.epoch, newest.get(row.digest, 0))
    old = [each for digest, each in revisions.items() if digest != stable]
    old.sort(key=lambda each: (-newest.get(each.digest, 0), each.name))
    return tuple(each for each in old[limit:] if each.digest not in needed)
