-- Toolsets: tools, prompts and resources of several servers at an address of their own. They share the registry's
-- revision: a change of one is read together with the servers that it is about.

CREATE TABLE toolsets (
    slug       text        PRIMARY KEY,
    spec       bytea       NOT NULL,               -- JSON, as it is shown
    bare       bytea       NOT NULL DEFAULT '{}',  -- JSON: by kind, server and tool its bare name, and whether it has it
    revision   bigint      NOT NULL,               -- when anything shown last changed
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX toolsets_revision ON toolsets (revision);
