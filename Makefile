# The front door. `make demo` and `make test` do all of their own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# every process of Tripshark would compile its modules anew
export PYTHONDONTWRITEBYTECODE :=
STAMP := $(VENV)/.stamp
SYSTEM := python3-venv libpcap0.8 tshark tcpdump iproute2 util-linux mount procps openssl
# what tests run beside: a container runtime, an API server's store, a database
TEST_SYSTEM := containerd runc containernetworking-plugins busybox-static iptables podman etcd-server postgresql systemd chromium
# tests of one process or of few, which do not mind others beside them: two at a time
BESIDE := $(addprefix tests/,model formats report web analysis signin) $(wildcard tests/test_*.py)
TWO_AT_A_TIME := -n 2 --dist loadfile
BENCH_SYSTEM := netsniff-ng iperf3 ethtool gcc libc6-dev

.PHONY: help setup demo test check fix bench fuzz manifests lock clean
help:           ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(STAMP) ## system packages and the virtual environment
$(STAMP): requirements.lock pyproject.toml deploy/system-packages
	@deploy/system-packages $(SYSTEM)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup     ## the whole job in under a minute, with real packets
	@$(BIN)/tripshark demo

test: setup     ## every test
	@deploy/system-packages $(TEST_SYSTEM) $$(command -v kubectl >/dev/null || echo kubernetes-client)
	@$(BIN)/python -m pytest -q $(TWO_AT_A_TIME) $(BESIDE)
	@$(BIN)/python -m pytest -q $(BESIDE:%=--ignore=%)

check: setup    ## linters, types, import contracts, coverage of the pure core
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q $(TWO_AT_A_TIME) tests/model tests/formats --cov=tripshark.model --cov=tripshark.formats --cov-report=term-missing:skip-covered --cov-fail-under=100

fix: setup      ## format and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup    ## side by side with the tools a user would use instead; writes docs/performance.md
	@deploy/system-packages $(BENCH_SYSTEM)
	@$(BIN)/python -m bench

fuzz: setup     ## coverage-guided fuzzing of every parser, 60 s each
	@$(BIN)/python -m tests.fuzz --seconds 60

manifests: setup ## the chart's generated files, and deploy/manifests with Helm
	@$(BIN)/python deploy/generate

lock:           ## pin every dependency again
	@$(PYTHON) -m venv /tmp/tripshark-lock && /tmp/tripshark-lock/bin/pip install -q uv
	@printf "hatchling\neditables\n" | /tmp/tripshark-lock/bin/uv pip compile -q pyproject.toml - --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock
	@/tmp/tripshark-lock/bin/uv pip compile -q pyproject.toml -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o deploy/requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
