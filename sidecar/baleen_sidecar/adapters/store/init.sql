-- The schema of Baleen's store, as the migrations make it; a file made from this needs no migration.
-- Written by schema_sql(), compared with it by a test; change schema.py and add a migration instead.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE decisions (
    sequence INTEGER NOT NULL,
    id TEXT NOT NULL,
    time TEXT NOT NULL,
    content_digest TEXT NOT NULL,
    decision TEXT NOT NULL,
    author TEXT,
    surface TEXT,
    record BLOB NOT NULL, origin TEXT, personal BLOB, salt BLOB, personal_digest BLOB, keep_days INTEGER, link BLOB, writer INTEGER, number BIGINT,
    PRIMARY KEY (sequence),
    UNIQUE (id)
);

CREATE TABLE revisions (
    digest TEXT NOT NULL,
    policy TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (digest)
);

CREATE TABLE lists (
    digest TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (digest)
);

CREATE TABLE activations (
    sequence INTEGER NOT NULL,
    policy TEXT NOT NULL,
    digest TEXT NOT NULL,
    version TEXT NOT NULL,
    time TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (sequence)
);

CREATE INDEX activations_by_policy ON activations (policy, sequence);

CREATE TRIGGER activations_refuse_update BEFORE UPDATE ON activations BEGIN SELECT RAISE(ABORT, 'activations are append-only'); END;

CREATE TRIGGER activations_refuse_delete BEFORE DELETE ON activations BEGIN SELECT RAISE(ABORT, 'activations are append-only'); END;

CREATE TRIGGER revisions_refuse_update BEFORE UPDATE ON revisions BEGIN SELECT RAISE(ABORT, 'revisions are immutable'); END;

CREATE TRIGGER lists_refuse_update BEFORE UPDATE ON lists BEGIN SELECT RAISE(ABORT, 'lists are immutable'); END;

CREATE TABLE spool (
    id INTEGER NOT NULL,
    shipped BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX decisions_by_age ON decisions (keep_days, time);

CREATE TABLE chain (
    id INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    link BLOB NOT NULL, writer TEXT,
    PRIMARY KEY (id)
);

CREATE TABLE dropped_decisions (
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL, writer INTEGER, number BIGINT,
    PRIMARY KEY (sequence)
);

CREATE TABLE gaps (
    sequence INTEGER NOT NULL,
    last BIGINT NOT NULL,
    PRIMARY KEY (sequence)
);

CREATE TABLE idempotency_keys (
    id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    decision_id TEXT NOT NULL,
    time BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX idempotency_keys_by_time ON idempotency_keys (time);

CREATE TABLE rescan_debts (
    decision_id TEXT NOT NULL,
    time TEXT NOT NULL,
    risk INTEGER NOT NULL,
    models TEXT NOT NULL,
    content TEXT NOT NULL,
    size INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    due BIGINT NOT NULL,
    claim TEXT NOT NULL, failed_reads INTEGER DEFAULT '0' NOT NULL,
    PRIMARY KEY (decision_id)
);

CREATE INDEX rescan_debts_by_turn ON rescan_debts (risk, time);

CREATE TABLE decision_changes (
    sequence INTEGER NOT NULL,
    decision_id TEXT NOT NULL,
    rescan_of TEXT NOT NULL,
    was TEXT NOT NULL,
    became TEXT NOT NULL,
    time TEXT NOT NULL,
    tenant TEXT,
    PRIMARY KEY (sequence)
);

INSERT INTO alembic_version (version_num) VALUES ('0007');
