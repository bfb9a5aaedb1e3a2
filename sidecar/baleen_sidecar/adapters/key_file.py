"""API keys from a file that somebody else writes: a mounted Secret, or one that `baleen keys create` adds to."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from baleen_core.api_keys import ApiKey, ApiKeys, KeyList, parse_key_list, redact
from baleen_core.errors import InvalidError
from baleen_sidecar.adapters.followed_file import MAX_FILE_BYTES as MAX_FILE_BYTES
from baleen_sidecar.adapters.followed_file import FollowedFile, in_file, read_document, read_file_text

EXPECTED: Final = "a mapping with the list `keys`"


class KeyFile(FollowedFile[ApiKeys]):
    """The good keys: what the file said when it was last in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _read_keys, nothing=ApiKeys(), name="api-keys", what="API keys", noun="keys")


def read_key_list(path: Path) -> KeyList:
    """Read a file of keys.

    Raises:
        InvalidError: everything that is wrong with it; none of it shows a key.
    """
    return _parse(read_file_text(path), path)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read the keys of a file; see `read_key_list`."""
    return read_key_list(path).keys


def _read_keys(text: str, path: Path) -> ApiKeys:
    return ApiKeys(_parse(text, path).keys)


def _parse(text: str, path: Path) -> KeyList:
    try:
        document = read_document(text, path, EXPECTED)
    except InvalidError as exc:
        # What is no YAML may be a key.
        raise InvalidError(replace(each, message=redact(each.message)) for each in exc.problems) from None
    try:
        return parse_key_list(document)
    except InvalidError as exc:
        raise in_file(path, exc) from None
