BEGIN;

CREATE TABLE versions (
    number INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    agent TEXT NOT NULL,
    kind TEXT NOT NULL,
    identifier TEXT NOT NULL,
    digest BLOB NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (account, agent, kind, identifier)
);

CREATE TABLE schema_names (
    version INTEGER NOT NULL REFERENCES versions,
    name TEXT NOT NULL,
    PRIMARY KEY (version, name)
) WITHOUT ROWID;

CREATE TABLE instances (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    status TEXT NOT NULL,
    agent_version INTEGER NOT NULL REFERENCES versions,
    schema_version INTEGER NOT NULL REFERENCES versions,
    registration BLOB NOT NULL,
    registered_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    termination_reason TEXT
);

CREATE TABLE qualities (
    instance_id TEXT NOT NULL REFERENCES instances (id),
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (instance_id, name)
) WITHOUT ROWID;

CREATE TABLE spans (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    instance_id TEXT NOT NULL REFERENCES instances (id),
    parent_span_id TEXT,
    schema_name TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    payload BLOB NOT NULL,
    result_payload BLOB
);

-- With the status in it, the spans of a run are counted without reading a payload.
CREATE INDEX spans_by_instance ON spans (instance_id, status);

-- Successes by idempotency key: a repeat of the same request is answered from here.
CREATE TABLE keys (
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    reply BLOB NOT NULL,
    PRIMARY KEY (account, key)
) WITHOUT ROWID;

-- Append-only: everything that took place, in the order in which it did.
CREATE TABLE effects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    account TEXT NOT NULL,
    type TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    span_id TEXT,
    key TEXT NOT NULL
);

PRAGMA user_version = 2;

COMMIT;
