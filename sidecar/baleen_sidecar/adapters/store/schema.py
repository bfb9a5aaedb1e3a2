"""The tables, in SQLAlchemy's dialect-neutral words; the migrations lead to exactly this.

Every change here needs a migration beside it: a test compares the two.
"""

from typing import Final

from sqlalchemy import DDL, BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, event

SCHEMA_VERSION: Final = "0004"
"""The newest migration. Versions are four digits, so that they order as text."""

metadata = MetaData()

_Sequence = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column that is called INTEGER."""

decisions = Table(
    "decisions",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("time", Text, nullable=False),
    # No index on digest or author: each of their values lands on a page of its own, which every commit would write.
    Column("content_digest", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("author", Text),
    Column("surface", Text),
    Column("record", LargeBinary, nullable=False),
    Column("origin", Text),
    Column("personal", LargeBinary),
    Column("salt", LargeBinary),
    Column("personal_digest", LargeBinary),
    Column("keep_days", Integer),
    Column("link", LargeBinary),
    Index("decisions_by_age", "keep_days", "time"),
)
"""One row a decision. `record` is the DecisionRecord as JSON; most other columns repeat what is searched by.

`origin` is who sent it, as namespace/ServiceAccount/replica; NULL where this process decided. `link`, `salt` and the
rest are those of baleen_core.decision_chain; a row with a link has its PersonalPart in `personal` and not in `record`.
`personal_digest` is set once that was erased: then it stands for `personal` and `salt`, which are NULL, or is empty
where the row is in no chain. A row without a link is in a spool, or was there before the chain.
"""

chain = Table(
    "chain",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("link", LargeBinary, nullable=False),
)
"""One row: the chain begins after the row in `sequence`, whose link is `link`; moved on when retention drops rows."""

dropped_decisions = Table(
    "dropped_decisions",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
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
    Column("digest", Text, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("content", Text, nullable=False),
)
"""Immutable policy content by its digest; `policy` is the first policy that had it."""

lists = Table(
    "lists",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("content", Text, nullable=False),
)
"""A list's canonical text by its digest."""

activations = Table(
    "activations",
    metadata,
    Column("sequence", _Sequence, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("time", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("activations_by_policy", "policy", "sequence"),
)
"""What was in force, when and why: append-only, in the order of `sequence`."""

_REFUSALS: Final = (
    ("activations", "UPDATE", "activations are append-only"),
    ("activations", "DELETE", "activations are append-only"),
    ("revisions", "UPDATE", "revisions are immutable"),
    ("lists", "UPDATE", "lists are immutable"),
)

for _table, _verb, _reason in _REFUSALS:
    _trigger = DDL(  # type: ignore[no-untyped-call]
        f"CREATE TRIGGER {_table}_refuse_{_verb.lower()} BEFORE {_verb} ON {_table} "
        f"BEGIN SELECT RAISE(ABORT, '{_reason}'); END"
    )
    event.listen(metadata.tables[_table], "after_create", _trigger.execute_if(dialect="sqlite"))
