-- What live clients hear, in an order in which nothing comes later than what is behind it; what the health
-- of a system is made of; failures of a system page by page.

-- Ids are made before their transaction commits, so they are no such order. Positions are given afterwards,
-- by whoever holds the feed's row. What was there before has none to be heard by.
CREATE TABLE feeds (
    name     TEXT PRIMARY KEY,
    position BIGINT NOT NULL
);
INSERT INTO feeds (name, position) VALUES ('events', 0);
ALTER TABLE events ADD COLUMN position BIGINT;
UPDATE events SET position = 0;
CREATE INDEX events_unplaced ON events (id) WHERE position IS NULL;
CREATE UNIQUE INDEX events_placed ON events (position) WHERE position > 0;

-- Runs without the minute logs of webhooks, which are many.
CREATE INDEX sync_logs_worked ON sync_logs (system_id, created_at, id) WHERE kind <> 'apply_webhooks';
CREATE INDEX sync_failures_system ON sync_failures (system_id, id);
CREATE INDEX sync_failures_stream ON sync_failures (system_id, stream, id);
