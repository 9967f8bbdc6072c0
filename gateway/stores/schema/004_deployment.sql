-- What all replicas call themselves, whatever their secrets: the prefix of their keys in Redis, and their name in Via.

CREATE TABLE deployment (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    identity text    NOT NULL
);
