"""Canonical JSON (RFC 8785) and digests: equal content has equal bytes on every machine."""

import hashlib
from typing import Any

import rfc8785


def canonical_json(value: Any) -> bytes:
    """Write a JSON value in the one form that RFC 8785 allows.

    Raises:
        ValueError: the value holds something that JSON cannot, such as NaN or an integer beyond 2**53.
    """
    return rfc8785.dumps(value)


def digest_of(data: bytes) -> str:
    """Name bytes by their content: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
