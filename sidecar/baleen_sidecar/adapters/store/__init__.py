"""Everything that must survive a restart: decisions, revisions, lists and what was in force.

It is in one SQLite file; decisions, and what they were made by, can be in a PostgreSQL database that gateways share.

SQL, its schema and its migrations live here and nowhere else. No use case, and no rule about decisions, belongs here.
"""

from baleen_sidecar.adapters.store.chain_rows import read_head, verify_log
from baleen_sidecar.adapters.store.copies import Copies
from baleen_sidecar.adapters.store.debts import PostgresDebts, SqliteDebts
from baleen_sidecar.adapters.store.decision_log import SqliteDecisionLog
from baleen_sidecar.adapters.store.decision_reader import DecisionReader, PostgresDecisionReader, SqliteDecisionReader
from baleen_sidecar.adapters.store.erasure import erase_subject
from baleen_sidecar.adapters.store.grouped_log import GroupedLog
from baleen_sidecar.adapters.store.migration import migrate, schema_sql
from baleen_sidecar.adapters.store.postgres import Database
from baleen_sidecar.adapters.store.postgres_log import (
    PostgresDecisionLog,
    VerifiedChain,
    erase_subject_of,
    read_heads,
    verify_database,
)
from baleen_sidecar.adapters.store.revision_store import PostgresRevisionStore, SqliteRevisionStore
from baleen_sidecar.adapters.store.shared_revisions import SharedRevisionStore
from baleen_sidecar.adapters.store.spool import SqliteSpool
from baleen_sidecar.adapters.store.state_folder import StateFolder

__all__ = [
    "Copies",
    "Database",
    "DecisionReader",
    "GroupedLog",
    "PostgresDebts",
    "PostgresDecisionLog",
    "PostgresDecisionReader",
    "PostgresRevisionStore",
    "SharedRevisionStore",
    "SqliteDebts",
    "SqliteDecisionLog",
    "SqliteDecisionReader",
    "SqliteRevisionStore",
    "SqliteSpool",
    "StateFolder",
    "VerifiedChain",
    "erase_subject",
    "erase_subject_of",
    "migrate",
    "read_head",
    "read_heads",
    "schema_sql",
    "verify_database",
    "verify_log",
]
