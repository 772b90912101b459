-- The inbox: what vendors post to us, kept before it is answered and applied afterwards.

-- One delivered event. `system_id` has no foreign key: the insert itself checks that the system is there
-- in the version it was verified with, systems are never deleted physically, and a key check for every
-- row would be the dearest part of a small insert.
CREATE TABLE webhook_events (
    id               UUID PRIMARY KEY,
    system_id        UUID NOT NULL,
    fingerprint      BYTEA NOT NULL,
    event_key        TEXT NOT NULL,
    event_type       TEXT,
    state            TEXT NOT NULL CHECK (state IN ('quarantined', 'pending', 'applied', 'duplicate', 'dead')),
    accepted_by      TEXT CHECK (accepted_by IN ('verification', 'waiver', 'release')),
    result           TEXT CHECK (result IN ('stored', 'unchanged', 'patched', 'deleted', 'fetched', 'pulled', 'ignored', 'unrouted')),
    error_code       TEXT,
    error_message    TEXT,
    attempt          BIGINT NOT NULL,
    claim_no         BIGINT NOT NULL,
    run_at           TIMESTAMPTZ NOT NULL,
    lease_until      TIMESTAMPTZ,
    worker           TEXT,
    forced           BOOLEAN NOT NULL,
    deliveries       BIGINT NOT NULL,
    body             BYTEA NOT NULL,
    body_bytes       BIGINT NOT NULL,
    request          TEXT NOT NULL,
    sealed_request   BYTEA,
    sync_log_id      UUID,
    received_at      TIMESTAMPTZ NOT NULL,
    last_received_at TIMESTAMPTZ NOT NULL,
    ended_at         TIMESTAMPTZ
);
CREATE UNIQUE INDEX webhook_events_once ON webhook_events (fingerprint);
CREATE INDEX webhook_events_system ON webhook_events (system_id, id);
CREATE INDEX webhook_events_pending ON webhook_events (run_at) WHERE state = 'pending';
CREATE INDEX webhook_events_troubled ON webhook_events (state, system_id, id) WHERE state IN ('quarantined', 'dead');

-- Secret name → the time after which it no longer counts. A default, so that a process of the version
-- before can still add systems.
ALTER TABLE external_systems ADD COLUMN webhook_secret_expiries JSONB NOT NULL DEFAULT '{}';

ALTER TABLE supplier_orders ADD COLUMN tracking_number TEXT;
