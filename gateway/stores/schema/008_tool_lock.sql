-- What was approved of a server's tools, and what looks suspicious in what it offers. NULL until it is asked again.

ALTER TABLE servers
    ADD COLUMN approved bytea,  -- JSON: the approved definitions, under a lock
    ADD COLUMN hints    bytea,  -- JSON: the safe hints that are believed, one bit each, by tool
    ADD COLUMN flags    bytea;  -- JSON: {"place", "what", "detail"} of what looks suspicious
