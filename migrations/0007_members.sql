-- Members: whose word a row holds, how its way to the vendor went, whose word counts in a system, and what
-- lists of members are filtered by.

ALTER TABLE member_syncs ADD COLUMN origin TEXT NOT NULL DEFAULT 'vendor' CHECK (origin IN ('vendor', 'ours'));
ALTER TABLE member_syncs ADD COLUMN pushed_at TIMESTAMPTZ;
ALTER TABLE member_syncs ADD COLUMN push_error TEXT;

ALTER TABLE external_systems ADD COLUMN member_conflict TEXT NOT NULL DEFAULT 'newest' CHECK (member_conflict IN ('newest', 'vendor', 'ours'));

DROP INDEX member_syncs_phone;
CREATE INDEX member_syncs_phone ON member_syncs (phone, created_at, id) WHERE phone IS NOT NULL;
CREATE INDEX member_syncs_level ON member_syncs (level, created_at, id) WHERE level IS NOT NULL;
CREATE INDEX member_syncs_member ON member_syncs (member_id, created_at, id);
CREATE INDEX member_syncs_system ON member_syncs (system_id, created_at, id);
CREATE INDEX member_syncs_store ON member_syncs (store_id, created_at, id);
CREATE INDEX member_syncs_unsynced ON member_syncs (sync_status, created_at, id) WHERE sync_status <> 'success';
