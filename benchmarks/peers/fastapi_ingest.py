"""A peer of ingest: a FastAPI route that verifies InboundFlow's signature and its window, and stores nothing."""

import hashlib
import hmac
import os
import time

from fastapi import FastAPI, HTTPException, Request

SECRET = os.environ["PEER_SECRET"].encode()
app = FastAPI()


async def verified(request: Request) -> bytes:
    body = await request.body()
    timestamp = request.headers["x-inboundflow-timestamp"]
    expected = "sha256=" + hmac.new(SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers["x-inboundflow-signature"]):
        raise HTTPException(401)
    if abs(time.time() - int(timestamp)) > 300:
        raise HTTPException(401)
    return body


@app.post("/webhooks/inboundflow")
async def receive(request: Request) -> dict[str, bool]:
    await verified(request)
    return {"received": True}
