"""Whether a text is one query that only reads the public tables: an allow-list over the tree of DuckDB's own parser.

`allowed_sql.toml` names every kind of node, every field of one, every table, function and type that may occur; the rest
is refused, whatever it is. This is not the only wall: the query then runs read-only, with external access off and the
configuration locked, so that a hole here still meets one of them.
"""

from __future__ import annotations

import difflib
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import duckdb
import msgspec

from analytics.sizes import GROWTH_MAX, growth
from calls.errors import QueryError

Node: TypeAlias = dict[str, object]
Parse: TypeAlias = Callable[[str], str]
"""From SQL to the JSON of `json_serialize_sql`."""
Fields: TypeAlias = Mapping[str, str | None]
"""The fields of a kind of node: the family of what a field holds (with `*`: a list of them), None where it is plain."""

TEXT_MAX: Final = 100_000
"""Bytes of a query; the parser's time grows with the square of what is nested."""

_SERIALISE = "SELECT json_serialize_sql($sql, skip_null := true, skip_empty := true, skip_default := true)"
_EVERYWHERE = frozenset({"class", "type", "alias", "query_location", "query_location_length"})
_PIVOT = (
    "PIVOT cannot be used as a statement here. Write it as FROM calls PIVOT (count(*) FOR provider IN ('synthflow', "
    "'aisync')), or as count(*) FILTER (WHERE provider = 'synthflow')."
)


def check(sql: str, parse: Parse) -> None:
    """Raise QueryError unless the text is exactly one query made of nothing but what is allowed.

    Codes: not_one_statement, not_a_select, syntax_error, syntax_not_allowed, table_not_allowed, function_not_allowed,
    type_not_allowed, bad_parameters, too_large.
    """
    if len(sql.encode("utf-8", "surrogatepass")) > TEXT_MAX:
        raise QueryError(f"The query is longer than {TEXT_MAX:,} bytes. Shorten it.", code="too_large")
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in sql):
        raise QueryError("The query holds characters that are not text.", code="syntax_error")
    try:
        tree = msgspec.json.decode(parse(sql), type=dict[str, object])
        statements = _statements(sql, tree)
        if len(statements) != 1:
            raise _not_one(len(statements))
        _Walk().visit(statements[0], "statement", frozenset())
    except RecursionError:
        raise QueryError("The query is nested too deeply. Split it with WITH.", code="too_large") from None


def parser(cursor: duckdb.DuckDBPyConnection) -> Parse:
    """How a cursor's own parser reads SQL."""

    def parse(sql: str) -> str:
        ((text,),) = cursor.execute(_SERIALISE, {"sql": sql}).fetchall()
        return str(text)

    return parse


class _Allowed:
    """What `allowed_sql.toml` says."""

    def __init__(self, path: Path) -> None:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        names = {title: tuple(shlex.split(text)) for title, text in data["names"].items()}
        self.tables: tuple[str, ...] = names["tables"]
        self.table_functions = frozenset(names["table_functions"])
        self.types = frozenset(names["types"])
        self.functions = frozenset(name for text in data["functions"].values() for name in text.split())
        self.instead: dict[str, str] = data["instead"]
        self.grammar: dict[str, dict[str, Fields]] = {
            family: {kind: _fields(text) for kind, text in kinds.items()} for family, kinds in data["grammar"].items()
        }


def _fields(text: str) -> Fields:
    parts = (word.partition(":") for word in text.split())
    return {name: family or None for name, _, family in parts}


ALLOWED: Final = _Allowed(Path(__file__).with_name("allowed_sql.toml"))


