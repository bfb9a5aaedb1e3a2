"""Which ServiceAccounts of the cluster may call, and for what; that a caller is one of them, the API server says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from baleen_core.callers import Identity, RateLimit, read_rights, read_tenants
from baleen_core.errors import InvalidError, Problem
from baleen_core.reading import Reader, name, pattern, report_duplicates

MAX_ACCOUNTS: Final = 5_000
MAX_NAME_LENGTH: Final = 253

_account_name = pattern(
    "[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?",
    "a ServiceAccount's name; use lower-case letters, digits, '-' and '.'",
    max_length=MAX_NAME_LENGTH,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Identity):
    """A ServiceAccount that may call; its name is `namespace/name`."""

    kind: ClassVar[str] = "ServiceAccount"


class Accounts:
    """Finds those who may call."""

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._by_name: Mapping[str, Account] = {account.name: account for account in accounts}

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, namespace: str, name: str) -> Account | None:
        """Return what an account may do, if it may call at all."""
        return self._by_name.get(f"{namespace}/{name}")


def parse_accounts(document: object) -> tuple[Account, ...]:
    """Read what a file says: a mapping with the list `accounts`, and perhaps the list `tenants`.

    Raises:
        InvalidError: every problem, each with its entry (`accounts[2].namespace`).
    """
    problems: list[Problem] = []
    fields = Reader(document, "", problems)
    if not fields.has("accounts") and fields.is_mapping:
        fields.report("accounts", "is required; an empty list is that no ServiceAccount may call")
    entries = fields.mappings("accounts", limit=MAX_ACCOUNTS)
    tenants = read_tenants(fields)
    fields.done()
    accounts = tuple(_read_account(entry, tenants) for entry in entries)
    # Half a name is reported already.
    names = ["" if account.name.startswith("/") or account.name.endswith("/") else account.name for account in accounts]
    report_duplicates(entries, names, "name")
    if problems:
        raise InvalidError(problems)
    return accounts


def _read_account(entry: Reader, tenants: Mapping[str, tuple[RateLimit, ...]]) -> Account:
    namespace = entry.required("namespace", name, "")
    own = entry.required("name", _account_name, "")
    rights = read_rights(entry)
    entry.done()
    return Account(
        name=f"{namespace}/{own}",
        roles=rights.roles,
        tenant=rights.tenant,
        top_priority=rights.top_priority,
        limits=rights.limits,
        tenant_limits=tenants.get(rights.tenant or "", ()),
    )
