"""API keys in a URL: never read, but for clients that can do nothing else, and there taken out before anybody looks."""

from typing import Final
from urllib.parse import unquote_to_bytes

DISCOVERY: Final = "/$discovery/rest"
ANALYZE: Final = "/v1alpha1/comments:analyze"
SUGGEST: Final = "/v1alpha1/comments:suggestscore"
KEY_IN_URL: Final = frozenset({DISCOVERY, ANALYZE, SUGGEST})
"""Paths that Google's clients ask, which put the key into the query."""
_NAME: Final = b"key"


def take_key(path: str, query: bytes) -> tuple[bytes, bytes]:
    """Return a query without its key, and the key; an empty one where there is none, or where none may be.

    What is left can be logged and passed on. Of several keys the first counts.
    """
    if path not in KEY_IN_URL or not query:
        return query, b""
    fields = [(field, *field.partition(b"=")[::2]) for field in query.split(b"&")]
    keys = [unquote_to_bytes(value) for _, name, value in fields if unquote_to_bytes(name) == _NAME]
    rest = b"&".join(field for field, name, _ in fields if unquote_to_bytes(name) != _NAME)
    return rest, keys[0] if keys else b""
