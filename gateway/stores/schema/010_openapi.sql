-- The OpenAPI documents that were sent with registrations. They are read when a server is looked at, never with the
-- list of servers, which keeps only their digest and size.

CREATE TABLE documents (
    server text  PRIMARY KEY REFERENCES servers (name) ON DELETE CASCADE,
    data   bytea NOT NULL
);
