"""A peer of ingest and relay together: a FastAPI route that verifies InboundFlow's signature and its window, and
answers once Kafka has acknowledged the body, with kafka-python in the thread pool that FastAPI brings."""

import hashlib
import hmac
import json
import os
import time

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from kafka import KafkaProducer

SECRET = os.environ["PEER_SECRET"].encode()
TOPIC = os.environ["PEER_TOPIC"]
app = FastAPI()
producer = KafkaProducer(bootstrap_servers=os.environ["PEER_KAFKA"], acks="all")


def publish(body: bytes) -> None:
    call_id = json.loads(body)["data"]["call_id"]
    producer.send(TOPIC, body, key=call_id.encode()).get(timeout=10)


@app.post("/webhooks/inboundflow")
async def receive(request: Request) -> dict[str, bool]:
    body = await request.body()
    timestamp = request.headers["x-inboundflow-timestamp"]
    expected = "sha256=" + hmac.new(SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers["x-inboundflow-signature"]):
        raise HTTPException(401)
    if abs(time.time() - int(timestamp)) > 300:
        raise HTTPException(401)
    await run_in_threadpool(publish, body)
    return {"received": True}
