# Everything a clone needs: `make demo` shows the main job, `make test` passes the tests.
# Both set up what they need under .venv and leave nothing else behind.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROTOS := $(wildcard protos/rxoutflow/v1/*.proto)
STUBS  := clients/rxoutflow/v1

# Compiled Python is kept below .venv, also where the environment wants none to be kept: otherwise
# each of the servers and processes that tests start would compile everything for itself.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache

.DEFAULT_GOAL := help
.PHONY: help demo test sim bench check generate setup clean

help: ## Show what can be made.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Set up the environment under .venv.

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rxoutflow needs Python 3.11 or newer; set PYTHON=... to one" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python lacks venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev --editable .
	@touch $@

demo: $(READY) ## Run the main job across five regions and tell what happened.
	@$(BIN)/rxoutflow-server sandbox --run clients/demo.py -- --report demo-report.json

test: $(READY) ## Run every test of the gate.
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

sim: $(READY) ## Replay one simulated run (SEED=7), or run many (SEEDS=2000 START=0).
	@cd tests && ../$(BIN)/python -m simulation $(if $(SEED),--seed $(SEED)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(START),--start $(START))

BENCH := $(BIN)/python tests/benchmarks

bench: $(READY) ## Measure calls, costs by component, a slow disk, growth and ten minutes; 40 minutes, 40 GiB of disk.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@mkdir -p build
	@$(BENCH)/bench_exchange.py --out build/bench.json
	@$(BENCH)/plot_exchange.py build/bench.png build/bench.json
	@$(BENCH)/profile_exchange.py --out build/profile.json
	@$(BENCH)/slow_disk.py --out build/slow-disk.json
	@$(BENCH)/growth.py --out build/growth.json --plot build/growth.png
	@$(BENCH)/soak.py --out build/soak.json --plot build/soak.png
	@echo "results and plots: build/"

check: $(READY) ## Check style, types, import rules, the contract and the committed stubs.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/contract.py check
	$(BIN)/python .ci/docs.py check

generate: $(READY) ## Generate anew what is generated: stubs, error catalogue, state tables.
	$(BIN)/python .ci/contract.py generate
	$(BIN)/python .ci/docs.py generate
	$(BIN)/python .ci/catalogues.py generate

clean: ## Remove everything that was set up or built.
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
