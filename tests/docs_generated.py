"""The generated parts of README.md: what the code knows is written there by `make docs` and compared by a test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from analytics.metric import catalogue
from calls.provider import discover
from calls.settings import described

README = Path(__file__).parent.parent / "README.md"


def generated(text: str) -> str:
    """The page with every generated part as it should be."""
    for name, make in PARTS.items():
        begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"README.md has no part '{name}'")
        text = f"{before}{begin}\n{make()}\n{end}{rest.partition(end)[2]}"
    return text


def _providers() -> str:
    parts = []
    for provider in discover().values():
        text = provider.connect.replace("{url}", f"https://your-host/webhooks/{provider.name}").strip()
        head = f"<details><summary><b>{provider.title}</b></summary>"
        parts.append(f"{head}\n\n{text}\n\n[Vendor page]({provider.docs_url})\n\n</details>\n")
    return "\n".join(parts)


def _metrics() -> str:
    lines = ["| Metric | Name | Unit | Better | What it is |", "| --- | --- | --- | --- | --- |"]
    for metric in catalogue().values():
        lines.append(f"| {metric.title} | `{metric.name}` | {metric.unit} | {metric.better} | {metric.about} |")
    return "\n".join(lines) + "\n"


def _settings() -> str:
    lines = ["| Setting | Variable | Default | What it does |", "| --- | --- | --- | --- |"]
    for setting in described():
        variable = f"`{setting.variable}`" if setting.variable else ""
        default = f"`{setting.default}`" if setting.default else ""
        lines.append(f"| `{setting.key}` | {variable} | {default} | {setting.description} |")
    return "\n".join(lines) + "\n"


PARTS: Mapping[str, Callable[[], str]] = {"providers": _providers, "metrics": _metrics, "settings": _settings}

if __name__ == "__main__":
    written = generated(README.read_text(encoding="utf-8"))
    if "--write" in sys.argv:
        README.write_text(written, encoding="utf-8")
    else:
        print(written)
