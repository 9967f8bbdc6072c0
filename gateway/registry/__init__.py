"""Which servers there are and what they offer: the tables in Postgres, this worker's copy, and who asks the servers.

Postgres is the truth; every worker keeps a catalogue at its revision. Must not know sessions, methods or HTTP. Start
with `sync`, then `servers` (the tables) and `discovery`.
"""
