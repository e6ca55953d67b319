"""The generated parts of the documentation: what the code knows is written by `make docs` and compared by a test."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from analytics.metric import catalogue
from analytics.store import Store
from calls.model import Rules
from calls.provider import discover
from calls.settings import described
from streams.announce import call_schema

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"


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


def _call_schema() -> str:
    """The JSON Schema of `calltally.calls`; fields are described as the columns they are published from."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **call_schema()}
    comments = _comments()
    for name, table in _TABLES.items():
        for field, said in schema["$defs"][name]["properties"].items():
            if (table, field) in comments:
                said["description"] = comments[table, field]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _comments() -> dict[tuple[str, str], str]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store.duckdb", rules=Rules())
        try:
            with store.cursor() as cursor:
                rows = cursor.execute('SELECT "table", "column", comment FROM schema_columns').fetchall()
        finally:
            store.close()
    return {(table, column): comment for table, column, comment in rows}


_TABLES = {
    "CallRecord": "calls", "Analysis": "call_analysis", "Variable": "call_variables", "Action": "call_actions",
    "Appointment": "appointments", "Lead": "leads",
}  # fmt: skip
PARTS: Mapping[str, Callable[[], str]] = {"providers": _providers, "metrics": _metrics, "settings": _settings}
FILES: Mapping[Path, Callable[[], str]] = {DOCS / "calltally.calls.schema.json": _call_schema}
"""Files that are generated as a whole."""

if __name__ == "__main__":
    written = {README: generated(README.read_text(encoding="utf-8")), **{path: make() for path, make in FILES.items()}}
    for path, text in written.items():
        if "--write" in sys.argv:
            path.write_text(text, encoding="utf-8")
        else:
            print(text)
