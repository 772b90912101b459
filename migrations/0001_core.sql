-- The core tables: systems, runs, records, budgets, identity. One text for both databases;
-- the vocabulary it keeps to is described in README.md beside it.
--
-- Money is BIGINT minor units beside its currency. Times are bound by the program, never made here.
-- JSON that came from a vendor is TEXT: PostgreSQL refuses \u0000 and huge numbers in JSONB.

-- One configured connection to an outside system.
CREATE TABLE external_systems (
    id                      UUID PRIMARY KEY,
    name                    TEXT NOT NULL,
    type                    TEXT NOT NULL CHECK (type IN ('pos', 'supplier', 'member', 'payment', 'delivery', 'erp', 'reservation')),
    provider                TEXT NOT NULL,
    version                 BIGINT NOT NULL,
    status                  TEXT NOT NULL CHECK (status IN ('active', 'inactive', 'error', 'testing')),
    paused                  BOOLEAN NOT NULL,
    paused_note             TEXT,
    store_id                TEXT,
    store_map               JSONB NOT NULL,
    api_endpoint            TEXT,
    webhook_url             TEXT,
    sealed_credentials      BYTEA,
    sealed_webhook_secrets  BYTEA,
    credential_names        JSONB NOT NULL,
    webhook_verification    TEXT NOT NULL CHECK (webhook_verification IN ('signature', 'none')),
    config                  JSONB NOT NULL,
    timezone                TEXT NOT NULL,
    currency                TEXT NOT NULL,
    sync_enabled            BOOLEAN NOT NULL,
    sync_interval           BIGINT,
    sync_cron               TEXT,
    next_sync_at            TIMESTAMPTZ,
    next_slot_at            TIMESTAMPTZ,
    last_sync_at            TIMESTAMPTZ,
    last_sync_status        TEXT CHECK (last_sync_status IN ('pending', 'syncing', 'success', 'partial', 'failed', 'cancelled')),
    last_error              TEXT,
    consecutive_failures    BIGINT NOT NULL,
    created_by              UUID,
    created_at              TIMESTAMPTZ NOT NULL,
    updated_at              TIMESTAMPTZ NOT NULL,
    deleted_at              TIMESTAMPTZ
);
CREATE INDEX external_systems_due ON external_systems (next_sync_at) WHERE next_sync_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX external_systems_newest ON external_systems (created_at, id);
CREATE INDEX external_systems_store ON external_systems (store_id);

