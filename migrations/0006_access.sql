-- Who may come in, and who did what: indexes for the lists of users, sessions, tokens and the audit, each
-- in the order in which its pages are read.

CREATE INDEX users_newest ON users (created_at, id);
CREATE INDEX users_store ON users (store_id, created_at, id);

-- The second tells from where somebody has signed in before.
CREATE INDEX sessions_user_newest ON sessions (user_id, created_at, id);
CREATE INDEX sessions_user_address ON sessions (user_id, address);

CREATE INDEX api_tokens_newest ON api_tokens (created_at, id);
CREATE INDEX api_tokens_store ON api_tokens (store_id, created_at, id);

CREATE INDEX audit_logs_actor ON audit_logs (actor_id, at, id);
CREATE INDEX audit_logs_action ON audit_logs (action, at, id);
CREATE INDEX audit_logs_entity ON audit_logs (entity, at, id);
CREATE INDEX audit_logs_entity_id ON audit_logs (entity_id, at, id);
CREATE INDEX audit_logs_store ON audit_logs (store_id, at, id);
