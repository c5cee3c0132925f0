# `make run` and `make test` set everything up on a fresh machine. The other targets are their steps and longer tests.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out/mv-video
MODELS ?= creatures://kangaroo creatures://fox creatures://cat creatures://bird creatures://robot creatures://fish \
  creatures://snake creatures://crab creatures://flower creatures://jellyfish creatures://drop creatures://human
SMALL := --resolution 64 --num-frames 16 --fps 8
BIN := $(VENV)/bin
# -P: import the installed packages, not the checkout in the working directory.
RUN := $(BIN)/python -P -m
SOURCES := $(shell find factory zoo renderers cluster -type f ! -name '*.pyc')
# Headless OpenGL for the renderers opengl and pyrender, and the FFmpeg libraries for torchcodec, which `datasets`
# decodes videos with. `make run` needs neither.
SYSTEM_PACKAGES := libegl1 libegl-mesa0 libgl1-mesa-dri ffmpeg
# Installed together: npm removes packages that a later --no-save installation does not name.
NODE_PACKAGES := gltf-validator@2.0.0-dev.3.10 playwright-core@1.65.1 three@0.187.0 s3rver@3.7.1
BPY := bpy==4.5.15
BPY_PACKAGES := libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libice6 libgl1

.PHONY: run models evaluate kernels docs pictures test test-slow test-gpu mutants bench bench-gpu check install system \
  blender validator browser arm-root clean
.DEFAULT_GOAL := run
# Container images often set this variable. Without bytecode files, each of the hundreds of processes that the tests
# start compiles all modules that it imports.
unexport PYTHONDONTWRITEBYTECODE

run: install
	$(RUN) factory.render --out $(OUT)
	$(RUN) zoo sample dimo/kangaroo --seed 7 --out $(OUT)/../kangaroo.mp4

# Train the bundled models again and replace them. Each DIMO takes 15 to 30 minutes on one core. MV-VDM needs 4 032
# rendered clips and nine minutes on an H200; without a GPU, `make models MVVDM="--workers 2"` takes many hours.
MVVDM ?= --gpus 1 --loader-workers 11 --at-once 64
models: install system
	$(RUN) factory.train dimo --preset bundled --out out/models --objects $(MODELS) \
	  --renderer opengl
	$(RUN) factory.render --out out/creatures --source 'creatures://*?count=672&motions=train' $(SMALL) \
	  --renderer opengl
	$(RUN) factory.render --out out/unseen --source 'creatures://*?seed=1000&count=24&motions=heldout' $(SMALL) \
	  --max-animations 2 --modalities depth --renderer opengl
	$(RUN) factory.train mvvdm --preset bundled --name tiny --out out/models --data out/creatures \
	  --test-data out/unseen --test-clips 48 $(MVVDM)
	for name in $(patsubst %,dimo/%,$(notdir $(MODELS))) mvvdm/tiny; do \
	  rm -rf zoo/bundled/$$name && mkdir -p zoo/bundled/$$name && \
	  cp -r "$$($(RUN) zoo info $$name --home out/models --json | $(BIN)/python -c \
	    'import json, sys; print(json.load(sys.stdin)["folder"])')"/. zoo/bundled/$$name; done
	$(BIN)/python -m benchmarks.needs

