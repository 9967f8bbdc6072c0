"""Postgres and Redis, bounded in time: pools, keys, streams, hints, the log of event streams.

Must not know what is kept: tables and records belong to `registry` and `sessions`. Start with `postgres` and `redis`.
"""
