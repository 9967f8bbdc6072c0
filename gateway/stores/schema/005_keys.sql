-- Keys by which people, agents and pipelines come in. Their changes are counted apart from the registry's: a new key
-- changes no list. Of a secret only its SHA-256 is kept; `old_digest` is the one before the last rotation.

CREATE TABLE key_changes (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    revision bigint  NOT NULL DEFAULT 0
);
INSERT INTO key_changes DEFAULT VALUES;

CREATE TABLE keys (
    id           text        PRIMARY KEY,
    name         text        NOT NULL,
    role         text        NOT NULL,
    grants       bytea,                                -- JSON, as given
    owner        text,
    tags         text[]      NOT NULL DEFAULT '{}',
    digest       bytea       NOT NULL,
    old_digest   bytea,
    old_until    timestamptz,
    revision     bigint      NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX keys_revision ON keys (revision);
CREATE INDEX keys_name ON keys (name, id);
CREATE INDEX keys_owner ON keys (owner) WHERE owner IS NOT NULL;
