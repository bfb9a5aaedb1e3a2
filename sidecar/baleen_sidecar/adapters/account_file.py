"""The ServiceAccounts that may call, from a file such as a mounted ConfigMap."""

from pathlib import Path
from typing import Final

from baleen_core.accounts import Accounts, parse_accounts
from baleen_core.errors import InvalidError
from baleen_sidecar.adapters.followed_file import FollowedFile, in_file, read_document

EXPECTED: Final = "a mapping with the list `accounts`"


class AccountFile(FollowedFile[Accounts]):
    """Those who may call: what the file said when it was last in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _read, nothing=Accounts(), name="accounts", what="ServiceAccounts", noun="accounts")


def _read(text: str, path: Path) -> Accounts:
    document = read_document(text, path, EXPECTED)
    try:
        return Accounts(parse_accounts(document))
    except InvalidError as exc:
        raise in_file(path, exc) from None
