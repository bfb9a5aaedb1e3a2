"""Quotas from a file that somebody else writes, such as a mounted ConfigMap."""

from pathlib import Path
from typing import Final

from baleen_core.errors import InvalidError
from baleen_sidecar.adapters.followed_file import FollowedFile, in_file, read_document
from baleen_sidecar.flow.quotas import Quota, parse_quotas

EXPECTED: Final = "a mapping with the list `quotas`"


class QuotaFile(FollowedFile[tuple[Quota, ...]]):
    """The quotas: what the file said when it was last in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _read_quotas, nothing=(), name="quotas", what="quotas", noun="quotas")


def _read_quotas(text: str, path: Path) -> tuple[Quota, ...]:
    document = read_document(text, path, EXPECTED)
    try:
        return parse_quotas(document)
    except InvalidError as exc:
        raise in_file(path, exc) from None