class _Walk:
    """One walk through a statement; `scope` holds the names of the WITH clauses that are visible."""

    def __init__(self) -> None:
        self._growth = 1

    def visit(self, node: object, family: str, scope: frozenset[str]) -> None:
        if not isinstance(node, dict):
            _refuse_node(family, type(node).__name__)
        kind, fields = _kind(node, family)
        match family, kind:
            case "query", "RECURSIVE_CTE_NODE":
                self._recursion(node, fields, scope)
                return
            case "query", _:
                scope = self._with(node.get("cte_map", {}), scope)
                node = {name: value for name, value in node.items() if name != "cte_map"}
            case "table", "BASE_TABLE":
                _check_table(node, scope)
            case "table", "TABLE_FUNCTION":
                self._table_function(node.get("function"), scope)
                node = {name: value for name, value in node.items() if name != "function"}
            case "table", "SHOW_REF":
                _check_show(node)
                # What DESCRIBE sees of the WITH clauses around it is not for us to guess.
                scope = frozenset()
            case "expression", "FUNCTION":
                self._function(node)
            case "expression", "TYPE":
                _check_type(node)
            case "expression", "VALUE_PARAMETER":
                _check_parameter(node)
            case "expression", _ if kind.startswith("WINDOW_"):
                _check_function(_function_name(node))
        self._descend(node, kind, fields, scope)

    def _descend(self, node: Node, kind: str, fields: Fields, scope: frozenset[str]) -> None:
        for name, value in node.items():
            if name in fields and (family := fields[name]) is not None:
                if family.endswith("*"):
                    for item in _flat(value):
                        self.visit(item, family[:-1], scope)
                else:
                    self.visit(value, family, scope)
            elif (name not in fields and name not in _EVERYWHERE) or not _plain(value):
                _refuse_node(kind, name)

    def _with(self, clauses: object, scope: frozenset[str]) -> frozenset[str]:
        """Each clause sees those before it, never itself: `WITH x AS (FROM x)` reads a table."""
        entries = clauses.get("map", []) if isinstance(clauses, dict) else None
        if not isinstance(entries, list) or not isinstance(clauses, dict) or clauses.keys() - {"map"}:
            _refuse_node("WITH", "clause")
        for entry in entries:
            self.visit(entry, "cte", scope)
            scope |= {_fold(str(entry["key"]))}
        return scope

    def _recursion(self, node: Node, fields: Fields, scope: frozenset[str]) -> None:
        """Only the recursive half sees the clause itself."""
        scope = self._with(node.get("cte_map", {}), scope)
        rest = {name: value for name, value in node.items() if name not in ("cte_map", "right")}
        self._descend(rest, "RECURSIVE_CTE_NODE", fields, scope)
        self.visit(node.get("right"), "query", scope | {_fold(str(node.get("cte_name")))})

    def _table_function(self, call: object, scope: frozenset[str]) -> None:
        """Those in FROM come in portions, so their sizes need no bound."""
        if not isinstance(call, dict) or call.get("type") != "FUNCTION":
            _refuse_node("TABLE_FUNCTION", "function")
        name = _function_name(call)
        if name not in ALLOWED.table_functions or len(_path(call)) != 1:
            _refuse_function(name, ALLOWED.table_functions)
        self._descend(call, "FUNCTION", ALLOWED.grammar["expression"]["FUNCTION"], scope)

    def _function(self, node: Node) -> None:
        name = _function_name(node)
        _check_function(name)
        arguments = node.get("arguments", [])
        if not isinstance(arguments, list):
            _refuse_node("FUNCTION", "arguments")
        self._growth *= growth(name, arguments, chained=len(_path(node)) > 1)
        if self._growth > GROWTH_MAX:
            raise QueryError(
                f"The lists and texts that this query makes could grow {self._growth:,}-fold; at most {GROWTH_MAX:,} "
                "is allowed, all functions together. Use smaller numbers, or range and generate_series in FROM.",
                code="too_large",
            )


def _kind(node: Node, family: str) -> tuple[str, Fields]:
    kinds = ALLOWED.grammar[family]
    if (fields := kinds.get("any")) is not None:
        return family, fields
    kind = node.get("type")
    if not isinstance(kind, str):
        _refuse_node(family, "without a type")
    if family == "expression" and kind.startswith("WINDOW_"):
        return kind, ALLOWED.grammar["window"]["any"]
    if (fields := kinds.get(kind)) is None:
        _refuse_node(family, kind)
    return kind, fields


def _check_table(node: Node, scope: frozenset[str]) -> None:
    path = _path(node)
    if not path or node.get("table_name") != path[-1]:
        _refuse_node("BASE_TABLE", "name")
    name = _fold(path[-1])
    if len(path) == 1 and name in scope:
        return
    if name in ALLOWED.tables and [_fold(part) for part in path[:-1]] in ([], ["main"]):
        return
    near = difflib.get_close_matches(name, [*ALLOWED.tables, *scope], n=2, cutoff=0.6)
    there = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(ALLOWED.tables)}."
    raise QueryError(f"There is no table '{'.'.join(path)}' to query. {there}", code="table_not_allowed")


def _check_show(node: Node) -> None:
    show_type = node.get("show_type")
    if "query" in node and show_type in ("DESCRIBE", "SUMMARY"):
        return
    if show_type == "SHOW":
        _check_table(node, frozenset())
    elif show_type != "SHOW_SPECIAL" or node.get("table_name") != '"tables"':
        raise QueryError(
            "Only SHOW TABLES, SHOW, DESCRIBE and SUMMARIZE of a table or query can be used here.",
            code="syntax_not_allowed",
        )


