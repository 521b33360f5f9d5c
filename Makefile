# The commands of the README; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo quarter soak images facts stack faults s3 ray test lint docs bench bench-serving bench-peers dev serve

PYTHON ?= python3
BIN := .venv/bin
# `value`, because a dollar sign in a path is not a make variable; `^`, because only a `~` at the
# start is the home directory. Dagster's own records are never in a bucket.
DATA_ROOT := $(subst ^:,,$(subst ^:~/,$(HOME)/,^:$(or $(if $(filter s3://%,$(value CXR_DATA_ROOT)),,$(value CXR_DATA_ROOT)),data)))
# The same Dagster instance for `make demo`, the command line and the UI.
export DAGSTER_HOME := $(or $(value DAGSTER_HOME),$(if $(filter /%,$(firstword $(DATA_ROOT))),,$(CURDIR)/)$(DATA_ROOT)/dagster)

EXTRAS := .[pipeline,serving,dicom,dev]
# Installs the pins without resolving; the second call adds what a package needs on this platform
# alone, such as CUDA for torch. Byte code is written on import, for the modules in use only: without
# it, each process compiles torch and Dagster anew, which takes longer than most tests.
unexport PYTHONDONTWRITEBYTECODE
QUIETLY := install -qq --disable-pip-version-check --no-compile
PIP := $(BIN)/pip $(QUIETLY)
# uv does not read pip's settings. With unsafe-best-match it looks in all indexes, as pip does: torch
# for the CPU is on an index of its own, which lacks other pins.
UV_SOURCES := env $${PIP_CERT:+SSL_CERT_FILE="$$PIP_CERT"} \
  $${PIP_INDEX_URL:+UV_DEFAULT_INDEX="$$PIP_INDEX_URL"} \
  $${PIP_EXTRA_INDEX_URL:+UV_EXTRA_INDEX_URL="$$PIP_EXTRA_INDEX_URL"} \
  $${PIP_FIND_LINKS:+UV_FIND_LINKS="$$(echo "$$PIP_FIND_LINKS" | tr ' ' ,)"}

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/installed ## Install into .venv and prepare DAGSTER_HOME
	@case "$$DAGSTER_HOME" in *\?*|*%[0-9a-fA-F][0-9a-fA-F]*) \
	  printf 'error: Dagster cannot keep its records in %s: its path holds "?" or "%%" and two digits. Set DAGSTER_HOME to another folder: export DAGSTER_HOME="$$HOME/dagster"\n' "$$DAGSTER_HOME" >&2; exit 1;; esac
	@mkdir -p "$$DAGSTER_HOME"
	@test -e "$$DAGSTER_HOME/dagster.yaml" || ln -sf "$$PWD/dagster.yaml" "$$DAGSTER_HOME/dagster.yaml"

.venv/installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo 'error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make setup PYTHON=python3.12' >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv
	@if command -v uv > /dev/null; then \
	  echo 'Installing into .venv with uv: about a minute the first time'; \
	  $(UV_SOURCES) uv pip install --quiet --python $(BIN)/python \
	    --index-strategy unsafe-best-match -r constraints.txt -e '$(EXTRAS)'; \
	else \
	  echo 'Installing into .venv with pip: a few minutes the first time (faster with uv on the PATH)'; \
	  $(PIP) --no-deps -r constraints.txt && $(PIP) --no-build-isolation -c constraints.txt -e '$(EXTRAS)'; \
	fi
	@touch $@

demo: setup ## Train and report on synthetic images, a few minutes on two cores
	CXR_EXPERIMENT="$${CXR_EXPERIMENT:-demo}" $(BIN)/dagster job execute -m cxr_assets.definitions -j retrain
	@$(BIN)/cxr summary

quarter: setup ## Thirteen weeks of a hospital in ten minutes, into build/quarter
	$(BIN)/python -m benchmarks.unattended.quarter $${PATIENCE:+--patience "$$PATIENCE"}

soak: setup ## 50 retrainings with faults, into build/soak; half an hour
	$(BIN)/python -m benchmarks.unattended.soak $${PATIENCE:+--patience "$$PATIENCE"}

images: setup ## Build and start the images, without leaks; as root; BUILD="--build-arg BASE=debian"
	$(BIN)/python -m deploy.images $${PATIENCE:+--patience "$$PATIENCE"} -- $$BUILD

facts: setup ## Service and job in containers that are not as usual; as root, minutes
	FACTS=each $(BIN)/pytest -n 1 -v tests/deployment/test_facts.py

stack: setup ## All of docker-compose.yml as processes, with a retraining; as root, a few minutes
	$(BIN)/python -m deploy.stack $${PATIENCE:+--patience "$$PATIENCE"}

# The tests that the page names, wherever they are.
TRIES ?= 10
faults: setup ## Every fault of docs/reliability.md, random ones TRIES times; as root
	env -u DAGSTER_HOME $(BIN)/pytest --tries $(TRIES) --timeout 3600 \
	  $$(grep -o '[a-z_/]*\.py::test_[a-z_0-9]*' docs/reliability.md | sort -u | sed 's:^:tests/:')
	$(BIN)/python -m deploy.stack --faults 2 $${PATIENCE:+--patience "$$PATIENCE"}

s3: setup ## A data root in a bucket, on moto's server or the one at S3_ENDPOINT; minutes
	PUBLICATIONS=$${PUBLICATIONS:-100} $(BIN)/pytest -n 0 --timeout 3600 tests/serving/model/test_remote.py \
	  tests/serving/http/test_watcher_bucket.py tests/serving/test_bucket.py tests/test_lease.py \
	  tests/test_exchange.py tests/test_exchange_faults.py tests/test_handover.py \
	  tests/defs/test_in_bucket.py

ray: TRIES = 1
ray: .venv/ray ## A Ray cluster of two nodes beside one machine, and each fault once, or TRIES times; an hour
	$(BIN)/python -m benchmarks.cluster --tries $(TRIES)

# Beside the packages of constraints.txt, of which they change none. `k8s` is for tests/defs/test_pods.py.
.venv/ray: benchmarks/cluster/ray.txt
.venv/k8s: deploy/k8s/pins.txt
.venv/ray .venv/k8s: .venv/installed
	@$(PIP) --no-deps -r $(filter %.txt,$^)
	@touch $@

test: lint .venv/ray ## Check the code and run every test
	env -u DAGSTER_HOME $(BIN)/pytest

lint: setup ## Check style, types, imports between packages, and links of the documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -q -W --keep-going -t links -b dummy docs build/links

docs: setup ## The documentation as a site with search, in build/docs
	rm -rf docs/generated
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs
	@echo "documentation: build/docs/index.html"

# Enough to tell that it works: what is lost by a whole training takes an hour.
SHORT := data.image_size=96 trainer.max_epochs=10
bench: setup ## Speed against the baseline; IMAGES=folder measures memory and robustness, too
	$(BIN)/python -m benchmarks.data_path
	$(BIN)/python -m benchmarks.preparation
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.scaling --plot docs/scaling.png
	$(BIN)/python -m benchmarks.embedding
	$(BIN)/python -m benchmarks.probe
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.training_step --profile
	$(BIN)/python -m benchmarks.reporting
	test -z "$$IMAGES" || $(BIN)/python -m benchmarks.robustness "data.folder=$$IMAGES" $(SHORT)
	$(BIN)/python -m benchmarks.memory $${IMAGES:+"$$IMAGES"}

bench-serving: setup ## The service against a baseline, under swaps and under attack; an hour
	$(BIN)/python -m benchmarks.serving.speed
	$(BIN)/python -m benchmarks.serving.speed --one-cpu
	$(BIN)/python -m benchmarks.serving.swaps
	test ! -x /usr/sbin/nginx || $(BIN)/python -m benchmarks.serving.replicas
	$(BIN)/python -m benchmarks.serving.hostile

bench-peers: setup .venv-peers/installed ## The service against LitServe and BentoML; a quarter of an hour
	$(BIN)/python -m benchmarks.serving.peers --plot docs/peers.png

# Apart from .venv: BentoML needs other versions, and nobody else needs it.
.venv-peers/installed: benchmarks/serving/peers.txt pyproject.toml
	@"$(PYTHON)" -m venv .venv-peers
	@echo 'Installing into .venv-peers: a minute or two'
	@.venv-peers/bin/pip $(QUIETLY) -c benchmarks/serving/peers.txt -e '.[bench]'
	@touch $@

dev: setup ## Dagster's UI and daemon on http://localhost:3000
	$(BIN)/dagster dev -w workspace.yaml

serve: setup ## The HTTP service on http://localhost:8000
	$(BIN)/cxr serve
