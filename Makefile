# `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= out/demo
PORT ?= 18127

.DEFAULT_GOAL := setup
BENCHES := ingest fetch label em calibration learn select reader report compare
ARGS ?=
# How many test files run side by side; each takes up to 4 GB. They run in the order of their names:
# the slow ones, of the audit, chaos and the cluster, come first, and no core waits for one at last.
JOBS ?= 3
# What `make archive` packs: extras of the package; UV_ARGS and PACK_ARGS are passed to `uv pip
# install` and to `venv-pack`.
EXTRAS ?= spark,s3
UV_ARGS ?=
PACK_ARGS ?=
ARCHIVE ?= build/archive
DIST ?= dist
SIMULATED ?= out/simulate
.NOTPARALLEL:
.PHONY: setup bench-driver bench-gpu gpu-kit demo demo-cluster simulate test test-fast test-cut-off test-packaging test-spark-versions label-studio-check archive lint bench $(BENCHES:%=bench-%) conf wordnet constraints clean help java

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# Spark runs on Java: say so before minutes go into an environment that could not be used.
java:
	@if [ -n "$$JAVA_HOME" ]; then test -x "$$JAVA_HOME/bin/java"; else command -v java >/dev/null; fi || { \
	  echo "error: Java 17 or newer is not installed: 'apt-get install openjdk-17-jre-headless' (Debian, Ubuntu), 'dnf install java-17-openjdk-headless' (Fedora, RHEL) or 'brew install openjdk@17' (macOS), or point JAVA_HOME at one" >&2; exit 2; }

setup: $(READY) ## build .venv with everything, at the exact versions of constraints.txt

# uv trusts the certificates that pip trusts: those of pip's setting, else those of the system.
UV = CERT="$$($(BIN)/python -m pip config list | sed -n "s/^[^=]*\.cert='\(.*\)'$$/\1/p" | head -n 1)"; \
  env UV_SYSTEM_CERTS=true $${CERT:+SSL_CERT_FILE="$$CERT"} $(BIN)/uv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv -c constraints.txt
	$(UV) pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev,formats]'
	@touch $@

demo: java $(READY) ## run the whole pipeline on 1,797 real scanned digits, under out/demo/
	@$(BIN)/coyo-labeler demo output=$(OUT) port=$(PORT)

demo-cluster: java $(READY) ## the demo by spark-submit, on a standalone cluster of two workers on 127.0.0.1
	@$(BIN)/coyo-labeler demo output=$(OUT)-cluster cluster=true port=$(PORT)

simulate: $(READY) ## what votes buy on the demo's digits: six policies, three simulations each
	@test -e $(SIMULATED)/input/gold.parquet || $(BIN)/python -m coyo_labeler.demo.simulated_digits $(SIMULATED)/input
	@$(BIN)/coyo-labeler simulate embeddings=$(SIMULATED)/input/embeddings gold=$(SIMULATED)/input/gold.parquet \
	  seed_gold=$(SIMULATED)/input/seed_gold.parquet crowd=structured:0.7 seeds=3 wanted_accuracy=0.95 \
	  'policies=[risk,gumbel,random,efficient_annotation,improved_lean,lean]' output=$(SIMULATED)/result $(ARGS)

test: java $(READY) ## run every test, including those on a two-worker cluster
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not packaging'

test-fast: java $(READY) ## run all tests but those on a cluster
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not cluster and not packaging'

test-cut-off: java $(READY) ## cut a worker of a cluster off from the network, in namespaces (as root, with iproute2)
	CUT_OFF=fetch,label,merge $(BIN)/python -m pytest tests/cluster/test_cut_off.py

test-packaging: java $(READY) ## build the wheel and try it in an environment of each kind of user
	$(BIN)/python -m pytest -m packaging tests/packaging

