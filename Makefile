# Every target sets up what it needs; `make help` lists them.
# On a fresh machine start with `make app` or `make test`, in either order.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SMALL  := $(addprefix tests/,app faults fuzz golden property unit)
APART  := tests/families # has a target of its own
FOUND  := $(sort $(patsubst %/,%,$(dir $(wildcard tests/*/test_*.py))))
LARGE  := $(filter-out $(SMALL) $(APART),$(FOUND))
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable

# Tests start hundreds of processes. Where this is set, as in many containers, each of them would
# compile our modules anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install app demo test long soak families gpu gpu-bench check audit fast bench fuzz faults golden docs clean starter chromium

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Install everything into .venv (done once, again when the versions change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>&1 || true). Say which to use: make PYTHON=python3.11 ..."; \
	  exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
	  echo "Python could not make a virtual environment; on Debian: apt-get install python3-venv."; \
	  exit 1; }
	@echo "Installing into $(VENV): a few minutes the first time."
	@$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $@

app: install starter ## Open the dashboard on the results in results/
	$(BIN)/streamlit run app.py

demo: install ## The whole way in the shell: distil and measure two students (10 minutes at most)
	$(BIN)/explorer demo

test: export HF_HUB_OFFLINE = 1
test: install starter chromium ## Run the tests, browser, Ray and end-to-end included
	# First what is small, in one thread each; then, whatever came out, what starts servers, browsers
	# and whole runs, which wait for each other so much that three processes fill two cores. Those
	# for a GPU skip where there is none, and say so.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not long' -n 2 --dist loadfile --durations 15 $(SMALL); small=$$?; \
	  $(BIN)/python -m pytest -m 'not long' -n 3 --dist loadfile --durations 15 $(LARGE) \
	  && exit $$small

long: export HF_HUB_OFFLINE = 1
long: install starter ## Run the tests that take minutes: the demo, several processes, tournaments, lm-eval beside us
	$(BIN)/python -m pytest -m long --durations 0 tests

soak: install ## Put 500 tiny jobs through the queue and count what they leave behind (half an hour)
	EXPLORER_SOAK_RUNS=500 $(BIN)/python -m pytest -m long -s --durations 0 tests/ray/test_soak.py

families: export HF_HUB_OFFLINE = 1
families: install ## Tiny models of many architectures through every step; compiles llama.cpp first
	$(BIN)/pip install --quiet -e '.[edge]' -c constraints.txt
	@began=$$(date +%s); OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not long' --durations 5 \
	  tests/families tests/unit/test_llamacpp.py; status=$$?; \
	  echo "make families took $$(( $$(date +%s) - began )) seconds."; exit $$status

gpu: export HF_HUB_OFFLINE = 1
gpu: install ## Check the product on this machine's accelerator, in less than 4 minutes (DEVICE=cpu tests the script)
	@$(BIN)/python -m tests.gpu.check --device $(or $(DEVICE),auto)

gpu-bench: export HF_HUB_OFFLINE = 1
gpu-bench: install ## Time the product on the accelerator beside plain transformers and lm-eval; prints ratios
	@$(BIN)/python -m tests.gpu.bench --device $(or $(DEVICE),auto)

check: install ## Lint, format, types, import rules, spelling, the catalogue
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/explorer catalogue check

audit: install ## Look for known vulnerabilities in the pinned packages (asks a database on the internet)
	@$(BIN)/pip install --quiet 'pip-audit>=2.9'
	# Strict: a package that the database does not know, or no database, is a failure.
	$(BIN)/pip-audit --strict --requirement constraints.txt --disable-pip --no-deps --progress-spinner off

fast: export HF_HUB_OFFLINE = 1
fast: install ## Run the unit tests only: seconds, on every save
	$(BIN)/python -m pytest tests/unit

bench: install starter ## Run the benchmarks against peers; each prints a ratio
	@$(BIN)/pip install --quiet -e '.[bench]' -c constraints.txt
	@set -e; for script in benchmarks/*.py; do \
	  test -e "$$script" || { echo "There is no benchmark in benchmarks/ yet."; exit 1; }; \
	  echo "== $$script"; $(BIN)/python "$$script"; done

fuzz: export HF_HUB_OFFLINE = 1
fuzz: install ## Feed every reader of outside data with 10,000 damaged files; a JSON line for each
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.harness

faults: export HF_HUB_OFFLINE = 1
faults: install starter ## Try hundreds of faults on runs and stores (an hour at most); a table and a JSON line
	@$(BIN)/python -m tests.faults.harness

golden: export HF_HUB_OFFLINE = 1
golden: install starter ## Rewrite the golden files; review the diff before you commit it
	$(BIN)/python -m pytest tests/golden -m '' --rewrite

docs: install ## Write docs/cli.md from the commands' own help
	$(BIN)/python -m typer explorer.cli utils docs --name explorer --output docs/cli.md

clean: ## Remove .venv and the caches of the tools; results/ stays
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find explorer tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The starter teacher, 98 MB, once, into the user's cache; its checksum is pinned.
starter: install
	@$(BIN)/explorer fetch-starter

# A browser for the browser tests and for figures as PNG: the one that is here, else Debian's.
chromium:
	@test -x "$$CHROME_PATH" && exit 0; \
	for name in $(BROWSERS); do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the browser tests."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
	  echo "The browser tests need Chromium or Chrome. Install one," \
	    "or set CHROME_PATH to its executable."; exit 1; fi
