"""What is written in one transaction with decisions: idempotency keys, debts of second looks, what these changed.

Each kind goes by one statement a group, whose parameter is a JSON document: both databases read that quickly.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from baleen_sidecar.adapters.store.any_text import escape
from baleen_sidecar.adapters.store.connection import Connection, Rows
from baleen_sidecar.adapters.store.group_writer import Waiting
from baleen_sidecar.adapters.store.postgres import ORDER_LOCK, WAIT_FOR_LOCK, PostgresConnection
from baleen_sidecar.ports import KEY_SECONDS, Beside, Debt

_ENCODE: Final = msgspec.json.Encoder().encode

_KEY_COLUMNS: Final = ("id", "fingerprint", "decision_id", "time")
_DEBT_COLUMNS: Final = ("decision_id", "time", "risk", "models", "content", "size", "tries", "due", "claim")
_NUMBERS: Final = frozenset({"risk", "size", "tries"})
_LARGE_NUMBERS: Final = frozenset({"due"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """How a database reads rows out of a JSON document, and which texts it can hold."""

    rows: Callable[[Sequence[str], frozenset[str]], str]
    values: str
    text: Callable[[str], str]
    run: Callable[[Any, str, str], Rows]
    """Runs a statement whose parameter is a document with texts in that form."""
    is_shared: bool


def _rows_of_sqlite(columns: Sequence[str], large: frozenset[str]) -> str:
    # Without a condition, ON CONFLICT would be read as one of a join.
    found = ", ".join(f"json_extract(value, '$.{name}')" for name in columns)
    return f"SELECT {found} FROM json_each(?) WHERE true"  # noqa: S608 - of our own names


def _rows_of_postgres(columns: Sequence[str], large: frozenset[str]) -> str:
    def kind(name: str) -> str:
        return "bigint" if name in large else "integer" if name in _NUMBERS else "text"

    typed = ", ".join(f"{name} {kind(name)}" for name in columns)
    return f"SELECT {', '.join(columns)} FROM json_to_recordset(CAST(? AS json)) AS row({typed})"  # noqa: S608 - of our own names


def _run_in_sqlite(connection: Connection, sql: str, document: str) -> Rows:
    return connection.execute(sql, (document,))


def _run_in_postgres(connection: PostgresConnection, sql: str, document: str) -> Rows:
    return connection.execute_escaped(sql, (document,))


SQLITE: Final = _Dialect(
    rows=_rows_of_sqlite,
    values="SELECT value FROM json_each(?)",
    text=lambda text: text,
    run=_run_in_sqlite,
    is_shared=False,
)
POSTGRES: Final = _Dialect(
    rows=_rows_of_postgres,
    values="SELECT json_array_elements_text(CAST(? AS json))",
    text=escape,
    run=_run_in_postgres,
    is_shared=True,
)

_PUT_KEYS: Final = (
    "INSERT INTO idempotency_keys (id, fingerprint, decision_id, time) {rows} ORDER BY 1 "
    "ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, decision_id = excluded.decision_id, "
    f"time = excluded.time WHERE idempotency_keys.time <= excluded.time - {KEY_SECONDS} RETURNING id"
)
_FIND_KEYS: Final = "SELECT id, decision_id FROM idempotency_keys WHERE id IN ({values})"
_PUT_DEBTS: Final = (
    "INSERT INTO rescan_debts (decision_id, time, risk, models, content, size, tries, due, claim) {rows} "
    "ON CONFLICT (decision_id) DO NOTHING"
)
_SETTLE: Final = "DELETE FROM rescan_debts WHERE decision_id = ? AND claim = ? RETURNING decision_id"
_FIND_DECISION: Final = "SELECT 1 FROM decisions WHERE id = ?"
_PUT_CHANGE: Final = (
    "INSERT INTO decision_changes (decision_id, rescan_of, was, became, time, tenant) VALUES (?, ?, ?, ?, ?, ?)"
)
_FORGET_KEYS: Final = "DELETE FROM idempotency_keys WHERE decision_id IN ({values})"
_FORGET_DEBTS: Final = "DELETE FROM rescan_debts WHERE decision_id IN ({values})"
_FIND_OLD_KEY: Final = "SELECT 1 FROM idempotency_keys WHERE time <= ? LIMIT 1"
_DROP_KEYS: Final = (
    "DELETE FROM idempotency_keys WHERE id IN (SELECT id FROM idempotency_keys WHERE time <= ? ORDER BY time LIMIT ?)"
)
# The newest stays, so that a file goes on with its numbers.
_FIND_OLD_CHANGE: Final = (
    "SELECT time FROM decision_changes WHERE sequence < (SELECT max(sequence) FROM decision_changes) "
    "ORDER BY sequence LIMIT 1"
)
_DROP_CHANGES: Final = (
    "DELETE FROM decision_changes WHERE sequence IN (SELECT sequence FROM decision_changes WHERE time < ? "
    "AND sequence < (SELECT max(sequence) FROM decision_changes) ORDER BY sequence LIMIT ?)"
)


def admit(connection: Connection, group: Sequence[Waiting], dialect: _Dialect) -> list[Waiting]:
    """Put keys there and take debts out; return the decisions that may follow, and tell the others that they may not.

    In the transaction that is under way. What an earlier try of the same decision has put there does not keep it from
    following.
    """
    for waiting in group:
        waiting.is_taken = False
    _admit_keys(connection, group, dialect)
    for waiting in group:
        if waiting.beside is not None and waiting.beside.settles is not None and not waiting.is_taken:
            waiting.is_taken = not _settle(connection, waiting, waiting.beside.settles)
    return [waiting for waiting in group if not waiting.is_taken]


def _admit_keys(connection: Connection, group: Sequence[Waiting], dialect: _Dialect) -> None:
    firsts: dict[str, Waiting] = {}
    written = []
    for waiting in group:
        key = None if waiting.beside is None else waiting.beside.key
        if key is None:
            continue
        if firsts.setdefault(key.id, waiting) is not waiting:
            waiting.is_taken = True
            continue
        values = (key.id, key.fingerprint, dialect.text(waiting.row.id), key.time_seconds)
        written.append(dict(zip(_KEY_COLUMNS, values, strict=True)))
    if not written:
        return
    rows = dialect.rows(_KEY_COLUMNS, frozenset({"time"}))
    now_there = {found for (found,) in dialect.run(connection, _PUT_KEYS.format(rows=rows), _document(written))}
    if others := firsts.keys() - now_there:
        found = dialect.run(connection, _FIND_KEYS.format(values=dialect.values), _document(sorted(others)))
        decided = dict(found.fetchall())
        for key_id in others:
            firsts[key_id].is_taken = decided.get(key_id) != firsts[key_id].row.id


def _settle(connection: Connection, waiting: Waiting, debt: Debt) -> bool:
    if connection.execute(_SETTLE, (debt.decision_id, debt.claim)).fetchone() is not None:
        return True
    return connection.execute(_FIND_DECISION, (waiting.row.id,)).fetchone() is not None


def put(connection: Connection, group: Iterable[Waiting], dialect: _Dialect) -> None:
    """Put debts and changes there, of decisions that are new on record; in the transaction that is under way."""
    written: list[tuple[Waiting, Beside]] = [(each, each.beside) for each in group if each.is_new and each.beside]
    debts = [_debt_row(beside.debt, dialect) for each, beside in written if beside.debt is not None and not each.error]
    if debts:
        rows = dialect.rows(_DEBT_COLUMNS, _LARGE_NUMBERS)
        dialect.run(connection, _PUT_DEBTS.format(rows=rows), _document(debts))
    changes = [beside.change for each, beside in written if beside.change is not None and not each.error]
    if changes and dialect.is_shared:
        # Numbered in the order of their commits: who reads up to one must not miss another that comes below it.
        connection.execute(WAIT_FOR_LOCK, (ORDER_LOCK,))
    for change in changes:
        values = (change.decision_id, change.rescan_of, change.was.value, change.became.value, change.time)
        connection.execute(_PUT_CHANGE, (*values, change.tenant))


def _debt_row(debt: Debt, dialect: _Dialect) -> dict[str, Any]:
    values = (
        dialect.text(debt.decision_id),
        debt.time,
        debt.risk,
        write_models(debt.models),
        dialect.text(_ENCODE(debt.content).decode()),
        debt.content.size_bytes,
        debt.tries,
        0,
        debt.claim,
    )
    return dict(zip(_DEBT_COLUMNS, values, strict=True))


def write_models(models: Iterable[str]) -> str:
    """Write the names of models as a column has them: no name has a space."""
    return " ".join(sorted(models))


def forget(connection: Connection, decision_ids: Sequence[str], dialect: _Dialect) -> None:
    """Take out the content, and the fingerprints of requests, of decisions that are erased."""
    forget_keys(connection, decision_ids, dialect)
    forget_debts(connection, decision_ids, dialect)


def forget_debts(connection: Connection, decision_ids: Iterable[str], dialect: _Dialect) -> None:
    """Take out the content of decisions that are dropped; their keys are older than any that count."""
    document = _document([dialect.text(each) for each in decision_ids])
    dialect.run(connection, _FORGET_DEBTS.format(values=dialect.values), document)


def forget_keys(connection: Connection, decision_ids: Iterable[str], dialect: _Dialect) -> None:
    """Let go of the keys that were answered with these decisions."""
    document = _document([dialect.text(each) for each in decision_ids])
    dialect.run(connection, _FORGET_KEYS.format(values=dialect.values), document)


def has_old(connection: Connection, *, keys_to: int, changes_before: str) -> bool:
    """Say whether there are keys up to a time (Unix seconds), or changes of before one (RFC 3339, UTC)."""
    if connection.execute(_FIND_OLD_KEY, (keys_to,)).fetchone() is not None:
        return True
    oldest = connection.execute(_FIND_OLD_CHANGE).fetchone()
    return oldest is not None and oldest[0] < changes_before


def drop_old(connection: Connection, *, keys_to: int, changes_before: str, limit: int) -> int:
    """Delete up to `limit` of such keys, and such changes; say how many keys it were."""
    connection.execute(_DROP_CHANGES, (changes_before, limit))
    return connection.execute(_DROP_KEYS, (keys_to, limit)).rowcount


def _document(values: Sequence[object]) -> str:
    return _ENCODE(values).decode()
