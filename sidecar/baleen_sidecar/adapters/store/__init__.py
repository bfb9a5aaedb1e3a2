"""Everything that must survive a restart, in one SQLite file: decisions, revisions, lists and what was in force.

SQL, its schema and its migrations live here and nowhere else. No use case, and no rule about decisions, belongs here.
"""

from baleen_sidecar.adapters.store.chain_rows import read_head, verify_log
from baleen_sidecar.adapters.store.copies import Copies
from baleen_sidecar.adapters.store.decision_log import SqliteDecisionLog
from baleen_sidecar.adapters.store.decision_reader import SqliteDecisionReader
from baleen_sidecar.adapters.store.erasure import erase_subject
from baleen_sidecar.adapters.store.migration import migrate, schema_sql
from baleen_sidecar.adapters.store.revision_store import SqliteRevisionStore
from baleen_sidecar.adapters.store.spool import SqliteSpool
from baleen_sidecar.adapters.store.state_folder import StateFolder

__all__ = [
    "Copies",
    "SqliteDecisionLog",
    "SqliteDecisionReader",
    "SqliteRevisionStore",
    "SqliteSpool",
    "StateFolder",
    "erase_subject",
    "migrate",
    "read_head",
    "schema_sql",
    "verify_log",
]
