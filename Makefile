.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
# Any PEP 508 requirement or wheel: on a machine with a GPU, name the build that fits its driver.
TORCH ?= torch==2.13.0
BIN := .venv/bin
PROTOS := $(wildcard protos/speechemotion/v1/*.proto)
GOOGLE = $(shell $(BIN)/python -c 'import google.rpc, pathlib; print(pathlib.Path(list(google.rpc.__path__)[0]).parents[1])')
SERVER_STUBS = $(BIN)/python -m grpc_tools.protoc -Iprotos -I$(GOOGLE) --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) $(PROTOS)

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -ts '	'

run: .venv/.server  ## Serve the demo model on localhost:50051 and analyse the bundled samples; Ctrl-C stops
	@$(BIN)/python -m server.tour

serve: .venv/.server  ## Only the server; settings from SPEECHEMOTION_* (see `make serve ARGS=--help`)
	$(BIN)/speech-emotion-server $(ARGS)

install: .venv/.dev  ## The server, the client and the developer tools, into .venv

# Torch first and by itself: it is the one package whose build depends on the machine.
.venv/.server: pyproject.toml clients/python/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -e . -e clients/python
	@touch $@

.venv/.dev: .venv/.server
	$(BIN)/python -m pip install --quiet -e '.[dev]' -e 'clients/python[plot]'
	@touch $@

check: lint types layers protos test  ## Everything CI checks

lint: .venv/.dev  ## Style and common mistakes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.dev  ## mypy, strict
	$(BIN)/mypy

layers: .venv/.dev  ## Who may import whom
	$(BIN)/lint-imports

protos: .venv/.dev third_party  ## Lint the API, see that the stubs match it and that it breaks no released client
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos
	@rm -rf build/stubs && mkdir -p build/stubs/server build/stubs/client
	@$(call SERVER_STUBS,build/stubs/server)
	@diff -r build/stubs/server/speechemotion protos/speechemotion --exclude='*.proto' --exclude=__pycache__ --exclude=__init__.py --exclude=py.typed
	@$(BIN)/python clients/python/generate_stubs.py build/stubs/client
	@diff -r build/stubs/client clients/python/speech_emotion_client/v1 --exclude=__pycache__ --exclude=__init__.py
	@$(BIN)/buf build --path protos -o build/api.binpb
	@test ! -f protos/released.binpb || $(BIN)/buf breaking build/api.binpb --against protos/released.binpb \
	  --config '{"version":"v2","breaking":{"use":["FILE"],"ignore":["google"]}}'

stubs: .venv/.dev  ## Regenerate the Python stubs, the server's and the client's
	$(call SERVER_STUBS,protos)
	$(BIN)/python clients/python/generate_stubs.py clients/python/speech_emotion_client/v1

# buf reads imports as text from disk only; they come from the package googleapis-common-protos.
third_party: .venv/.dev
	@mkdir -p third_party/google/{api,rpc}
	@cp $(GOOGLE)/google/api/{annotations,http,httpbody}.proto third_party/google/api/
	@cp $(GOOGLE)/google/rpc/{status,error_details}.proto third_party/google/rpc/

test: .venv/.dev  ## All tests that need no GPU
	$(BIN)/pytest -m 'not gpu' --cov

fix: .venv/.dev  ## Format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove what the commands above made
	rm -rf .venv build dist third_party .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: help run serve install check lint types layers protos stubs third_party test fix clean
