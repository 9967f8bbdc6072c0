-- Ended sessions are asked for by id, and deleted by the time at which they would have expired.

CREATE INDEX ended_sessions_id ON ended_sessions (id);
CREATE INDEX ended_sessions_expires ON ended_sessions (expires);
