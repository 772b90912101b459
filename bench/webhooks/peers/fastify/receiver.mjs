// A webhook receiver as one writes it with Fastify, pg and BullMQ, in two processes: the raw body is
// verified, stored, enqueued, and only then answered.

import cluster from 'node:cluster';
import { createHmac, timingSafeEqual } from 'node:crypto';
import Fastify from 'fastify';
import { Queue } from 'bullmq';
import { QUEUE, database, fingerprint, newId, redis } from './event.mjs';

const PROCESSES = 2;

const INSERT = {
  name: 'insert-event',
  text: `INSERT INTO webhook_events (id, system_id, fingerprint, event_key, event_type, state, accepted_by,
           attempt, claim_no, run_at, forced, deliveries, body, body_bytes, request, received_at, last_received_at)
         VALUES ($1, $2, $3, $4, $5, 'pending', 'verification', 0, 0, $6, false, 1, $7, $8, $9, $6, $6)
         ON CONFLICT (fingerprint) DO NOTHING`,
};

const JOB = { attempts: 8, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: true };

if (cluster.isPrimary) {
  for (let started = 0; started < PROCESSES; started += 1) cluster.fork();
  cluster.on('exit', (worker, code) => process.exit(code || 1));
} else {
  await serve();
}

async function serve() {
  const pool = database(Number(process.env.POOL));
  const queue = new Queue(QUEUE, { connection: redis() });
  const secrets = new Map([[process.env.SYSTEM_ID, process.env.WEBHOOK_SECRET]]);
  const app = Fastify({ logger: false, bodyLimit: 1024 * 1024 });

  // The signature is over the bytes as they came.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

  app.post('/api/v1/integrations/webhooks/pos/:system', async (request, reply) => {
    const secret = secrets.get(request.params.system);
    if (secret === undefined) return reply.code(404).send({ error: 'no such system' });
    const body = request.body;
    const signature = request.headers['x-webhook-signature'];
    if (!signed(secret, body, signature)) return reply.code(401).send({ error: 'wrong signature' });

    const event = JSON.parse(body);
    const now = Date.now();
    const id = newId(now);
    const kept = JSON.stringify({ headers: { 'x-webhook-signature': signature } });
    const stored = await pool.query({
      ...INSERT,
      values: [id, request.params.system, fingerprint(request.params.system, event.event_id, body), event.event_id,
        event.event, new Date(now), body, body.length, kept],
    });
    // Stored and enqueued by an earlier delivery where there is no new row.
    if (stored.rowCount === 1) await queue.add('apply', { id }, JOB);
    return { success: true, message: 'accepted', event_type: event.event };
  });

  await queue.waitUntilReady();
  await pool.query('SELECT 1');
  await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
}

function signed(secret, body, signature) {
  if (typeof signature !== 'string') return false;
  const given = Buffer.from(signature, 'hex');
  const expected = createHmac('sha256', secret).update(body).digest();
  return given.length === expected.length && timingSafeEqual(given, expected);
}
