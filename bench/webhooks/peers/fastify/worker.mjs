// Applies what the receiver enqueued, in two processes: one job is one event, read from its row, mapped,
// and written to pos_transactions in one statement with the mark on the event.

import cluster from 'node:cluster';
import { createHash } from 'node:crypto';
import { Worker } from 'bullmq';
import { QUEUE, database, newId, redis } from './event.mjs';

const PROCESSES = 2;

const READ = { name: 'read-event', text: 'SELECT system_id, body, received_at FROM webhook_events WHERE id = $1' };

const APPLY = {
  name: 'apply-event',
  text: `WITH marked AS (
           UPDATE webhook_events SET state = 'applied', result = 'stored', attempt = attempt + 1, ended_at = $18
           WHERE id = $19 AND state = 'pending' RETURNING id
         )
         INSERT INTO pos_transactions AS kept (id, system_id, pos_transaction_id, pos_order_number, transaction_type,
           currency, subtotal, tax, discount, total, payment_method, items, customer_info, customer_phone, sync_status,
           transaction_time, version_at, observed_at, content_hash, raw, created_at, updated_at)
         SELECT $1, $2, $3, $4, $5, 'CNY', $6, $7, $8, $9, $10, $11, $12, $13, 'success', $14, $15, $15, $16, $17, $18, $18
         FROM marked
         ON CONFLICT (system_id, pos_transaction_id) DO UPDATE SET
           pos_order_number = excluded.pos_order_number, transaction_type = excluded.transaction_type,
           subtotal = excluded.subtotal, tax = excluded.tax, discount = excluded.discount, total = excluded.total,
           payment_method = excluded.payment_method, items = excluded.items, customer_info = excluded.customer_info,
           customer_phone = excluded.customer_phone, transaction_time = excluded.transaction_time,
           version_at = excluded.version_at, observed_at = excluded.observed_at, content_hash = excluded.content_hash,
           raw = excluded.raw, updated_at = excluded.updated_at
         WHERE kept.version_at <= excluded.version_at AND kept.content_hash <> excluded.content_hash`,
};

if (cluster.isPrimary) {
  for (let started = 0; started < PROCESSES; started += 1) cluster.fork();
  cluster.on('exit', (worker, code) => process.exit(code || 1));
} else {
  const pool = database(Number(process.env.POOL));
  const worker = new Worker(QUEUE, (job) => apply(pool, job.data.id), {
    connection: redis(),
    concurrency: Number(process.env.POOL),
  });
  worker.on('error', (error) => console.error(error));
  worker.on('failed', (job, error) => console.error(job?.id, error));
}

async function apply(pool, id) {
  const { rows: [row] } = await pool.query({ ...READ, values: [id] });
  if (row === undefined) return;
  const sale = JSON.parse(row.body).data;
  const now = new Date();
  const raw = JSON.stringify(sale);
  await pool.query({
    ...APPLY,
    values: [newId(now.getTime()), row.system_id, sale.transaction_id, sale.order_number, sale.type, fen(sale.subtotal),
      fen(sale.tax), fen(sale.discount), fen(sale.total), sale.payment_method, JSON.stringify(sale.items),
      JSON.stringify(sale.customer), sale.customer.phone, new Date(sale.transaction_time), row.received_at,
      createHash('sha256').update(raw).digest(), raw, now, id],
  });
}

// Yuan as they come, in whole fen.
function fen(yuan) {
  return Math.round(yuan * 100);
}
