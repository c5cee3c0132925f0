# `make run` and `make test` set everything up on a fresh machine; the rest are parts of them and longer proofs.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out/mv-video
MODELS ?= creatures://kangaroo creatures://fox creatures://cat creatures://bird creatures://robot
SMALL := --resolution 64 --num-frames 16 --fps 8
BIN := $(VENV)/bin
# -P: the installed packages are used, never the checkout that happens to be the working directory.
RUN := $(BIN)/python -P -m
SOURCES := $(shell find factory zoo renderers cluster -type f ! -name '*.pyc')
# Headless OpenGL, and the FFmpeg libraries that torchcodec loads.
SYSTEM_PACKAGES := libegl1 libegl-mesa0 libgl1-mesa-dri ffmpeg
BPY := bpy==4.5.15
BPY_PACKAGES := libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libice6 libgl1

.PHONY: run models test test-slow test-gpu bench bench-gpu check install system blender validator clean
.DEFAULT_GOAL := run

run: install system
	$(RUN) factory.render --out $(OUT)
	$(RUN) zoo sample dimo/kangaroo --seed 7 --out $(OUT)/../kangaroo.mp4

# The models that the package carries, as they were trained: a quarter to half an hour of one core for each DIMO; for
# MV-VDM 4 032 clips are rendered and a GPU trains for nine minutes (`MVVDM="--workers 2"`, without one, for many hours).
MVVDM ?= --gpus 1 --loader-workers 11 --at-once 64
models: install system
	$(RUN) factory.train dimo --preset bundled --out out/models --objects $(MODELS)
	$(RUN) factory.render --out out/creatures --source 'creatures://*?count=672&motions=train' $(SMALL)
	$(RUN) factory.render --out out/unseen --source 'creatures://*?seed=1000&count=24&motions=heldout' $(SMALL) \
	  --max-animations 2 --modalities depth
	$(RUN) factory.train mvvdm --preset bundled --name tiny --out out/models --data out/creatures \
	  --test-data out/unseen --test-clips 48 $(MVVDM)
	for name in $(patsubst %,dimo/%,$(notdir $(MODELS))) mvvdm/tiny; do \
	  rm -rf zoo/bundled/$$name && mkdir -p zoo/bundled/$$name && \
	  cp -r "$$($(RUN) zoo info $$name --home out/models --json | $(BIN)/python -c \
	    'import json, sys; print(json.load(sys.stdin)["folder"])')"/. zoo/bundled/$$name; done
	$(BIN)/python -m benchmarks.needs

# Two processes, a file of tests at a time: much of a test is waiting for others to start.
test: install system blender validator
	$(RUN) pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test-slow: install system blender validator
	$(RUN) pytest -m "slow and not gpu"

test-gpu: install
	$(RUN) pytest -m gpu

# What only a GPU can show.
bench-gpu: install
	$(BIN)/python -m benchmarks.dimo gpu
	$(BIN)/python -m benchmarks.mvvdm gpu

# Ratios in one run: against a peer and a ceiling. `make bench ASSETS=folder` adds the models of others.
bench: install system
	$(BIN)/python -m benchmarks.rendering $(if $(ASSETS),raster --assets $(ASSETS)) job ray
	$(BIN)/python -m benchmarks.dispatch
	$(BIN)/python -m benchmarks.splats
	$(BIN)/python -m benchmarks.dimo laptop
	$(BIN)/python -m benchmarks.mvvdm laptop

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check factory zoo renderers cluster tests benchmarks
	$(BIN)/mypy

install: $(VENV)/.installed

# A Debian Python may come without venv; uv then makes all that follows quick.
$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "menagerie4d needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(call as_root,python3-venv) && $(PYTHON) -m venv $(VENV); } || \
	  { echo "this Python cannot make virtual environments: install the system package python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.dependencies: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -r pyproject.toml --extra dev
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --reinstall-package menagerie4d .
	@touch $@

# Installed where we may, otherwise named.
system:
	@libraries=$$(/sbin/ldconfig -p); for library in libEGL.so.1 libavdevice.so; do \
	  case "$$libraries" in *$$library*) ;; *) missing=1;; esac; done; \
	  ls /usr/lib/*/dri/swrast_dri.so /usr/lib/*/libgallium-*.so /usr/lib/*/libEGL_nvidia.so.* 2>/dev/null | \
	    grep -q . || missing=1; \
	  [ -z "$$missing" ] || { $(call as_root,$(SYSTEM_PACKAGES)); } || \
	  { echo "install these system packages first: $(SYSTEM_PACKAGES)"; exit 1; }

as_root = if [ "$$(id -u)" = 0 ]; then sudo=; else sudo="sudo -n"; fi; \
  command -v apt-get >/dev/null && $$sudo apt-get update -qq && \
  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $(1) >/dev/null

# Blender as a module wants Python 3.11 and an older numpy: an environment of its own, run as a child process.
# Where it cannot be had, the tests that need it say so.
blender: install
	@if [ -z "$$MENAGERIE_BLENDER" ] && [ ! -e .blender/.installed ]; then { \
	  $(BIN)/uv venv --quiet --clear --python 3.11 .blender && \
	  $(BIN)/uv pip install --quiet --python .blender/bin/python $(BPY) "numpy<2" && \
	  { .blender/bin/python -c 'import bpy' >/dev/null 2>&1 || { $(call as_root,$(BPY_PACKAGES)) && \
	    .blender/bin/python -c 'import bpy' >/dev/null; }; } && touch .blender/.installed; } || \
	  { rm -rf .blender; echo "Blender could not be set up: it needs Python 3.11 and the system packages" \
	    "$(BPY_PACKAGES), or name an installed Blender in MENAGERIE_BLENDER. Its tests will be skipped"; }; fi

# The Khronos glTF validator, from npm; without it its tests are skipped.
validator:
	@if command -v npm >/dev/null && [ ! -d node_modules/gltf-validator ]; then \
	  npm install --silent --no-save --no-package-lock --no-audit --no-fund gltf-validator@2.0.0-dev.3.10 >/dev/null || \
	  echo "gltf-validator could not be installed: its tests will be skipped"; fi

clean:
	rm -rf $(VENV) .blender node_modules build dist out .pytest_cache .ruff_cache
