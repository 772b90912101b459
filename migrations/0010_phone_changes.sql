-- Members that can only be asked for one by one are asked for by the telephone numbers of new POS transactions.

CREATE INDEX pos_transactions_phone_changes ON pos_transactions (updated_at, customer_phone) WHERE customer_phone IS NOT NULL;
