"""A webhook receiver as one writes it with FastAPI and asyncpg: the raw body is verified, stored,
pushed onto a list in Redis, and only then answered."""

import hashlib
import hmac
import os
import time
import uuid
from contextlib import asynccontextmanager
from datetime import datetime, timezone

import asyncpg
import orjson
from fastapi import FastAPI, Request, Response
from redis.asyncio import Redis

INSERT = """
    INSERT INTO webhook_events (id, system_id, fingerprint, event_key, event_type, state, accepted_by,
        attempt, claim_no, run_at, forced, deliveries, body, body_bytes, request, received_at, last_received_at)
    VALUES ($1, $2, $3, $4, $5, 'pending', 'verification', 0, 0, $6, false, 1, $7, $8, $9, $6, $6)
    ON CONFLICT (fingerprint) DO NOTHING
"""

SECRETS = {os.environ["SYSTEM_ID"]: os.environ["WEBHOOK_SECRET"].encode()}
POOL = int(os.environ["POOL"])


async def nothing(_connection):
    """A connection that goes back into the pool bears no state: there is nothing to reset, and resetting
    would be another round trip for each request."""


@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL, reset=nothing) as pool:
        app.state.pool = pool
        app.state.redis = Redis.from_url(os.environ["REDIS_URL"])
        yield
        await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.post("/api/v1/integrations/webhooks/pos/{system}")
async def receive(system: str, request: Request) -> Response:
    secret = SECRETS.get(system)
    if secret is None:
        return answer({"error": "no such system"}, 404)
    body = await request.body()
    signature = request.headers.get("x-webhook-signature", "")
    if not hmac.compare_digest(hmac.digest(secret, body, "sha256").hex(), signature):
        return answer({"error": "wrong signature"}, 401)

    event = orjson.loads(body)
    key, kind = event["event_id"], event["event"]
    now = time.time()
    row = new_id(now)
    fingerprint = hashlib.sha256(f"{system}\n{key}\n".encode() + body).digest()[:16]
    kept = orjson.dumps({"headers": {"x-webhook-signature": signature}}).decode()
    received_at = datetime.fromtimestamp(now, timezone.utc)
    done = await app.state.pool.execute(
        INSERT, row, uuid.UUID(system), fingerprint, key, kind, received_at, body, len(body), kept
    )
    # Stored and enqueued by an earlier delivery where there is no new row.
    if done == "INSERT 0 1":
        await app.state.redis.rpush("events", row.bytes)
    return answer({"success": True, "message": "accepted", "event_type": kind})


def answer(content: dict, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def new_id(now: float) -> uuid.UUID:
    """A UUID whose first 48 bits are the time in milliseconds (version 7), so that keys are made in order."""
    random = int.from_bytes(os.urandom(10))
    high = random >> 68 & 0xFFF
    low = random & 0x3FFF_FFFF_FFFF_FFFF
    return uuid.UUID(int=int(now * 1000) << 80 | 7 << 76 | high << 64 | 2 << 62 | low)
