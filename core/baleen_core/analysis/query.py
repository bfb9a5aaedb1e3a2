"""A metric's query, as its author wrote it: which placeholders it has, and what stands in their place."""

import re
from typing import Final

MAX_QUERY_LENGTH: Final = 1024
CANDIDATE: Final = "$candidate"
STABLE: Final = "$stable"

_PLACEHOLDER: Final = re.compile(r"\$[A-Za-z_]\w*", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def check_query(query: str) -> None:
    """Refuse what cannot be asked; whether it is good PromQL, the server says.

    Raises:
        ValueError: it is empty, has characters that cannot be printed, or a placeholder that is none.
    """
    if not query.strip():
        raise ValueError("is empty; write a PromQL expression that gives one number")
    if not all(each.isprintable() or each in "\n\t" for each in query):
        raise ValueError("has characters that cannot be printed; take them out")
    for found in _PLACEHOLDER.findall(query):
        if found not in (CANDIDATE, STABLE):
            raise ValueError(f"{found} is no placeholder; there are {CANDIDATE} and {STABLE}")


def names_candidate(query: str) -> bool:
    """Say whether a query asks by the candidate's digest."""
    return CANDIDATE in _PLACEHOLDER.findall(query)


def fill_in(query: str, *, candidate: str, stable: str) -> str:
    """Put digests in the place of their placeholders, which stand between quotes.

    Raises:
        ValueError: one is no digest, and so might end the quotes.
    """
    digests = {CANDIDATE: candidate, STABLE: stable}
    for digest in digests.values():
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest[:80]!r} is no digest")
    return _PLACEHOLDER.sub(lambda found: digests.get(found[0], found[0]), query)
