-- What was noticed in a run beside its outcome, as JSON: members of records that nobody reads, a silence that is
-- not usual. Vendors name members, so it is TEXT.

ALTER TABLE sync_logs ADD COLUMN notes TEXT;
