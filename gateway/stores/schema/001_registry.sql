-- The registry: one row counts revisions, one row per server, one per public name.
-- Lists of upstreams are kept as bytes: jsonb would reorder them and refuse \u0000.

CREATE TABLE registry (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    revision bigint  NOT NULL DEFAULT 0
);
INSERT INTO registry DEFAULT VALUES;

CREATE TABLE secrets (
    id         boolean     PRIMARY KEY DEFAULT true CHECK (id),
    secret     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE servers (
    name              text        PRIMARY KEY,
    spec              bytea       NOT NULL,              -- JSON, secrets redacted
    sealed            bytea       NOT NULL,              -- url and headers, sealed
    revision          bigint      NOT NULL,              -- when anything shown last changed
    enabled           boolean     NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    state             text        NOT NULL DEFAULT 'unreachable',
    reason            text,
    discovered_at     timestamptz,
    unreachable_since timestamptz,
    offers            bytea,
    digest            text        NOT NULL DEFAULT '',
    names             bytea       NOT NULL DEFAULT '{}',
    failures          integer     NOT NULL DEFAULT 0,
    claim             bigint      NOT NULL DEFAULT 1,    -- counts who asks it: only the latest may record
    claimed           boolean     NOT NULL DEFAULT true, -- somebody is asking it now, until next_refresh
    due_again         boolean     NOT NULL DEFAULT false,-- it said that its lists changed meanwhile
    next_refresh      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX servers_revision ON servers (revision);
CREATE INDEX servers_due ON servers (next_refresh) WHERE enabled;

CREATE TABLE names (
    kind   text  NOT NULL,
    digest bytea NOT NULL,               -- SHA-256 of public: URIs can be longer than an index entry may be
    public text  NOT NULL,
    server text  NOT NULL REFERENCES servers (name) ON DELETE CASCADE,
    local  text  NOT NULL,
    PRIMARY KEY (kind, digest)
);
CREATE INDEX names_server ON names (server, kind);

CREATE TABLE ended_sessions (
    number  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id      text        NOT NULL,
    expires timestamptz NOT NULL
);
