-- What a caller of one store filters by: the same filters as the chain's, each within a store. Where nearly all
-- rows have one value only the others are indexed, which costs next to nothing.

CREATE INDEX pos_transactions_store_unusual ON pos_transactions (store_id, transaction_type, transaction_time, id) WHERE transaction_type <> 'sale';
CREATE INDEX pos_transactions_store_unsynced ON pos_transactions (store_id, sync_status, transaction_time, id) WHERE sync_status <> 'success';

CREATE INDEX supplier_orders_store_status ON supplier_orders (store_id, status, order_date, id) WHERE store_id IS NOT NULL;
CREATE INDEX supplier_orders_store_returns ON supplier_orders (store_id, order_type, order_date, id) WHERE order_type <> 'purchase';
CREATE INDEX supplier_orders_store_unsynced ON supplier_orders (store_id, sync_status, order_date, id) WHERE sync_status <> 'success';

CREATE INDEX member_syncs_store_level ON member_syncs (store_id, level, created_at, id) WHERE store_id IS NOT NULL AND level IS NOT NULL;
CREATE INDEX member_syncs_store_unsynced ON member_syncs (store_id, sync_status, created_at, id) WHERE sync_status <> 'success';

CREATE INDEX external_records_store_status ON external_records (store_id, stream, status, COALESCE(occurred_at, created_at), id) WHERE store_id IS NOT NULL AND status IS NOT NULL;
