-- One event, one INSERT, one commit: what a receiver costs that does nothing else. For pgbench.
INSERT INTO webhook_events (id, system_id, fingerprint, event_key, event_type, state, accepted_by,
    attempt, claim_no, run_at, forced, deliveries, body, body_bytes, request, received_at, last_received_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(chance, 14))::uuid,
    :system::uuid, decode(chance, 'hex'), 'evt-' || chance, 'transaction.created', 'pending', 'verification',
    0, 0, at, false, 1, :body::bytea, octet_length(:body::bytea), :request::text, at, at
FROM (SELECT now() AS at, replace(gen_random_uuid()::text, '-', '') AS chance OFFSET 0) AS made
ON CONFLICT (fingerprint) DO NOTHING;
