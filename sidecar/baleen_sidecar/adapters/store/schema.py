"""The tables, in SQLAlchemy's dialect-neutral words; the migrations lead to exactly this.

Every change here needs a migration beside it: a test compares the two.
"""

from typing import Final

from sqlalchemy import DDL, BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, event

from baleen_sidecar.adapters.store.any_text import AnyText

SCHEMA_VERSION: Final = "0007"
"""The newest migration. Versions are four digits, so that they order as text."""

metadata = MetaData()

_Sequence = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column that is called INTEGER."""

decisions = Table(
    "decisions",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("id", AnyText, nullable=False, unique=True),
    Column("time", AnyText, nullable=False),
    # No index on digest or author: each of their values lands on a page of its own, which every commit would write.
    Column("content_digest", AnyText, nullable=False),
    Column("decision", AnyText, nullable=False),
    Column("author", AnyText),
    Column("surface", AnyText),
    Column("record", LargeBinary, nullable=False),
    Column("origin", AnyText),
    Column("personal", LargeBinary),
    Column("salt", LargeBinary),
    Column("personal_digest", LargeBinary),
    Column("keep_days", Integer),
    Column("link", LargeBinary),
    Column("writer", Integer),
    Column("number", BigInteger),
    Index("decisions_by_age", "keep_days", "time"),
    Index("decisions_by_number", "writer", "number", unique=True).ddl_if(dialect="postgresql"),
)
"""One row a decision. `record` is the DecisionRecord as JSON; most other columns repeat what is searched by.

`origin` is who sent it, as namespace/ServiceAccount/replica; NULL where this process decided. `link`, `salt` and the
rest are those of baleen_core.decision_chain; a row with a link has its PersonalPart in `personal` and not in `record`.
`personal_digest` is set once that was erased: then it stands for `personal` and `salt`, which are NULL, or is empty
where the row is in no chain. A row without a link is in a spool, or was there before the chain.

In a file, which has one chain, `sequence` is a row's place in it, and `writer` and `number` are NULL. In a database
that several write, `writer` is the `id` of a chain and `number` the place there; `sequence` orders the rows of all.
"""

chain = Table(
    "chain",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("link", LargeBinary, nullable=False),
    Column("writer", AnyText),
    Index("chain_by_writer", "writer", unique=True).ddl_if(dialect="postgresql"),
)
"""One row a chain, in a file one: the chain begins after the row in the place `sequence`, whose link is `link`.

That is moved on when retention drops rows. `writer` names who writes it; NULL in a file.
"""

dropped_decisions = Table(
    "dropped_decisions",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("writer", Integer),
    Column("number", BigInteger),
    Index("dropped_by_number", "writer", "number", unique=True).ddl_if(dialect="postgresql"),
)
"""Digests of rows that were dropped while older ones are kept; without them the chain could not be followed."""

gaps = Table(
    "gaps",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
"""Where the chain passes over rows that are in none, from after `sequence` to `last`: this was a spool for a while."""

spool = Table(
    "spool",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("shipped", BigInteger, nullable=False),
)
"""One row, in a sidecar that follows: its gateway has the decisions up to the `sequence` that is `shipped`."""

revisions = Table(
    "revisions",
    metadata,
    Column("digest", AnyText, primary_key=True),
    Column("policy", AnyText, nullable=False),
    Column("content", AnyText, nullable=False),
)
"""Immutable policy content by its digest; `policy` is the first policy that had it."""

lists = Table(
    "lists",
    metadata,
    Column("digest", AnyText, primary_key=True),
    Column("content", AnyText, nullable=False),
)
"""A list's canonical text by its digest."""

activations = Table(
    "activations",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("policy", AnyText, nullable=False),
    Column("digest", AnyText, nullable=False),
    Column("version", AnyText, nullable=False),
    Column("time", AnyText, nullable=False),
    Column("reason", AnyText, nullable=False),
    Index("activations_by_policy", "policy", "sequence"),
)
"""What was in force, when and why: append-only, in the order of `sequence`."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("fingerprint", AnyText, nullable=False),
    Column("decision_id", AnyText, nullable=False),
    Column("time", BigInteger, nullable=False),
    Index("idempotency_keys_by_time", "time"),
)
"""Which decision a request was answered with; the columns are those of ports.RequestKey, and `time` in Unix seconds."""

rescan_debts = Table(
    "rescan_debts",
    metadata,
    Column("decision_id", AnyText, primary_key=True),
    Column("time", AnyText, nullable=False),
    Column("risk", Integer, nullable=False),
    Column("models", AnyText, nullable=False),
    Column("content", AnyText, nullable=False),
    Column("size", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("claim", AnyText, nullable=False),
    Column("failed_reads", Integer, nullable=False, server_default="0"),
    Index("rescan_debts_by_turn", "risk", "time"),
)
"""Decisions that are owed another look, with the content that is to be looked at (JSON of ports.KeptContent).

`due` is in Unix seconds: nobody takes a row before. Whoever takes one writes a `claim` of his own, and a later `due`:
if he is gone by then, another one takes it. `tries` counts all who took it, `failed_reads` those who could not read the
content's address.
"""

decision_changes = Table(
    "decision_changes",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("decision_id", AnyText, nullable=False),
    Column("rescan_of", AnyText, nullable=False),
    Column("was", AnyText, nullable=False),
    Column("became", AnyText, nullable=False),
    Column("time", AnyText, nullable=False),
    Column("tenant", AnyText),
)
"""Decisions that a second look changed, in the order in which they came to be; the newest row is never deleted.

Without it a file would begin to number them anew.
"""

_REFUSALS: Final = (
    ("activations", "UPDATE", "activations are append-only"),
    ("activations", "DELETE", "activations are append-only"),
    ("revisions", "UPDATE", "revisions are immutable"),
    ("lists", "UPDATE", "lists are immutable"),
)

_FUNCTION: Final = (
    "CREATE FUNCTION baleen_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$BEGIN RAISE EXCEPTION '%%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END$$"
)
event.listen(metadata, "before_create", DDL(_FUNCTION).execute_if(dialect="postgresql"))  # type: ignore[no-untyped-call]

for _table, _verb, _reason in _REFUSALS:
    _before = f"CREATE TRIGGER {_table}_refuse_{_verb.lower()} BEFORE {_verb} ON {_table} "
    for _dialect, _act in (
        ("sqlite", f"BEGIN SELECT RAISE(ABORT, '{_reason}'); END"),
        ("postgresql", f"FOR EACH ROW EXECUTE FUNCTION baleen_refuse('{_reason}')"),
    ):
        _trigger = DDL(_before + _act)  # type: ignore[no-untyped-call]
        event.listen(metadata.tables[_table], "after_create", _trigger.execute_if(dialect=_dialect))