# Evaluate the bundled models under the protocols and put the results into them: about an hour of CPU time, and 1 GB of
# true clips per DIMO, which stay in out/evaluated/truth. The protocols do not list the other DIMOs.
EVALUATED := dimo/kangaroo dimo/fox dimo/cat dimo/bird dimo/robot
evaluate: install
	for protocol in dimo-views dimo-unseen-motions dimo-between; do \
	  $(RUN) factory.evaluate $(EVALUATED) --protocol $$protocol --out out/evaluated || exit 1; done
	for protocol in mvvdm-creatures animate-truth; do \
	  $(RUN) factory.evaluate mvvdm/tiny --protocol $$protocol --out out/evaluated || exit 1; done
	$(RUN) zoo evaluate animate3d --protocol animate-truth --truth out/evaluated/truth --home out/evaluated
	rm -rf zoo/bundled/evaluations && mkdir -p zoo/bundled/evaluations
	cp -r out/evaluated/evaluations/animate3d zoo/bundled/evaluations && rm zoo/bundled/evaluations/*/*/sheet.png
	for name in $(EVALUATED) mvvdm/tiny; do $(RUN) zoo evaluate $$name --attach-stored --home out/evaluated && \
	  rm -rf zoo/bundled/$$name && mkdir -p zoo/bundled/$$name && \
	  cp -r "$$($(RUN) zoo info local:$$name --home out/evaluated --json | $(BIN)/python -c \
	    'import json, sys; print(json.load(sys.stdin)["folder"])')"/. zoo/bundled/$$name || exit 1; done
	$(RUN) zoo leaderboard --home out/evaluated --out out/leaderboard
	$(MAKE) install
	$(BIN)/python -m benchmarks.needs
	$(BIN)/python -P -c 'from pathlib import Path; from tempfile import mkdtemp; \
	  from zoo.evaluation.leaderboard import write_tables; from zoo.evaluation.store import collect; \
	  write_tables(Path("docs/evaluation.md"), collect("*", home=Path(mkdtemp())))'

# Compile the kernels of poses, of video colours and of both CPU renderers ahead of time, after a change of their
# sources (six minutes of CPU time). A test says when it is needed.
kernels: install
	$(BIN)/python -m renderers.gltf.compile
	$(BIN)/python -m renderers.yuv.compile
	$(BIN)/python -m renderers.gaussians.compile
	$(BIN)/python -m renderers.meshes.cpu.compile

# The documentation, built into out/docs: open out/docs/index.html. Warnings, such as broken links, are errors. The
# examples of the reference are executed meanwhile, and must not fail either.
docs: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -r pyproject.toml --extra docs
	$(RUN) pytest -q -x -m slow tests/test_pages.py -k "whole_page and reference" & examples=$$!; \
	$(RUN) sphinx -W --keep-going -q -b html docs out/docs; built=$$?; wait $$examples && exit $$built

# The moving pictures of README.md and the gallery, after a change of the models or creatures.
pictures: install system
	$(BIN)/python -P docs/pictures.py

# Two processes, each with one test file at a time: tests spend much of their time waiting for child processes.
test: install system blender validator
	$(RUN) pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test-slow: install system blender validator browser
	$(RUN) pytest -m "slow and not gpu"

# Known faults, applied one by one to a copy of the packages; each must fail a test (tests/mutations.toml).
mutants: install system browser
	$(BIN)/python tests/support/mutants.py

test-gpu: install
	$(RUN) pytest -m gpu

# Benchmarks that need a GPU.
bench-gpu: install
	$(BIN)/python -m benchmarks.dimo gpu
	$(BIN)/python -m benchmarks.mvvdm gpu

# Speed relative to comparable implementations and upper bounds. `make bench ASSETS=folder` also measures your models.
bench: install system
	$(BIN)/python -m benchmarks.rendering $(if $(ASSETS),raster --assets $(ASSETS)) job ray
	$(BIN)/python -m benchmarks.dispatch
	$(BIN)/python -m benchmarks.splats
	$(BIN)/python -m benchmarks.dimo laptop
	$(BIN)/python -m benchmarks.mvvdm laptop

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check factory zoo renderers cluster tests benchmarks examples docs/*.py docs/_extensions
	$(BIN)/mypy

install: $(VENV)/.installed

# Debian's Python may lack venv. All later installations use uv, which is faster than pip.
$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "menagerie4d needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(call as_root,python3-venv) && $(PYTHON) -m venv $(VENV); } || \
	  { echo "$(PYTHON) cannot create virtual environments: install the system package python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.dependencies: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -r pyproject.toml --extra dev
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --reinstall-package menagerie4d .
	@touch $@

# Install missing system packages if permitted; otherwise print their names and fail.
system:
	@libraries=$$(/sbin/ldconfig -p); for library in libEGL.so.1 libavdevice.so; do \
	  case "$$libraries" in *$$library*) ;; *) missing=1;; esac; done; \
	  ls /usr/lib/*/dri/swrast_dri.so /usr/lib/*/libgallium-*.so /usr/lib/*/libEGL_nvidia.so.* 2>/dev/null | \
	    grep -q . || missing=1; \
	  [ -z "$$missing" ] || { $(call as_root,$(SYSTEM_PACKAGES)); } || \
	  { echo "missing system packages; install them, then repeat the command: $(SYSTEM_PACKAGES)"; exit 1; }

