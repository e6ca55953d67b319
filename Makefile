# `make demo` and `make test` are all a newcomer needs; both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: setup demo demo-kafka test lint format bench faults docs lock clean

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup  ## the whole product on this machine, with demo traffic; UP="--ingest-port 9000" passes options
	$(BIN)/calltally up --demo $(UP)

demo-kafka: setup  ## the same through a real Kafka: Java and Maven bring one, or CALLTALLY_KAFKA_BOOTSTRAP_SERVERS names one
	$(BIN)/python -m tools.kafka.demo $(UP)

test: setup  ## every test, file by file on all processors
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

lint: setup  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## the figures of benchmarks/README.md
	$(BIN)/python -m benchmarks

faults: setup  ## the long fault runs of docs/faults.md; goes on where it was interrupted
	$(BIN)/python -m tests.faults
	CALLTALLY_FAULTS=long $(BIN)/pytest tests/faults tests/kafka --timeout=0
	$(BIN)/python -m tests.faults.histories
	$(BIN)/python -m tests.faults.hostile_http
	$(BIN)/python -m tests.faults.hostile_content
	$(BIN)/python -m tests.faults.mutants
	$(BIN)/python -m tests.faults.soak
	$(BIN)/python -m tests.faults.soak --kafka

docs: setup  ## write the generated parts of README.md and docs/
	$(BIN)/python -m tests.docs_generated --write

lock:  ## pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev pyproject.toml -o requirements.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
