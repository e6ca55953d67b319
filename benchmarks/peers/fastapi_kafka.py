"""A peer of ingest and relay together: a FastAPI route that verifies InboundFlow's signature and its window, and
answers once Kafka has acknowledged the body, with kafka-python in the thread pool that FastAPI brings."""

import json
import os

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi_ingest import verified
from kafka import KafkaProducer

TOPIC = os.environ["PEER_TOPIC"]
app = FastAPI()
producer = KafkaProducer(bootstrap_servers=os.environ["PEER_KAFKA"], acks="all")


def publish(body: bytes) -> None:
    call_id = json.loads(body)["data"]["call_id"]
    producer.send(TOPIC, body, key=call_id.encode()).get(timeout=10)


@app.post("/webhooks/inboundflow")
async def receive(request: Request) -> dict[str, bool]:
    body = await verified(request)
    await run_in_threadpool(publish, body)
    return {"received": True}
