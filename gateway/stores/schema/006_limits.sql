-- How much a key may call: JSON, as given.

ALTER TABLE keys ADD COLUMN limits text;
