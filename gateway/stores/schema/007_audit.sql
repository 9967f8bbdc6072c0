-- Who called and changed what, a partition per day (UTC), made and dropped by the workers. `before` and `after` are JSON.

CREATE SEQUENCE audit_numbers;
CREATE TABLE audit (
    at             timestamptz NOT NULL,
    number         bigint      NOT NULL DEFAULT nextval('audit_numbers'),
    kind           text        NOT NULL,
    principal      text        NOT NULL,
    key_id         text        NOT NULL,
    method         text        NOT NULL,
    request_id     text        NOT NULL,
    replica        text        NOT NULL,
    address        text,
    server         text,
    tool           text,
    outcome        text,
    ms             real,
    upstream_ms    real,
    bytes          bigint,
    arguments_digest text,
    arguments      text,
    target         text,
    before         text,
    after          text
) PARTITION BY RANGE (at);
CREATE INDEX audit_order ON audit (at, number);
CREATE INDEX audit_key ON audit (key_id, at, number);
CREATE INDEX audit_request ON audit (request_id);