def _check_function(name: str) -> None:
    if name not in ALLOWED.functions:
        _refuse_function(name, ALLOWED.functions)


def _check_type(node: Node) -> None:
    name, path = str(node.get("type_name")), _path(node)
    if len(path) > 1 or (path and path[0] != name) or _fold(name) not in ALLOWED.types:
        raise QueryError(f"The type '{'.'.join(path) or name}' cannot be used here.", code="type_not_allowed")


def _check_parameter(node: Node) -> None:
    if not str(node.get("identifier")).isidentifier():
        raise QueryError("Parameters are written $name, with a name of letters, digits and _.", code="bad_parameters")


def _function_name(node: Node) -> str:
    name, path = node.get("function_name"), _path(node)
    if not isinstance(name, str) or (path and path[-1] != name):
        _refuse_node("FUNCTION", "name")
    return _fold(name)


def _path(node: Node) -> list[str]:
    name = node.get("qualified_name")
    path = name.get("path", []) if isinstance(name, dict) else []
    return [str(part) for part in path]


def _fold(name: str) -> str:
    """As DuckDB compares names: only the case of ASCII letters does not count."""
    return name.lower() if name.isascii() else name


def _plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float)


def _flat(value: object) -> Iterable[object]:
    """The items of a list; VALUES holds a list for each row."""
    if not isinstance(value, list):
        return (value,)
    return (inner for item in value for inner in (_flat(item) if isinstance(item, list) else (item,)))


def _refuse_node(kind: str, what: str) -> NoReturn:
    if what.endswith("_QUERY_NODE"):
        verb = what.removesuffix("_QUERY_NODE")
        raise QueryError(f"{verb} is not possible here: queries only read.", code="not_a_select")
    raise QueryError(
        f"This query uses something that is not allowed here ({kind.lower()}: {what.lower()}). Use plainer SQL.",
        code="syntax_not_allowed",
    )


def _refuse_function(name: str, allowed: frozenset[str]) -> NoReturn:
    if (other := ALLOWED.instead.get(name)) is not None:
        hint = f"Use {other}."
    elif near := difflib.get_close_matches(name, allowed, n=2, cutoff=0.75):
        hint = f"Did you mean {' or '.join(near)}?"
    else:
        hint = "Queries read the tables of the store; nothing else can be reached from them."
    raise QueryError(f"The function '{name}' cannot be used here. {hint}", code="function_not_allowed")


def _statements(sql: str, tree: Node) -> list[object]:
    if not tree.get("error"):
        found = tree.get("statements")
        return found if isinstance(found, list) else []
    words = _words(sql)
    count = _statement_count(words)
    if count == 0:
        raise _not_one(0)
    if tree.get("error_type") != "not implemented":
        raise QueryError(_syntax_message(str(tree.get("error_message")), sql, tree), code="syntax_error")
    if count > 1:
        raise _not_one(count)
    if any(word == "pivot" for word in words):
        raise QueryError(_PIVOT, code="not_a_select")
    raise QueryError(
        f"{words[0].upper()} is not possible here; SELECT, FROM, WITH, VALUES, DESCRIBE, SHOW and SUMMARIZE are.",
        code="not_a_select",
    )


def _words(sql: str) -> list[str]:
    """The tokens of a text without comments, in small letters."""
    tokens = duckdb.tokenize(sql)
    data = sql.encode()
    ends = [start for start, _ in tokens[1:]] + [len(data)]
    texts = (
        data[start:end].decode(errors="replace").strip().lower()
        for (start, kind), end in zip(tokens, ends, strict=True)
        if kind != duckdb.token_type.comment
    )
    return [text for text in texts if text]


def _statement_count(words: list[str]) -> int:
    count, started = 0, False
    for word in words:
        if word == ";":
            started = False
        elif not started:
            started, count = True, count + 1
    return count


def _not_one(count: int) -> QueryError:
    if count == 0:
        message = "There is no query. Write one, such as SELECT count(*) FROM calls."
    else:
        message = f"These are {count} statements; exactly one can be run at a time."
    return QueryError(message, code="not_one_statement")


def _syntax_message(message: str, sql: str, tree: Node) -> str:
    position = str(tree.get("position", ""))
    if not position.isdigit():
        return f"The query cannot be read: {message}"
    before = sql.encode()[: int(position)].decode(errors="replace")
    line = before.count("\n") + 1
    return f"The query cannot be read: {message} (line {line}, column {len(before) - before.rfind(chr(10))})."
