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

run: .venv/.server  ## Serve on localhost:50051, analyse the bundled samples, go on until Ctrl-C
	@if (exec 3<>/dev/tcp/127.0.0.1/50051) 2>/dev/null; then \
	  echo 'Something listens on localhost:50051 already; stop it first.' >&2; exit 1; fi; \
	$(BIN)/speech-emotion-server --log-level warning $(ARGS) & server=$$!; \
	trap 'kill -TERM $$server 2>/dev/null' INT TERM; \
	until $(BIN)/speech-emotion health --wait 2 >/dev/null 2>&1; do kill -0 $$server 2>/dev/null || break; done; \
	kill -0 $$server 2>/dev/null && \
	$(BIN)/speech-emotion analyze --sample && \
	printf '%s\n' '' \
	  'Serving on localhost:50051. In another terminal:' \
	  '  $(BIN)/speech-emotion analyze YOUR.wav' \
	  '  $(BIN)/speech-emotion analyze --help' \
	  'Without our client: README.md has the line for buf curl. Ctrl-C stops the server.' || kill -TERM $$server 2>/dev/null; \
	wait $$server; wait $$server

serve: .venv/.server  ## Only the server; settings from SPEECHEMOTION_* (see `make serve ARGS=--help`)
	$(BIN)/speech-emotion-server $(ARGS)

up: .venv/.fleet  ## A fleet on loopback: Envoy on 8080, replicas, companions (PROFILE=edge, REPLICAS=3, ARGS='--engine fake')
	@$(BIN)/python -m fleet up --profile $(or $(PROFILE),local) --replicas $(or $(REPLICAS),3) $(foreach v,$(VARIANTS),--variant $v) -- $(ARGS)

down:  ## End the fleet, losing no call
	@$(BIN)/python -m fleet down

restart:  ## New replicas, one after another, losing no call
	@$(BIN)/python -m fleet restart

restart-envoy:  ## A new Envoy with the configuration as it is now, losing no call (hot restart)
	@$(BIN)/python -m fleet restart-envoy

status:  ## Who of the fleet is ready
	@$(BIN)/python -m fleet status

logs:  ## Follow the fleet's log
	@$(BIN)/python -m fleet logs

install: .venv/.dev  ## The server, the client and the developer tools, into .venv

# Torch first and by itself: it is the one package whose build depends on the machine.
.venv/.server: pyproject.toml clients/python/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -e . -e clients/python
	@touch $@

.venv/.fleet: .venv/.server
	$(BIN)/python -m pip install --quiet -e '.[fleet]'
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
	@$(BIN)/buf build -o build/api.binpb
	@$(BIN)/buf breaking build/api.binpb --against protos/baseline.binpb \
	  --config '{"version":"v2","breaking":{"use":["FILE"],"ignore":["google"]}}'

stubs: .venv/.dev  ## Regenerate the Python stubs, the server's and the client's
	$(call SERVER_STUBS,protos)
	$(BIN)/python clients/python/generate_stubs.py clients/python/speech_emotion_client/v1

baseline: protos  ## At a release: what `make protos` compares the API with from now on
	cp build/api.binpb protos/baseline.binpb

api: .venv/.dev  ## Regenerate what Envoy and OpenAPI tools read: envoy/api.binpb, envoy/openapi.json
	$(BIN)/python -m fleet.api

# buf reads imports as text from disk only; they come from the package googleapis-common-protos.
third_party: .venv/.dev
	@mkdir -p third_party/google/{api,rpc}
	@cp $(GOOGLE)/google/api/{annotations,http,httpbody}.proto third_party/google/api/
	@cp $(GOOGLE)/google/rpc/{status,error_details}.proto third_party/google/rpc/

test: .venv/.dev  ## All tests that need no GPU
	$(BIN)/pytest -m 'not gpu' --cov

demo-model: .venv/.dev  ## Train the demo model on DATA=dir (emodb/ and librispeech/), about an hour; continues after a stop
	$(BIN)/python -m pip install --quiet -e '.[train]'
	$(BIN)/python -m training --data $(DATA) --out server/engine/demo

fix: .venv/.dev  ## Format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev  ## Measure batcher, front, overload, fairness and peers (an hour, 4 GB for the peers)
	for what in front overload fairness peers soak; do $(BIN)/python -m benchmarks.$$what || exit 1; done
	$(BIN)/python -m benchmarks.batcher

bench-engine: .venv/.dev  ## Measure the engine on this CPU beside FunASR (half an hour; installs the extra 'funasr')
	$(BIN)/python -m pip install --quiet -e '.[funasr]'
	$(BIN)/python -m benchmarks.engine $(ARGS)

# What the machine brings itself is left out, or it would be the larger part; 64 MiB is what fits.
gpu-wheels: .venv/.dev  ## Put into .whl/ what `make gpu` needs on a machine without network (Python 3.12, torch, numpy)
	rm -rf .whl && mkdir .whl
	$(BIN)/python -c "import tomllib; print(*(d for d in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if not d.startswith('torch')), sep='\n')" > .whl/requirements.txt
	$(BIN)/python -m pip download --quiet --dest .whl --only-binary=:all: --python-version 3.12 --implementation cp \
	  --abi cp312 --abi abi3 --abi none $(addprefix --platform=,manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 any) \
	  -r .whl/requirements.txt
	rm -f .whl/numpy-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir .whl .
	@total=$$({ du -cb .whl; git ls-files -zco --exclude-standard | du -cb --files0-from=-; } | \
	  awk '$$2 == "total" { sum += $$1 } END { print int(sum / 1048576) }'); \
	echo "$$total MiB with the checkout, of 64"; test $$total -lt 64

gpu:  ## On a machine with a GPU: its tests, then measures; results in $$OUT or build/gpu
	@ls .whl/*.whl >/dev/null 2>&1 || { echo 'Run `make gpu-wheels` where there is a network, and bring .whl/ along.'; exit 1; }
	benchmarks/gpu.sh $(ARGS)

clean:  ## Remove what the commands above made
	rm -rf .venv build dist third_party .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: baseline help run serve up down restart restart-envoy status logs api install check lint types layers protos stubs third_party test demo-model fix bench bench-engine gpu-wheels gpu clean
