# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PREFECT_SERVER_UI_V2_ENABLED = false
export DO_NOT_TRACK = 1

.PHONY: help demo test test-system lint docs ui lock browser clean
.DEFAULT_GOAL := help

help:  ## Show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, found {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

DATA := demo/phantoms
demo: $(VENV)/.installed  ## Run the whole pipeline on phantoms, or on DATA=folder in the published layout
	test "$(DATA)" != demo/phantoms || test -f demo/phantoms/dataset.csv \
	|| $(BIN)/pedfrac phantom demo/phantoms --images 1400 --scale 0.35 --severity 0.8
	PREFECT_HOME=$(CURDIR)/demo/prefect PREFECT_LOGGING_EXTRA_LOGGERS=pedfrac,flows,tasks $(BIN)/pedfrac retrain --config demo.yaml --data "$(DATA)"

ui: $(VENV)/.installed  ## Open Prefect (4200) and MLflow (5000) on what the demo left
	@echo "Prefect  http://127.0.0.1:4200    MLflow  http://127.0.0.1:5000    (Ctrl-C ends both)"
	@trap 'kill 0' INT TERM EXIT; \
	PREFECT_HOME=$(CURDIR)/demo/prefect $(BIN)/prefect server start --port 4200 & \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --port 5000 \
	    --backend-store-uri sqlite:///demo/artifacts/mlflow.db & wait

# Most tests wait for one process or another, so two at a time take little more than half the time;
# those of the system come first, since the longest must not come last.
test: $(VENV)/.installed browser  ## Install and run the tests, but for those of the platform
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not platform" \
	    -n 2 --dist loadfile --no-loadscope-reorder

test-system: $(VENV)/.installed browser  ## Run the tests of the platform: real servers and workers
	$(BIN)/python -m pytest -m platform

lint: $(VENV)/.installed  ## Check style, types and import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(VENV)/.installed  ## Build the documentation in build/docs
	$(BIN)/python -m mkdocs build --strict

# The report is looked at in a real browser; where none can be installed, that test says so.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	|| echo "No Chromium here: the browser tests will be skipped"

lock:  ## Resolve the dependencies anew
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	$(VENV)/lock/bin/uv pip compile --universal --python-version 3.11 --extra dev --extra server --quiet \
	    --no-emit-index-url --no-header --no-annotate --output-file requirements.lock pyproject.toml

clean:  ## Remove what the demo made
	rm -rf demo