as_root = if [ "$$(id -u)" = 0 ]; then sudo=; else sudo="sudo -n"; fi; \
  command -v apt-get >/dev/null && $$sudo apt-get update -qq && \
  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $(1) >/dev/null

# The module bpy requires Python 3.11 and numpy < 2, so it has a separate environment and runs as a child process.
# If it cannot be installed, the tests that need it are skipped with a message.
blender: install
	@if [ -z "$$MENAGERIE_BLENDER" ] && [ ! -e .blender/.installed ]; then { \
	  $(BIN)/uv venv --quiet --clear --python 3.11 .blender && \
	  $(BIN)/uv pip install --quiet --python .blender/bin/python $(BPY) "numpy<2" && \
	  { .blender/bin/python -c 'import bpy' >/dev/null 2>&1 || { $(call as_root,$(BPY_PACKAGES)) && \
	    .blender/bin/python -c 'import bpy' >/dev/null; }; } && touch .blender/.installed; } || \
	  { rm -rf .blender; echo "Blender could not be installed: it needs Python 3.11 and the system packages" \
	    "$(BPY_PACKAGES), or set MENAGERIE_BLENDER to an installed Blender. Its tests will be skipped"; }; fi

# Debian's Python for Arm and the wheels that clips need, for tests that run it under qemu-user. Needs debootstrap.
ARM_ROOT ?= out/arm
ARM_WHEELS := av DracoPy fsspec llvmlite numpy pillow pyarrow pytest scipy
arm-root: install
	rm -rf $(ARM_ROOT)
	debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm $(ARM_ROOT)
	for package in $(ARM_ROOT)/var/cache/apt/archives/*.deb; do dpkg-deb --extract $$package $(ARM_ROOT); done
	$(BIN)/uv pip install --quiet --constraints constraints.txt --only-binary :all: --python-version 3.11 \
	  --python-platform aarch64-manylinux_2_28 --target $(ARM_ROOT)/opt/site $(ARM_WHEELS)
	@echo "MENAGERIE_ARM_ROOT=$(abspath $(ARM_ROOT)) make test-slow"

# Headless Chromium and its driver from npm, for tests of pages. Without them, these tests are skipped.
browser:
	@command -v chromium >/dev/null || { $(call as_root,chromium); } || \
	  echo "Chromium could not be installed: tests of pages will be skipped"
	@if command -v npm >/dev/null && ! { [ -d node_modules/playwright-core ] && [ -d node_modules/three ]; }; then \
	  npm install --silent --no-save --no-package-lock --no-audit --no-fund $(NODE_PACKAGES) >/dev/null || \
	  echo "playwright-core and three could not be installed: tests of pages will be skipped"; fi

# The Khronos glTF validator and s3rver, an S3 server, from npm. Without them, the tests that need them are skipped.
validator:
	@if command -v npm >/dev/null && ! { [ -d node_modules/gltf-validator ] && [ -d node_modules/s3rver ]; }; then \
	  npm install --silent --no-save --no-package-lock --no-audit --no-fund $(NODE_PACKAGES) >/dev/null || \
	  echo "gltf-validator and s3rver could not be installed: their tests will be skipped"; fi

clean:
	rm -rf $(VENV) .blender node_modules build dist out .pytest_cache .ruff_cache
