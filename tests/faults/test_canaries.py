"""Canaries: a word of its own in every field, every header and every secret, and where none of them may turn up."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from analytics.client import Client
from tests.contracts.samples import every_path, every_sample, signed_headers
from tests.e2e.test_up import COMMAND, ENVIRONMENT, Running
from tools.ports import free_ports

PERSONAL = "pcanary"
"""Begins every canary in a body, a header or an address."""
SECRET = "scanary"
"""Begins every canary that is a secret."""
SECRETS = {name: f"{SECRET}-{name}-of-tests" for name in ("synthflow", "inboundflow", "aisync", "callsync")}
FROM_ENVIRONMENT = "callsync"
KEPT = frozenset({"event", "call_id", "Call_id", "callId", "id", "timestamp", "status", "type"})
"""Fields without a canary: a body must still be of its event and call."""
NASTY = "<script>{}</script>\x1b[31m\u202e\r\n=HYPERLINK(1)"
COMMANDS = (
    ["status", "--format", "json"], ["sources", "list"], ["doctor"], ["providers"], ["quarantine", "list"],
    ["dead", "list"], ["metrics"], ["health", "worker"],
)  # fmt: skip
"""What people paste into tickets: nothing of a caller and no secret may be in it."""


@dataclass
class Told:
    """Everything that came out of a running Calltally, by where it was seen."""

    running: Running
    outputs: dict[str, str] = field(default_factory=dict)
    planted: int = 0

    def where(self, canary: str) -> list[str]:
        """Where a canary was seen, with what stands around it."""
        pattern = re.compile(rf".{{0,60}}{canary}.{{0,60}}", re.DOTALL)
        found = {name: pattern.search(text) for name, text in self.outputs.items()}
        return [f"{name}: {match.group()!r}" for name, match in found.items() if match is not None]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """After every sample of every platform was sent with canaries: genuine, forged, to wrong places, unreadable."""
    folder = tmp_path_factory.mktemp("canaries")
    ports = free_ports(3)
    lines = [f"ingest_port = {ports[0]}", f"sql_port = {ports[1]}", f"dashboard_port = {ports[2]}"]
    lines += [
        f'[sources.{name}]\nsecrets = ["{secret}"]' for name, secret in SECRETS.items() if name != FROM_ENVIRONMENT
    ]
    (folder / "calltally.toml").write_text("\n".join(lines))
    (folder / "calltally.toml").chmod(0o600)
    environment = {
        **ENVIRONMENT, f"CALLTALLY_SECRET_{FROM_ENVIRONMENT.upper()}": SECRETS[FROM_ENVIRONMENT], "COLUMNS": "400",
    }  # fmt: skip
    running = Running([*COMMAND, "up"], folder, folder / "data", ports, environment)
    try:
        running.until(lambda: running.ready(ports[0]) and running.ready(ports[1]), "ingest and worker are ready")
        running.until(lambda: any("dashboard" in line and "url" in line.lower() for line in running.lines), "the pages")
        seen = Told(running)
        _send_all(seen)
        _collect(seen, folder, environment)
        yield seen
    finally:
        running.stop()


def test_the_canaries_are_where_they_belong(told: Told) -> None:
    """The bodies are in the store: so the other tests look for something that is there."""
    client = Client(f"http://127.0.0.1:{told.running.sql_port}", _token(told.running))
    try:
        rows = client.query("SELECT data FROM call_events UNION ALL SELECT data FROM other_events").to_pylist()
        named = client.query(f"SELECT count(*) AS n FROM calls WHERE contains(summary, '{PERSONAL}')").to_pylist()
    finally:
        client.close()
    found = set(re.findall(rf"{PERSONAL}\d+x", json.dumps(rows)))

    assert told.planted > 500
    assert len(found) > 400
    assert named[0]["n"] > 0


def test_nothing_of_a_caller_is_in_logs_metrics_health_or_answers(told: Told) -> None:
    """Personal data is in the store, in pages and in what people export, and nowhere else."""
    assert told.where(PERSONAL) == []


def test_no_secret_is_anywhere(told: Told) -> None:
    """Neither a webhook secret nor the token of the SQL endpoint."""
    assert told.where(SECRET) == []
    assert told.where(_token(told.running)) == []


def test_no_line_of_a_log_is_live(told: Told) -> None:
    """No control character and no change of direction reaches a terminal, no line is forged."""
    log = told.outputs["log"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", log)
    assert all(re.match(r"\w+ +\|? ?", line) for line in log.splitlines() if line)


def test_the_dashboard_and_the_worker_hold_no_secret_of_a_source(told: Told) -> None:
    """Their environment has none, and no command line has."""
    family = psutil.Process(told.running.process.pid).children(recursive=True)
    by_name = {name: child for child in family for name in ("dashboard", "worker") if name in child.cmdline()}

    assert set(by_name) == {"dashboard", "worker"}
    assert SECRET not in json.dumps([child.environ() for child in by_name.values()])
    assert SECRET not in json.dumps([child.cmdline() for child in family])


def _send_all(told: Told) -> None:
    port = told.running.ingest_port
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        for number, sample in enumerate(every_sample()):
            body = _with_canaries(sample.body, told)
            source, secret = sample.provider.name, SECRETS[sample.provider.name]
            try:
                proof = dict(signed_headers(sample.provider, body, now_s=_now(), secret=secret))
            except Exception:  # a sample without the id that would be signed; it is sent unsigned
                proof = {}
            odd = {b"x-odd": f"{PERSONAL}{number}h".encode(), b"user-agent": f"{PERSONAL}{number}u".encode()}
            answers = [
                client.post(f"/webhooks/{source}", content=body, headers=[*proof.items(), *odd.items()]),
                client.post(f"/webhooks/{source}", content=body + b" ", headers=[*proof.items()]),
                client.post(f"/webhooks/{source}?token={PERSONAL}{number}q", content=body, headers=[*odd.items()]),
                client.post(f"/webhooks/nobody-{number}", content=body),
                client.post(f"/webhooks/{source}", content=body[: len(body) // 2], headers=[*proof.items()]),
            ]
            told.outputs[f"answers to {sample}"] = "\n".join(answer.text for answer in answers)
        broken = b'{"lead": "' + f"{PERSONAL}0d".encode() + b'", '
        for name in ("inboundflow", "aisync", "callsync"):
            provider = next(sample.provider for sample in every_sample() if sample.provider.name == name)
            proof = dict(signed_headers(provider, broken, now_s=_now(), secret=SECRETS[name]))
            assert client.post(f"/webhooks/{name}", content=broken, headers=[*proof.items()]).status_code == 200
    answered = Client(f"http://127.0.0.1:{told.running.sql_port}", _token(told.running))
    try:
        until = "SELECT count(*) AS n FROM dead_letters WHERE reason = 'not_json'"
        told.running.until(lambda: answered.query(until).to_pylist()[0]["n"] >= 3, "all of it is applied")
    finally:
        answered.close()


def _with_canaries(body: bytes, told: Told) -> bytes:
    try:
        value: Any = json.loads(body)
    except ValueError:
        return body
    for path in list(every_path(value)):
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if isinstance(holder[path[-1]], str) and path[-1] not in KEPT:
            told.planted += 1
            word = f"{PERSONAL}{told.planted}x"
            holder[path[-1]] = f"{holder[path[-1]]} {NASTY.format(word) if told.planted % 7 == 0 else word}"
    return json.dumps(value).encode()


def _collect(told: Told, folder: Path, environment: dict[str, str]) -> None:
    running = told.running
    for name, port in (("ingest", running.ingest_port), ("worker", running.sql_port)):
        for page in ("metrics", "readyz", "healthz", f"nothing/{PERSONAL}0p"):
            told.outputs[f"{name} /{page[:7]}"] = httpx.get(f"http://127.0.0.1:{port}/{page}").text
    for words in COMMANDS:
        done = subprocess.run(
            [*COMMAND, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        told.outputs[f"calltally {' '.join(words)}"] = done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    told.outputs["log"] = "\n".join(running.lines)


def _token(running: Running) -> str:
    return (running.data / "sql.token").read_text().strip()


def _now() -> int:
    return int(time.time())