-- One row per run, and the whole of its state machine.
CREATE TABLE sync_logs (
    id              UUID PRIMARY KEY,
    system_id       UUID REFERENCES external_systems (id),
    kind            TEXT NOT NULL,
    sync_type       TEXT NOT NULL,
    trigger         TEXT NOT NULL CHECK (trigger IN ('schedule', 'manual', 'webhook', 'push', 'backfill', 'upkeep')),
    lane            TEXT NOT NULL CHECK (lane IN ('hooks', 'interactive', 'syncs', 'upkeep')),
    exclusive_key   TEXT,
    status          TEXT NOT NULL CHECK (status IN ('pending', 'syncing', 'success', 'partial', 'failed', 'cancelled')),
    attempt         BIGINT NOT NULL,
    max_attempts    BIGINT NOT NULL,
    claim_no        BIGINT NOT NULL,
    run_at          TIMESTAMPTZ NOT NULL,
    deadline_at     TIMESTAMPTZ,
    rung_at         TIMESTAMPTZ,
    lease_until     TIMESTAMPTZ,
    worker          TEXT,
    scheduled_for   TIMESTAMPTZ,
    again           BOOLEAN NOT NULL,
    position        TEXT,
    parameters      TEXT,
    retry_of        UUID,
    records_total   BIGINT NOT NULL,
    records_success BIGINT NOT NULL,
    records_failed  BIGINT NOT NULL,
    records_skipped BIGINT NOT NULL,
    started_at      TIMESTAMPTZ,
    completed_at    TIMESTAMPTZ,
    duration_ms     BIGINT,
    error_code      TEXT,
    error_message   TEXT,
    error_details   TEXT,
    request_data    TEXT,
    response_data   TEXT,
    requested_by    UUID,
    created_at      TIMESTAMPTZ NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX sync_logs_slot ON sync_logs (system_id, sync_type, scheduled_for);
CREATE UNIQUE INDEX sync_logs_exclusive ON sync_logs (exclusive_key) WHERE status IN ('pending', 'syncing');
CREATE INDEX sync_logs_pending ON sync_logs (run_at) WHERE status = 'pending';
CREATE INDEX sync_logs_leases ON sync_logs (lease_until) WHERE status = 'syncing';
CREATE INDEX sync_logs_newest ON sync_logs (created_at, id);
CREATE INDEX sync_logs_system ON sync_logs (system_id, created_at, id);

-- One record that could not be mapped or stored: kept, counted, never dropped.
CREATE TABLE sync_failures (
    id          UUID PRIMARY KEY,
    system_id   UUID NOT NULL REFERENCES external_systems (id),
    sync_log_id UUID REFERENCES sync_logs (id),
    stream      TEXT NOT NULL,
    external_id TEXT NOT NULL,
    stage       TEXT NOT NULL CHECK (stage IN ('mapping', 'storing')),
    reason      TEXT NOT NULL,
    raw         TEXT NOT NULL,
    occurrences BIGINT NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    updated_at  TIMESTAMPTZ NOT NULL,
    resolved_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX sync_failures_open ON sync_failures (system_id, stream, external_id) WHERE resolved_at IS NULL;
CREATE INDEX sync_failures_run ON sync_failures (sync_log_id, id);

-- How far a stream has been read to the end of a window.
CREATE TABLE sync_cursors (
    system_id   UUID NOT NULL REFERENCES external_systems (id),
    stream      TEXT NOT NULL,
    partition   TEXT NOT NULL,
    watermark   TIMESTAMPTZ,
    value       TEXT,
    sync_log_id UUID,
    updated_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (system_id, stream, partition)
);

CREATE TABLE pos_transactions (
    id                 UUID PRIMARY KEY,
    system_id          UUID NOT NULL REFERENCES external_systems (id),
    store_id           TEXT,
    pos_transaction_id TEXT NOT NULL,
    pos_order_number   TEXT,
    transaction_type   TEXT NOT NULL CHECK (transaction_type IN ('sale', 'refund', 'void')),
    currency           TEXT NOT NULL,
    subtotal           BIGINT NOT NULL,
    tax                BIGINT NOT NULL,
    discount           BIGINT NOT NULL,
    total              BIGINT NOT NULL,
    payment_method     TEXT,
    items              TEXT,
    customer_info      TEXT,
    customer_phone     TEXT,
    sync_status        TEXT NOT NULL CHECK (sync_status IN ('pending', 'syncing', 'success', 'partial', 'failed', 'cancelled')),
    transaction_time   TIMESTAMPTZ NOT NULL,
    version_at         TIMESTAMPTZ NOT NULL,
    observed_at        TIMESTAMPTZ NOT NULL,
    status_version_at  TIMESTAMPTZ,
    content_hash       BYTEA NOT NULL,
    sync_log_id        UUID,
    raw                TEXT NOT NULL,
    created_at         TIMESTAMPTZ NOT NULL,
    updated_at         TIMESTAMPTZ NOT NULL,
    deleted_at         TIMESTAMPTZ,
    UNIQUE (system_id, pos_transaction_id)
);
CREATE INDEX pos_transactions_newest ON pos_transactions (transaction_time, id);
CREATE INDEX pos_transactions_system ON pos_transactions (system_id, transaction_time, id);
CREATE INDEX pos_transactions_store ON pos_transactions (store_id, transaction_time, id);

CREATE TABLE supplier_orders (
    id                UUID PRIMARY KEY,
    system_id         UUID NOT NULL REFERENCES external_systems (id),
    store_id          TEXT,
    order_number      TEXT NOT NULL,
    external_order_id TEXT,
    supplier_id       TEXT,
    supplier_name     TEXT,
    order_type        TEXT NOT NULL CHECK (order_type IN ('purchase', 'return')),
    status            TEXT NOT NULL CHECK (status IN ('pending', 'confirmed', 'shipped', 'delivered', 'cancelled')),
    currency          TEXT NOT NULL,
    subtotal          BIGINT NOT NULL,
    tax               BIGINT NOT NULL,
    shipping          BIGINT NOT NULL,
    total             BIGINT NOT NULL,
    items             TEXT,
    delivery_info     TEXT,
    sync_status       TEXT NOT NULL CHECK (sync_status IN ('pending', 'syncing', 'success', 'partial', 'failed', 'cancelled')),
    order_date        TIMESTAMPTZ NOT NULL,
    expected_delivery TIMESTAMPTZ,
    actual_delivery   TIMESTAMPTZ,
    version_at        TIMESTAMPTZ NOT NULL,
    observed_at       TIMESTAMPTZ NOT NULL,
    status_version_at TIMESTAMPTZ,
    content_hash      BYTEA NOT NULL,
    sync_log_id       UUID,
    raw               TEXT NOT NULL,
    created_at        TIMESTAMPTZ NOT NULL,
    updated_at        TIMESTAMPTZ NOT NULL,
    deleted_at        TIMESTAMPTZ,
    UNIQUE (system_id, order_number)
);
CREATE INDEX supplier_orders_newest ON supplier_orders (order_date, id);
CREATE INDEX supplier_orders_store ON supplier_orders (store_id, order_date, id);

CREATE TABLE member_syncs (
    id                 UUID PRIMARY KEY,
    system_id          UUID NOT NULL REFERENCES external_systems (id),
    store_id           TEXT,
    member_id          TEXT NOT NULL,
    external_member_id TEXT,
    phone              TEXT,
    name               TEXT,
    email              TEXT,
    level              TEXT,
    points             BIGINT NOT NULL,
    balance            BIGINT NOT NULL,
    currency           TEXT NOT NULL,
    sync_status        TEXT NOT NULL CHECK (sync_status IN ('pending', 'syncing', 'success', 'partial', 'failed', 'cancelled')),
    last_activity      TIMESTAMPTZ,
    version_at         TIMESTAMPTZ NOT NULL,
    observed_at        TIMESTAMPTZ NOT NULL,
    status_version_at  TIMESTAMPTZ,
    content_hash       BYTEA NOT NULL,
    sync_log_id        UUID,
    raw                TEXT NOT NULL,
    created_at         TIMESTAMPTZ NOT NULL,
    updated_at         TIMESTAMPTZ NOT NULL,
    deleted_at         TIMESTAMPTZ,
    UNIQUE (system_id, member_id)
);
CREATE INDEX member_syncs_newest ON member_syncs (created_at, id);
CREATE INDEX member_syncs_phone ON member_syncs (phone);

-- Payments, deliveries, ERP documents, reservations: what has no table of its own.
CREATE TABLE external_records (
    id                UUID PRIMARY KEY,
    system_id         UUID NOT NULL REFERENCES external_systems (id),
    store_id          TEXT,
    stream            TEXT NOT NULL,
    external_id       TEXT NOT NULL,
    status            TEXT,
    currency          TEXT,
    amount            BIGINT,
    occurred_at       TIMESTAMPTZ,
    data              TEXT NOT NULL,
    sync_status       TEXT NOT NULL CHECK (sync_status IN ('pending', 'syncing', 'success', 'partial', 'failed', 'cancelled')),
    version_at        TIMESTAMPTZ NOT NULL,
    observed_at       TIMESTAMPTZ NOT NULL,
    status_version_at TIMESTAMPTZ,
    content_hash      BYTEA NOT NULL,
    sync_log_id       UUID,
    raw               TEXT NOT NULL,
    created_at        TIMESTAMPTZ NOT NULL,
    updated_at        TIMESTAMPTZ NOT NULL,
    deleted_at        TIMESTAMPTZ,
    UNIQUE (system_id, stream, external_id)
);
CREATE INDEX external_records_newest ON external_records (stream, occurred_at, id);

-- Vendors' access tokens, shared by all processes; refreshed by whoever holds the lease.
CREATE TABLE vendor_tokens (
    key           TEXT PRIMARY KEY,
    sealed        BYTEA NOT NULL,
    expires_at    TIMESTAMPTZ,
    lease_until   TIMESTAMPTZ,
    worker        TEXT,
    updated_at    TIMESTAMPTZ NOT NULL
);

-- One budget per vendor, credential and class of endpoint. `next_free_ms` is the time, in
-- milliseconds since 1970, at which the budget is whole again (GCRA).
CREATE TABLE rate_budgets (
    key          TEXT PRIMARY KEY,
    next_free_ms BIGINT NOT NULL,
    updated_at   TIMESTAMPTZ NOT NULL
);

-- The answer of a POST, to be given again to whoever repeats it.
CREATE TABLE idempotency_keys (
    scope        TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BYTEA NOT NULL,
    status       BIGINT,
    response     TEXT,
    created_at   TIMESTAMPTZ NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- What live clients hear, polled by id.
CREATE TABLE events (
    id         UUID PRIMARY KEY,
    kind       TEXT NOT NULL,
    system_id  UUID,
    store_id   TEXT,
    run_id     UUID,
    data       TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX events_age ON events (created_at);

CREATE TABLE users (
    id                  UUID PRIMARY KEY,
    username            TEXT NOT NULL UNIQUE,
    password_hash       TEXT NOT NULL,
    role                TEXT NOT NULL CHECK (role IN ('admin', 'store_manager', 'warehouse_manager', 'customer_manager', 'staff')),
    store_id            TEXT,
    active              BOOLEAN NOT NULL,
    password_changed_at TIMESTAMPTZ NOT NULL,
    last_login_at       TIMESTAMPTZ,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL
);

-- Only the SHA-256 of a token is kept.
CREATE TABLE sessions (
    id           UUID PRIMARY KEY,
    user_id      UUID NOT NULL REFERENCES users (id),
    token_hash   BYTEA NOT NULL UNIQUE,
    address      TEXT,
    user_agent   TEXT,
    created_at   TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    ended_at     TIMESTAMPTZ
);
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE api_tokens (
    id           UUID PRIMARY KEY,
    name         TEXT NOT NULL,
    token_hash   BYTEA NOT NULL UNIQUE,
    role         TEXT NOT NULL CHECK (role IN ('admin', 'store_manager', 'warehouse_manager', 'customer_manager', 'staff')),
    store_id     TEXT,
    created_by   UUID,
    created_at   TIMESTAMPTZ NOT NULL,
    expires_at   TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ
);

-- Append-only: no statement of this program changes or deletes a row of it.
CREATE TABLE audit_logs (
    id          UUID PRIMARY KEY,
    at          TIMESTAMPTZ NOT NULL,
    actor_id    UUID,
    actor_name  TEXT,
    address     TEXT,
    action      TEXT NOT NULL,
    entity      TEXT NOT NULL,
    entity_id   TEXT,
    store_id    TEXT,
    request_id  TEXT,
    detail      TEXT
);
CREATE INDEX audit_logs_newest ON audit_logs (at, id);

-- Facts about this installation: the vault's canary, the first admin.
CREATE TABLE installation (
    name       TEXT PRIMARY KEY,
    value      BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
