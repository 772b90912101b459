// What the receiver and the worker share: the row of an event, and how both reach their servers.

import { createHash, randomFillSync } from 'node:crypto';
import pg from 'pg';
import { Redis } from 'ioredis';

export const QUEUE = 'events';

// The pool of one process. The sizes are the best of those tried, see README.md.
export function database(connections) {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: connections, min: connections });
  pool.on('error', (error) => console.error(error));
  return pool;
}

// A worker's blocking connection must wait for as long as it takes.
export function redis() {
  return new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null });
}

// A UUID whose first 48 bits are the time in milliseconds (version 7), so that keys are made in order.
const random = Buffer.alloc(16 * 256);
let used = random.length;
export function newId(now) {
  if (used === random.length) {
    randomFillSync(random);
    used = 0;
  }
  const id = random.subarray(used, used + 16);
  used += 16;
  id.writeUIntBE(now, 0, 6);
  id[6] = (id[6] & 0x0f) | 0x70;
  id[8] = (id[8] & 0x3f) | 0x80;
  const hex = id.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

// Which deliveries are the same event: 16 bytes over system, key and body.
export function fingerprint(systemId, eventKey, body) {
  return createHash('sha256').update(`${systemId}\n${eventKey}\n`).update(body).digest().subarray(0, 16);
}
