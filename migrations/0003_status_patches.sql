-- What a webhook says about a record's state alone: when that was heard of (on a tie of versions the
-- later observation wins), and by which id it names a supplier order.

ALTER TABLE pos_transactions ADD COLUMN status_observed_at TIMESTAMPTZ;
ALTER TABLE external_records ADD COLUMN status_observed_at TIMESTAMPTZ;
ALTER TABLE supplier_orders ADD COLUMN status_observed_at TIMESTAMPTZ;

CREATE INDEX supplier_orders_external ON supplier_orders (system_id, external_order_id);
CREATE INDEX supplier_orders_system ON supplier_orders (system_id, order_date, id);
