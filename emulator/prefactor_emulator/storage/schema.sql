BEGIN;

CREATE TABLE agents (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    external_identifier TEXT,
    owner_person_id TEXT,
    risk_profile_id TEXT,
    team_id TEXT,
    retired INTEGER NOT NULL DEFAULT 0,
    inserted_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (account, external_identifier)
);

CREATE INDEX agents_by_name ON agents (account, name);

-- What agents registered of themselves (kind agent_version) and of their spans (agent_schema_version).
CREATE TABLE versions (
    id TEXT NOT NULL UNIQUE,
    agent_id TEXT NOT NULL REFERENCES agents (id),
    kind TEXT NOT NULL,
    identifier TEXT NOT NULL,
    digest BLOB NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (agent_id, kind, identifier)
);

CREATE TABLE instances (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agents (id),
    environment_id TEXT NOT NULL,
    agent_deployment_id TEXT NOT NULL,
    agent_version_id TEXT NOT NULL REFERENCES versions (id),
    schema_version_id TEXT NOT NULL REFERENCES versions (id),
    status TEXT NOT NULL,
    external_identifier TEXT,
    purpose TEXT NOT NULL,
    registration BLOB NOT NULL,
    inserted_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    termination_reason TEXT,
    UNIQUE (agent_id, external_identifier)
);

CREATE TABLE qualities (
    instance_id TEXT NOT NULL REFERENCES instances (id),
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    summary TEXT,
    flags BLOB,
    PRIMARY KEY (instance_id, name)
) WITHOUT ROWID;

-- `flags`: a JSON list of texts, what does not fit the schemas that were registered; NULL: it fits.
CREATE TABLE spans (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    instance_id TEXT NOT NULL REFERENCES instances (id),
    parent_span_id TEXT,
    schema_name TEXT NOT NULL,
    schema_title TEXT,
    status TEXT NOT NULL,
    payload BLOB NOT NULL,
    result_payload BLOB,
    sensitive_encoding INTEGER NOT NULL,
    summary TEXT,
    flags BLOB,
    inserted_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT
);

-- With the status in it, the spans of a run are counted without reading a payload.
CREATE INDEX spans_by_instance ON spans (instance_id, status);
CREATE INDEX spans_by_schema ON spans (schema_name, instance_id);
CREATE INDEX spans_flagged ON spans (instance_id) WHERE flags IS NOT NULL;

-- Successes by idempotency key, and the account or deployment that has it: a repeat of the same request is answered from here. (With a rowid: replies are
-- large, and would each take a page of their own beside the key.)
CREATE TABLE keys (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    reply BLOB NOT NULL,
    PRIMARY KEY (scope, key)
);

-- Append-only: everything that took place, in the order in which it did. Without a key, the key is NULL.
CREATE TABLE effects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    account TEXT NOT NULL,
    type TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    span_id TEXT,
    key TEXT
);

PRAGMA user_version = {version};

COMMIT;
