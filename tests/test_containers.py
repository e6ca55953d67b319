"""Dockerfile and compose files, as far as that goes without an engine; tests/kafka runs what they describe."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from calls.settings import load_without_secrets
from tests.command import ROOT
from tests.composing import COMPOSE, WITH_FILES, VariableMissing, read, services, variables_of

GIVEN = {"CALLTALLY_SQL_TOKEN": "a token of the tests", "CALLTALLY_DASHBOARD_PASSWORD_HASH": "$argon2id$made-up"}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PACKAGES = ("calls", "ingest", "streams", "analytics", "dashboard", "cli")


def instructions(word: str) -> list[str]:
    """What stands behind an instruction, each time it is used."""
    joined = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split(maxsplit=1)[1].strip() for line in joined.splitlines() if line.startswith(f"{word} ")]


@pytest.mark.parametrize("path", [COMPOSE, WITH_FILES], ids=lambda path: path.name)
def test_the_compose_files_follow_the_specification(path: Path) -> None:
    """As its published schema has it."""
    # The package's own command does not start beside this version of click; its schemas are all that is needed.
    found = importlib.util.find_spec("check_jsonschema")
    assert found is not None
    assert found.origin is not None
    schema = json.loads((Path(found.origin).parent / "builtin_schemas/vendor/compose-spec.json").read_text())

    jsonschema.validate(read(path, GIVEN), schema)
    broken = read(path, GIVEN)
    broken["services"]["worker"]["mem_limt"] = "2g"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_compose_stops_where_a_secret_is_not_set(missing: str) -> None:
    """Inside a container everything listens beyond loopback."""
    with pytest.raises(VariableMissing, match=f"{missing}: Set it in .env, to"):
        services({name: value for name, value in GIVEN.items() if name != missing})


def test_every_variable_of_the_compose_file_is_in_the_example() -> None:
    """And the example names no other."""
    example = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    spare = {"KAFKA_CLUSTER_ID", "CALLTALLY_INGEST_PORT", "CALLTALLY_DASHBOARD_PORT", "CALLTALLY_ALLOW_UNSIGNED"}

    assert variables_of(COMPOSE) - spare == example


@pytest.mark.parametrize("name", ["ingest", "relay", "worker", "dashboard", "kafka"])
def test_every_service_is_fenced_in(name: str) -> None:
    """Bounded, watched, started again, stopped with patience, without rights, published on this machine only."""
    told = services(GIVEN)[name].told

    assert {"healthcheck", "mem_limit", "restart", "stop_grace_period"} <= set(told)
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert all(str(port).startswith("127.0.0.1:") for port in told.get("ports", []))
    assert "privileged" not in told
    if name != "kafka":
        assert told["read_only"] is True
        assert told["init"] is True
        assert "/data" in services(GIVEN)[name].volumes
        assert told["healthcheck"]["test"] == ["CMD", "calltally", "health", name]


def test_only_ingest_is_given_secrets_of_senders() -> None:
    """Neither in its environment nor in its settings folder does any other service find one."""
    secrets = {f"CALLTALLY_SECRET_{name}": "x" for name in ("SYNTHFLOW", "AISYNC")}
    for name, service in services({**GIVEN, **secrets}).items():
        assert any("_SECRET_" in variable for variable in service.environment) is (name == "ingest")
        assert ("/settings" in service.volumes) is (name == "ingest")


def test_the_broker_is_the_one_that_the_tests_run_against() -> None:
    """Of one version."""
    namespace = "{http://maven.apache.org/POM/4.0.0}"
    tested = ElementTree.parse(ROOT / "tools/kafka/pom.xml").findtext(f".//{namespace}kafka.version")
    assert services(GIVEN)["kafka"].told["image"] == f"apache/kafka:{tested}"


def test_secrets_may_stand_in_files(tmp_path: Path) -> None:
    """The second compose file: what is empty in the environment comes from /run/secrets."""
    told = services({**dict.fromkeys(GIVEN, "")}, COMPOSE, WITH_FILES)
    (tmp_path / "sql_token").write_text("a token in a file\n")
    (tmp_path / "dashboard_password_hash").write_text("$argon2id$in-a-file\n")
    mounted = {path.rpartition("/")[2] for service in told.values() for path in service.environment.values()
               if path.startswith("/run/secrets/")}  # fmt: skip

    for name in ("worker", "dashboard"):
        here = {key: value.replace("/run/secrets", str(tmp_path)) for key, value in told[name].environment.items()}
        settings = load_without_secrets(tmp_path, here)
        assert settings.sql_token == "a token in a file"
        assert (settings.dashboard_password_hash == "$argon2id$in-a-file") is (name == "dashboard")
    assert mounted == set(read(WITH_FILES, {})["secrets"])


def test_the_image_is_made_of_what_is_there() -> None:
    """Every package and nothing of the tests; the builder is sent all of it and no more."""
    copied = [words.split()[:-1] for words in instructions("COPY") if not words.startswith("--from")]
    sources = {source for some in copied for source in some}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert set(PACKAGES) <= sources
    assert sources == sent
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_the_image_is_installed_as_everything_else_is() -> None:
    """The same two commands as `make setup`, hashes required."""
    makefile = re.findall(r"\$\(BIN\)/(pip install .*)", (ROOT / "Makefile").read_text())
    assert [command for command in instructions("RUN") if command.startswith("pip install")] == makefile


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    """One base with its patch version; a user by number; nothing secret in it."""
    bases = {words.partition(" ")[0] for words in instructions("FROM")}

    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-[a-z]+", bases.pop())
    assert instructions("USER") == ["10001:10001"]
    assert instructions("HEALTHCHECK")
    assert instructions("ARG") == []
    assert not re.search("SECRET|TOKEN|PASSWORD|PRIVATE", DOCKERFILE)
    assert shlex.split(instructions("ENTRYPOINT")[0].strip("[]")) == ["calltally"]


def test_nothing_that_the_program_imports_is_left_out_of_the_image() -> None:
    """What tools/dev_only.py names is for tests, types and building only."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools/dev_only.py"], capture_output=True, text=True, check=True, timeout=60
    )
    left_out = set(done.stdout.split())
    imported = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                    imported.add(node.module.partition(".")[0])
    providing = packages_distributions()
    used = {name.lower() for module in imported for name in providing.get(module, [])}

    assert {"duckdb", "streamlit", "faust-streaming", "kafka-python", "argon2-cffi"} <= used
    assert used & left_out == set()
    assert {"pytest", "mypy", "playwright", "pip", "setuptools", "hypothesis"} <= left_out
