-- Each change of a server's lists that is taken over pays for some time; one that paid too far ahead waits.

ALTER TABLE servers ADD COLUMN changes_paid_until timestamptz NOT NULL DEFAULT 'epoch';