test-spark-versions: java $(READY) ## run some tests of every stage on the oldest and on a middle version of Spark
	@set -e; for version in 3.5 4.0; do \
	  test -e .spark/$$version/pyspark || $(BIN)/uv pip install -q --python $(BIN)/python --target .spark/$$version "pyspark==$$version.*"; \
	done
	@# Side by side: each keeps little more than one core busy.
	@rm -f .spark/*.passed; trap 'kill $$(jobs -p)' INT TERM; \
	for version in 3.5 4.0; do \
	  PYTHONPATH=.spark/$$version $(BIN)/python -m pytest -q @tests/spark_versions.txt > .spark/$$version.log 2>&1 \
	    && touch .spark/$$version.passed & \
	done; wait; \
	failed=; for version in 3.5 4.0; do \
	  echo "Spark $$version:"; cat .spark/$$version.log; \
	  test -e .spark/$$version.passed || failed="$$failed $$version"; \
	done; \
	test -z "$$failed" || { echo "error: tests failed on Spark$$failed" >&2; exit 1; }

# Label Studio is a gigabyte that nothing else needs, so it has an environment of its own.
LABEL_STUDIO := .venv-label-studio
$(LABEL_STUDIO)/.ready: $(READY)
	$(PYTHON) -m venv $(LABEL_STUDIO)
	$(UV) pip install -q --python $(LABEL_STUDIO)/bin/python 'label-studio==1.23.*'
	@touch $@

label-studio-check: $(LABEL_STUDIO)/.ready ## send to a real Label Studio on 127.0.0.1, answer as two people, collect, compare (ARGS=--help)
	@$(BIN)/python -m tests.label_studio_check --label-studio $(LABEL_STUDIO)/bin/label-studio $(ARGS)

archive: ## pack dist/coyo-labeler-VERSION.tar.gz for clusters that have not got the package (EXTRAS=spark,s3)
	rm -rf $(ARCHIVE) && mkdir -p $(DIST)
	$(PYTHON) -m venv $(ARCHIVE)/tools
	$(ARCHIVE)/tools/bin/python -m pip install -q -c constraints.txt uv setuptools venv-pack==0.2.0
	$(ARCHIVE)/tools/bin/uv build -q --wheel -o $(ARCHIVE) .
	$(PYTHON) -m venv --without-pip $(ARCHIVE)/environment
	@# The cluster has Spark, at its own version.
	@echo "pyspark; sys_platform == 'none'" > $(ARCHIVE)/overrides.txt
	$(ARCHIVE)/tools/bin/uv pip install -q --python $(ARCHIVE)/environment/bin/python -c constraints.txt --overrides $(ARCHIVE)/overrides.txt $(UV_ARGS) "$$(echo $(ARCHIVE)/*.whl)[$(EXTRAS)]"
	$(ARCHIVE)/tools/bin/venv-pack -q -f $(PACK_ARGS) -p $(ARCHIVE)/environment \
	  -o $(DIST)/coyo-labeler-$$(basename $(ARCHIVE)/*.whl | cut -d- -f2).tar.gz
	@chmod 644 $(DIST)/*.tar.gz && ls -lh $(DIST)/*.tar.gz

lint: $(READY) ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BENCHES:%=bench-%) ## run every benchmark in turn: about an hour and a half on 4 cores

# ARGS="…" is passed to the benchmark; ARGS=--help lists what it takes.
bench-ingest: java $(READY) ## ingest of 10 M rows against Spark's plain read-and-write; near twins
	@$(BIN)/python -m benchmarks.ingest $(ARGS)

bench-fetch: java $(READY) ## fetch against img2dataset on the same URLs
	@$(BIN)/python -m benchmarks.fetch $(ARGS)

bench-label: java $(READY) ## label against the bare model's forward pass and other engines
	@$(BIN)/python -m benchmarks.label $(ARGS)

bench-em: java $(READY) ## merge against crowd-kit, Spark DataFrames and the bare kernel
	@$(BIN)/python -m benchmarks.em $(or $(ARGS),full)

bench-calibration: $(READY) ## calibration of images without votes, over many machines and crowds
	@$(BIN)/python -m benchmarks.calibration $(ARGS)

bench-select: java $(READY) ## select of 10 M rows against Spark's plain orderBy and limit
	@$(BIN)/python -m benchmarks.selection $(ARGS)

bench-reader: $(READY) ## training reader against plain webdataset decoding
	@$(BIN)/python -m benchmarks.reader $(ARGS)

bench-learn: $(READY) ## scoring against a bare matrix product; training at 10, 1,000 and 21,841 classes
	@$(BIN)/python -m benchmarks.learn $(ARGS)

bench-report: java $(READY) ## report of a million rows
	@$(BIN)/python -m benchmarks.report $(ARGS)

bench-driver: java $(READY) ## the driver alone at 70,000 shards
	@$(BIN)/python -m benchmarks.driver $(ARGS)

bench-gpu: $(READY) ## the teacher on a GPU, in under nine minutes
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

# What a machine with Python 3.12, PyTorch and timm lacks.
KIT := annotated-types crc32c fsspec opencv-python-headless pyarrow pydantic pydantic-core python-json-logger pyyaml safetensors tqdm typing-extensions typing-inspection

gpu-kit: $(READY) ## pack build/gpu-kit: bench-gpu for a bare machine; there: ./run.sh
	rm -rf build/gpu-kit && mkdir -p build/gpu-kit/wheels build/gpu-kit/benchmarks
	$(UV) build -q --wheel -o build/gpu-kit/wheels .
	$(BIN)/python -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 -c constraints.txt -d build/gpu-kit/wheels $(KIT)
	cp benchmarks/*.py build/gpu-kit/benchmarks/ && cp benchmarks/gpu_kit.sh build/gpu-kit/run.sh
	@rm -f build/gpu-kit/wheels/.gitignore && du -sh build/gpu-kit

bench-compare: $(READY) ## compare of two million objects on 120,000 images
	@$(BIN)/python -m benchmarks.compare $(ARGS)

conf: $(READY) ## rewrite conf/<stage>.yaml from the descriptions of the settings
	$(BIN)/python -m coyo_labeler.write_conf

# WordNet 3.0's data.noun, where Debian's package wordnet-base installs it.
WORDNET ?= /usr/share/wordnet
wordnet: $(READY) ## rewrite formats/wordnet.tsv.gz from WordNet 3.0 (WORDNET=folder of data.noun)
	$(BIN)/python -m coyo_labeler.write_wordnet $(WORDNET)

constraints: $(READY) ## rewrite constraints.txt from pyproject.toml
	@$(UV) pip compile -q --upgrade --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --all-extras pyproject.toml -o constraints.txt
	@grep -q '^uv==' constraints.txt || echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" >> constraints.txt

clean: ## remove what the demo, the tests and the linters wrote
	rm -rf out .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
