-- What lists of records are filtered by. Where nearly all rows have one value, only the others are indexed: a
-- page of the usual ones is found in the order of time soon enough.

CREATE INDEX pos_transactions_number ON pos_transactions (pos_order_number, transaction_time, id) WHERE pos_order_number IS NOT NULL;
CREATE INDEX pos_transactions_phone ON pos_transactions (customer_phone, transaction_time, id) WHERE customer_phone IS NOT NULL;
CREATE INDEX pos_transactions_unusual ON pos_transactions (transaction_type, transaction_time, id) WHERE transaction_type <> 'sale';
CREATE INDEX pos_transactions_unsynced ON pos_transactions (sync_status, transaction_time, id) WHERE sync_status <> 'success';

CREATE INDEX supplier_orders_number ON supplier_orders (order_number, order_date, id);
CREATE INDEX supplier_orders_status ON supplier_orders (status, order_date, id);
CREATE INDEX supplier_orders_returns ON supplier_orders (order_type, order_date, id) WHERE order_type <> 'purchase';
CREATE INDEX supplier_orders_unsynced ON supplier_orders (sync_status, order_date, id) WHERE sync_status <> 'success';

-- What people look a record up by. A record that tells no time stands where it was heard of.
ALTER TABLE external_records ADD COLUMN number TEXT;
ALTER TABLE external_records ADD COLUMN customer_phone TEXT;
DROP INDEX external_records_newest;
CREATE INDEX external_records_newest ON external_records (stream, COALESCE(occurred_at, created_at), id);
CREATE INDEX external_records_system ON external_records (system_id, stream, COALESCE(occurred_at, created_at), id);
CREATE INDEX external_records_store ON external_records (store_id, stream, COALESCE(occurred_at, created_at), id);
CREATE INDEX external_records_status ON external_records (stream, status, COALESCE(occurred_at, created_at), id);
CREATE INDEX external_records_number ON external_records (number, stream) WHERE number IS NOT NULL;
CREATE INDEX external_records_phone ON external_records (customer_phone, stream) WHERE customer_phone IS NOT NULL;
