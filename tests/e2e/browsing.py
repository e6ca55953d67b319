"""What tests of pages share: a running site with calls of all four platforms, and a watched tab of a real Chromium."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from playwright.sync_api import Locator, Page, expect

from analytics.access import read_token
from analytics.client import Client
from calls import settings as all_settings
from calls.provider import named
from calls.signing import sign
from tests.e2e.test_up import Running

PROVIDERS = ("synthflow", "inboundflow", "aisync", "callsync")
VIEWERS_ZONE = "Europe/Berlin"
HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'> **bold** [link](javascript:alert(1)) "
    "$x^2$ :smile: :material/bolt: \u202egnp.exe &amp; `code`"
)


@dataclass
class Site:
    """Everything running, as its owner sees it."""

    running: Running
    folder: Path

    def url(self, page: str = "", /, **values: str) -> str:
        """The address of a page."""
        query = f"?{urlencode(values)}" if values else ""
        return f"http://127.0.0.1:{self.running.dashboard_port}/{page}{query}"

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Rows, asked past all pages."""
        client = Client(f"http://127.0.0.1:{self.running.sql_port}", read_token(self.running.data / "sql.token") or "")
        try:
            rows: list[dict[str, Any]] = client.query(text).to_pylist()
        finally:
            client.close()
        return rows

    def number(self, text: str) -> int:
        """The one number that a query gives."""
        return int(next(iter(self.sql(text)[0].values())))

    def post(self, source: str, body: bytes) -> None:
        """A webhook as that source would send it."""
        signed = self.signed(source, body)
        answer = httpx.post(
            f"http://127.0.0.1:{self.running.ingest_port}/webhooks/{source}", content=body, headers=signed
        )
        assert answer.status_code == 200, answer.text

    def signed(self, source: str, body: bytes) -> dict[str, str]:
        """The headers that prove a body."""
        known = all_settings.load(self.folder).sources[source]
        provider = named(known.provider)
        signed_id = provider.signed_id(body) if provider.signed_id is not None else b""
        proof = sign(provider.scheme, known.secrets[0], body, now_s=int(time.time()), signed_id=signed_id)
        return {"content-type": "application/json", **proof}

    def call(self, source: str = "inboundflow", **told: object) -> str:
        """Send one finished call of now (or `at`), and wait until it is stored; gives its id."""
        call_id = str(told.pop("call_id", uuid.uuid4()))
        now = str(told.pop("at", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")))
        data = {"call_id": call_id, "duration_seconds": 61, "started_at": now, **told}
        self.post(source, json.dumps({"event": "call.completed", "timestamp": now, "data": data}).encode())
        self.running.until(
            lambda: bool(self.sql(f"SELECT 1 AS one FROM calls WHERE call_id = '{call_id}'")), "the call"
        )
        return call_id

    def sample(self, source: str, name: str, **changed: object) -> None:
        """Send a provider's sample, as of now, with these fields of its call changed."""
        body = json.loads((named(source).samples / f"{name}.json").read_text())
        body["call"] |= {"start_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **changed}
        self.post(source, json.dumps(body).encode())


@dataclass
class Watched:
    """A tab, with all that it complained of and asked for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def from_outside(self) -> list[str]:
        """What was asked of anything but this machine."""
        return [url for url in self.asked if not re.match(r"(https?://127\.0\.0\.1:|data:|blob:)", url)]


def tile(page: Page, name: str) -> Locator:
    """The tile of a metric."""
    return page.locator(f'button.tile[data-name="{name}"]')


def digits(place: Locator) -> str:
    """The number in an element, whatever separates its thousands; empty where there is none (yet)."""
    return re.sub(r"\D", "", place.inner_text()) if place.count() else ""


def shows(page: Page, name: str, number: int, seconds: float = 60) -> float:
    """Wait until a tile shows a number; gives the seconds it took."""
    figure = tile(page, name).locator(".figure")
    return wait(page, lambda: digits(figure) == str(number), f"{name} is {number}", seconds)


def bar(page: Page, card: str, *words: str) -> Locator:
    """Of the bars of a card's finished picture that tell all these words the biggest: one of a pixel is no target."""
    settled(page)
    chart = page.locator('[data-testid="stVerticalBlock"]', has_text=card).locator('[data-testid="stVegaLiteChart"]')
    bars = chart.locator(".mark-rect path" + "".join(f'[aria-label*="{word}"]' for word in words))
    bars.first.wait_for(state="attached")
    sizes = bars.evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect()).map((place) => place.width * place.height)"
    )
    return bars.nth(sizes.index(max(sizes)))


def point_at(page: Page, shown: Locator) -> None:
    """Move to a bar of the finished picture, until it says that it can be clicked."""
    settled(page)
    shown.hover()
    expect(page.locator("#vg-tooltip-element.visible")).to_contain_text("for its calls")


def settled(page: Page) -> None:
    """Wait until the page is drawn to its end: what is drawn anew loses the focus, and what it offered as a file."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()


def wait(page: Page, condition: Callable[[], bool], what: str, seconds: float = 60) -> float:
    """Wait for a condition that no locator expresses; gives the seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        page.wait_for_timeout(30)
    raise AssertionError(f"not within {seconds} s: {what}\n{page.inner_text('body')[:2000]}")


def addressed(page: Page, **values: str) -> None:
    """Wait until the address holds these values, in whatever order, the viewer's own zone, and no others."""
    wanted = {"zone": VIEWERS_ZONE, **values}
    wait(page, lambda: dict(parse_qsl(urlsplit(page.url).query)) == wanted, f"the address holds {wanted}")


def luminance(colour: str) -> float:
    """Of `rgb(r, g, b)`, from 0 to 1, as WCAG has it."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(page: Page, selector: str) -> float:
    """Of an element's text against all that is painted behind it."""
    told: Mapping[str, str] = page.locator(selector).first.evaluate(
        """(shown) => {
            const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
            const layers = [];
            const outer = (one) => one.parentElement || one.parentNode?.host;
            for (let at = shown; at; at = outer(at)) layers.push(getComputedStyle(at).backgroundColor);
            const paint = (colour) => { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); };
            const seen = () => `rgb(${[...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).join(", ")})`;
            layers.reverse().forEach(paint);
            const paper = seen();
            paint(getComputedStyle(shown).color);
            return {ink: seen(), paper};
        }"""
    )
    return ratio(told["ink"], told["paper"])


def ratio(ink: str, paper: str) -> float:
    """The contrast of two colours, from 1 to 21."""
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
