# Two commands: `make run` and `make test`. The rest is for developers. Windows: see README.md.
PYTHON ?= python3
VENV ?= .venv
PORT ?=
AUDIO ?=
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
LANGUAGES_STAMP := $(VENV)/.installed-languages
DEV_STAMP := $(VENV)/.installed-dev
LINT_STAMP := $(VENV)/.installed-lint
BENCH_STAMP := $(VENV)/.installed-bench
MUTANTS_STAMP := $(VENV)/.installed-mutants
SITE_STAMP := $(VENV)/.installed-site
RELEASE_STAMP := $(VENV)/.installed-release
MODULES ?=
NEWEST ?=
SOURCE ?=
URL ?=
ID ?=
CLIENTS := $(VENV)/clients
WINDOWS := .cache/windows
WINDOWS_PYTHON := $(PYTHON) .ci/windows_python.py $(WINDOWS)
WINDOWS_FAST := $(addprefix tests/,auth base config errors interfaces transcripts \
	api/test_windows_audio_paths.py server/test_windows_processes.py)
WINDOWS_TESTS ?= $(if $(FAST),$(WINDOWS_FAST),tests)
STANDALONE := .cache/python-3.14
STANDALONE_TESTS := $(addprefix tests/,audio auth base cli client config errors server transcripts workers)
OF_TURN = $(if $(VIBEVOICE_TEST_TURN),$(shell $(BIN)/python -m tests.support.turns $(1)),$(1))
# Three more than processors, because tests wait (with one more, two processors stood idle for 43 %
# of a run); at most 8.
PROCESSES ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 3 )))
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := $(BIN)/python -m compileall -q -j 0 -x '/(models|tests?)/' $(VENV)/lib
SETUP_LOG := $(VENV)/setup.log
COMMA := ,

# Pinned, because another version may format otherwise. In a folder of their own: types and tests
# need gigabytes, and these two need none of it.
STYLE := $(VENV)/style
STYLE_STAMP := $(STYLE)/.installed
STYLE_TOOLS = $$(grep -oE '"(ruff|import-linter)==[^"]+"' pyproject.toml | tr -d '"')

# $(call counted,COMMAND,LOG,NAME): one line that says how many seconds it takes already and the last of
# the log; the whole log if it fails.
define counted
	@$(1) >$(2) 2>&1 & job=$$!; seconds=0; \
	trap "kill $$job; echo; echo '$(3) interrupted: repeat the command to go on.'; exit 130" INT TERM; \
	while kill -0 $$job 2>/dev/null; do \
	  sleep 1; seconds=$$((seconds + 1)); \
	  if [ -t 2 ]; then \
	    printf '\r\033[K  %s s: %.60s' $$seconds "$$(tail -n 1 $(2) | sed 's/^ *//')" >&2; \
	  elif [ $$((seconds % 30)) -eq 0 ]; then echo "  $$seconds s" >&2; fi; \
	done; \
	[ ! -t 2 ] || printf '\r\033[K' >&2; \
	wait $$job || { cat $(2) >&2; echo "$(3) failed; the lines above say why." >&2; exit 1; }
endef

# pip compiles all modules on one processor, which takes a minute of torch's set-up. Tests of others
# and most models of transformers are never imported; what is, is compiled then.
define install
	@echo "Installing .$(1) into $(VENV), once (log: $(SETUP_LOG))"
	$(call counted,$(PIP) install --no-compile -e '.$(1)',$(SETUP_LOG),Set-up)
	@echo "Compiling what it has: seconds"
	@$(COMPILE) >>$(SETUP_LOG) 2>&1 || true  # a file that another Python reads is no failure
endef

# $(call build,FLAVOUR,FOLDER,PYINSTALLER,PYTHON)
define build
	@mkdir -p build
	@echo "Building $(2): minutes (log: build/$(1).log)"
	$(call counted,env FLAVOUR=$(patsubst windows,cpu,$(1)) $(3) build_exe.spec --noconfirm --workpath build/$(1) --distpath $(dir $(2)),build/$(1).log,Build)
	$(4) packaging/bill.py $(2) build/$(1)/build_exe/sources.txt
	@echo "Built: $(2) can be used. Testing it: minutes"
endef

# Without a header or sources: which index a mirror of ours is stays out of the files.
LOCK := $(VENV)/locks/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--only-binary :all: --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	pyproject.toml packaging/locks/setuptools.in
# Whether all of the executable has wheels for another system; for macOS 15 or newer, as moonshine-voice.
WHEELS := MACOSX_DEPLOYMENT_TARGET=15.0 $(VENV)/locks/bin/uv pip install --quiet --dry-run --no-deps --python-version 3.11 \
	--only-binary :all: --require-hashes --target build/none -r packaging/locks/executable.txt --python-platform

TAURI_TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/.cache/cargo)
TAURI_PACKAGES := sudo apt-get install libwebkit2gtk-4.1-dev webkit2gtk-driver xvfb npm, and Rust
# Debian's Rust has the source of the standard library, which is compiled for Windows.
WINDOWS_CARGO := /usr/bin/cargo
FOR_WINDOWS := -Z build-std=std,panic_abort --target x86_64-pc-windows-gnu
RUST_SOURCE := /usr/lib/rustlib/src/rust/library
RUST_PACKAGES := sudo apt-get install cargo-web rust-web-src gcc-mingw-w64-x86-64
NPM := --silent --no-audit --no-fund --no-package-lock

EXE := dist/vibevoice-asr
GPU_EXE := dist/vibevoice-asr-gpu
WINDOWS_EXE := dist/windows/vibevoice-asr
WINDOWS_PROGRAM := $(WINDOWS_EXE)/vibevoice-asr.exe
BUILD_STAMP := $(VENV)/.installed-build
GPU_BUILD_STAMP := $(VENV)/.installed-build-gpu

.PHONY: run test test-all test-stress test-standalone windows test-windows test-windows-rust windows-rust-tests test-clients test-tauri tauri-tests lint style format types workflows audit docs stubs locks wheels mutants bench ffmpeg exe exe-gpu exe-windows module models release clean

# Of the command line only: desktops set a variable of this name, for messages.
SPOKEN := $(if $(filter command,$(firstword $(origin LANGUAGE))),$(LANGUAGE))
FOREIGN := $(filter-out en en-%,$(SPOKEN))

run: $(if $(FOREIGN),$(LANGUAGES_STAMP),$(RUN_STAMP))  ## start the sidecar, transcribe a recording through it (AUDIO=path, LANGUAGE=de, PORT=number), keep serving
	@$(if $(AUDIO),$(if $(SPOKEN)$(wildcard $(LANGUAGES_STAMP)),:,echo "If it is not English, name its language: make run AUDIO='$(AUDIO)' LANGUAGE=de"))
	@trap : INT; $(BIN)/vibevoice-asr demo $(if $(PORT),--port $(PORT)) $(if $(SPOKEN),--language "$(SPOKEN)") $(if $(AUDIO),"$(AUDIO)") \
	  || { code=$$?; [ $$code -eq 130 ] || exit $$code; }  # 130: Ctrl-C, the way to end it

test: $(DEV_STAMP)  ## run what a change usually breaks: all tests but those that are marked slow
	$(BIN)/python -m pytest -n $(PROCESSES) --maxprocesses 8 --dist loadfile -m "not slow"

test-all: $(DEV_STAMP)  ## run all tests
	$(BIN)/python -m pytest -n $(PROCESSES) --maxprocesses 8 --dist loadfile

test-stress: $(DEV_STAMP)  ## run the fast tests in random order, on a busy machine, one processor, a slow disk (RUNS=n; SHARED=1: a quarter each)
	$(BIN)/python -m tests.support.stress $(if $(SHARED),--shared) --runs $(or $(RUNS),1) --processes $(PROCESSES)

test-standalone: $(BIN)/python  ## the fast tests of the base in Python 3.14 as uv and others build it: some minutes, go fetches it
	@$(BIN)/python .ci/standalone_python.py $(STANDALONE)
	@timeout 900 $(STANDALONE)/venv/bin/python -m pytest -n $(PROCESSES) --maxprocesses 8 --dist loadfile -m "not slow" \
	  $(call OF_TURN,$(STANDALONE_TESTS)) || { [ $$? -ne 124 ] || echo "Python 3.14: the tests took more than a quarter of an hour." >&2; exit 1; }

windows:  ## Python for Windows under Wine, in .cache/windows, once: a minute (sudo apt-get install wine gcc-mingw-w64-x86-64 golang-go)
	@$(WINDOWS_PYTHON)

test-windows:  ## the fast tests in Python for Windows, under Wine (FAST=1: three minutes; WINDOWS_TESTS=tests/config: some)
	@$(WINDOWS_PYTHON)
	@timeout $(if $(FAST),900,7200) $(WINDOWS_PYTHON) -m pytest -n $(PROCESSES) --maxprocesses 8 --dist loadfile -m "not slow" \
	  $(call OF_TURN,$(WINDOWS_TESTS)) || { [ $$? -ne 124 ] || echo "Python for Windows: the tests took too long." >&2; exit 1; }

test-clients: $(DEV_STAMP)  ## clients of others, in a venv of their own (NEWEST=1: without the pins)
	$(PYTHON) -m venv $(CLIENTS)
	sed '$(if $(NEWEST),s/==.*//)' tests/third_party/requirements.txt > $(CLIENTS)/requirements.txt
	sed '$(if $(NEWEST),s/: "[0-9].*"/: "latest"/)' tests/third_party/package.json > $(CLIENTS)/package.json
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check install -q --upgrade -r $(CLIENTS)/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)/older
	sed '$(if $(NEWEST),s/==.*//)' tests/third_party/requirements-older.txt > $(CLIENTS)/older/requirements.txt
	$(CLIENTS)/older/bin/python -m pip --disable-pip-version-check install -q --upgrade -r $(CLIENTS)/older/requirements.txt
	$(if $(NEWEST),rm -rf $(CLIENTS)/node_modules)
	npm install --prefix $(CLIENTS) --silent --no-audit --no-fund --no-package-lock
	VIBEVOICE_TEST_CLIENTS=$(abspath $(CLIENTS)) $(BIN)/python -m pytest -rs tests/third_party

test-tauri: $(DEV_STAMP)  ## the Rust crate, Tauri's plugin, and the example app under Xvfb: minutes, and crates and npm's packages by the network
	@for tool in cargo npm WebKitWebDriver Xvfb "pkg-config --exists webkit2gtk-4.1"; do \
	  command -v $${tool%% *} >/dev/null && case $$tool in *\ *) $$tool;; esac \
	    || { echo "NOT TESTED: '$$tool' is missing ($(TAURI_PACKAGES))"; exit $(if $(CI),1,0); }; \
	done; $(MAKE) --no-print-directory tauri-tests

test-windows-rust:  ## the Rust crate under Wine against what make exe-windows built; Tauri's plugin compiles: minutes
	@if [ ! -f $(WINDOWS_PROGRAM) ]; then echo "NOT TESTED: $(WINDOWS_PROGRAM) is missing (make exe-windows)"; \
	elif [ ! -d $(RUST_SOURCE) ]; then echo "NOT TESTED: Rust's standard library for Windows is missing ($(RUST_PACKAGES))"; \
	else exec $(MAKE) --no-print-directory windows-rust-tests; fi; exit $(if $(CI),1,0)

windows-rust-tests: export CARGO_TARGET_DIR := $(TAURI_TARGET)
windows-rust-tests: export RUSTC := /usr/bin/rustc
windows-rust-tests: export RUSTC_BOOTSTRAP := 1
windows-rust-tests: export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER := $(PYTHON) $(CURDIR)/.ci/windows_python.py $(CURDIR)/$(WINDOWS)
windows-rust-tests: windows
	cd clients/rust && $(WINDOWS_CARGO) build --examples $(FOR_WINDOWS) \
	  && VIBEVOICE_TEST_COMMAND=Z:$(CURDIR)/$(WINDOWS_PROGRAM) $(WINDOWS_CARGO) test --lib --tests $(FOR_WINDOWS) -- --test-threads 1
	cd examples/hosts && $(WINDOWS_CARGO) build $(FOR_WINDOWS)
	VIBEVOICE_TEST_TAURI=$(TAURI_TARGET)/x86_64-pc-windows-gnu/debug \
	  $(WINDOWS_PYTHON) -m pytest -rs tests/project/test_host_examples.py -k main.rs
	cd clients/tauri && $(WINDOWS_CARGO) check $(FOR_WINDOWS)

tauri-tests: export CARGO_TARGET_DIR := $(TAURI_TARGET)
tauri-tests: export VIBEVOICE_TEST_COMMAND := $(abspath $(BIN))/python -m sidecar.main
tauri-tests:
	for crate in clients/rust clients/tauri; do (cd $$crate && cargo fmt --check \
	  && cargo clippy --all-targets -- -D warnings && RUSTDOCFLAGS="-D warnings" cargo doc --no-deps) || exit 1; done
	for crate in clients/rust clients/tauri; do (cd $$crate && cargo test) || exit 1; done
	cd clients/tauri/guest-js && npm install $(NPM) && npm run types && npm test
	git diff --exit-code clients/tauri/guest-js/types  # as they are committed
	cd examples/tauri-host && npm install $(NPM) && npm run build
	cd examples/tauri-host/src-tauri && cargo fmt --check && cargo clippy --features custom-protocol -- -D warnings \
	  && cargo build --features custom-protocol
	cd examples/hosts && cargo build
	VIBEVOICE_TEST_TAURI=$(TAURI_TARGET)/debug $(BIN)/python -m pytest -rs tests/project/test_tauri_app.py \
	  tests/project/test_host_examples.py -k "tauri_app or main.rs"

lint: style types workflows  ## formatting, lint, types, import rules, generated docs, workflows

style: $(STYLE_STAMP)  ## formatting, lint, import rules: seconds, and nothing else is installed
	@$(STYLE)/bin/ruff format --check . || { echo "'make format' mends it." >&2; exit 1; }
	@$(STYLE)/bin/ruff check . || { echo "'make format' mends what can be mended." >&2; exit 1; }
	$(STYLE)/bin/lint-imports --no-cache

format: $(STYLE_STAMP)  ## format the code, and mend what lint can mend
	$(STYLE)/bin/ruff format .
	@$(STYLE)/bin/ruff check --fix .; code=$$?; $(STYLE)/bin/ruff format --quiet . && exit $$code

types: $(LINT_STAMP)  ## types, and generated docs: both need all packages
	$(BIN)/mypy
	@for platform in win32 darwin; do $(BIN)/mypy --platform $$platform --cache-dir .mypy_cache/$$platform || exit 1; done
	$(BIN)/python docs/generate.py --check

workflows:  ## lint of the workflows (go fetches it, once)
	@command -v go >/dev/null || { echo "NOT TESTED: go is missing, which fetches actionlint (sudo apt-get install golang-go)"; exit $(if $(CI),1,0); }; \
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

audit: $(LINT_STAMP)  ## known vulnerabilities in what is installed and in what is locked, and whether that has wheels
	$(BIN)/python .ci/audit.py
	@$(MAKE) --no-print-directory wheels

docs: $(DEV_STAMP) $(SITE_STAMP)  ## write the generated pages anew, and build the site in build/site
	$(BIN)/python docs/generate.py
	$(VENV)/site/bin/zensical build --clean --strict

stubs:  ## write what is generated from stt.proto anew, by the oldest tools whose result is taken
	$(PYTHON) -m venv $(VENV)/stubs
	$(VENV)/stubs/bin/pip install -q grpcio-tools==1.72.1
	cd sidecar/plugins/grpc_stt && $(abspath $(VENV))/stubs/bin/python -m grpc_tools.protoc \
		-I. --python_out=. --pyi_out=. stt.proto

locks:  ## renew packaging/locks: versions and hashes for images and executables
	$(PYTHON) -m venv $(VENV)/locks
	$(VENV)/locks/bin/pip install -q uv
	$(LOCK) --extra auth --extra grpc --extra postgres --extra s3 -o packaging/locks/image.txt
	$(LOCK) --extra auth --extra grpc --extra postgres --extra s3 --extra vibevoice \
		-c packaging/locks/image.txt -o packaging/locks/image-cuda.txt
	$(LOCK) --extra build -c packaging/locks/image.txt -o packaging/locks/executable.txt
	@$(MAKE) --no-print-directory wheels

wheels:  ## whether the index has wheels of all that is locked for the executable, for Windows and for macOS on arm64
	@[ -x $(VENV)/locks/bin/uv ] || { $(PYTHON) -m venv $(VENV)/locks && $(VENV)/locks/bin/pip install -q uv; }
	@for system in x86_64-pc-windows-msvc aarch64-apple-darwin; do $(WHEELS) $$system || exit 1; done

mutants: $(MUTANTS_STAMP)  ## whether the tests notice faults (MODULES="jobs/job_store auth/identity"; many minutes)
	nice $(BIN)/python -m tests.support.mutation_testing $(MODULES)

bench: $(BENCH_STAMP)  ## measure (minutes to an hour; a quiet machine)
	$(BIN)/python -m bench.overhead
	-$(BIN)/python -m bench.accuracy
	-$(BIN)/python -m bench.diarization
	$(BIN)/python -m bench.load
	$(BIN)/python -m bench.live
	$(BIN)/python -m bench.conversation
	-$(BIN)/python -m bench.cluster_store

ffmpeg: $(BUILD_STAMP)  ## compile the small ffmpeg that make exe packs: minutes, a C compiler (SOURCE=archive: no download)
	@mkdir -p build
	$(call counted,$(BIN)/python packaging/small_ffmpeg.py $(SOURCE),build/ffmpeg.log,Compiling ffmpeg)
	@tail -n 1 build/ffmpeg.log

exe: $(BUILD_STAMP)  ## build the executable, and try it out as another user would (EXTRAS, VOICES: docs/building.md)
	$(call build,cpu,$(EXE),$(BIN)/pyinstaller,$(BIN)/python)
	VIBEVOICE_EXECUTABLE=$(EXE)/vibevoice-asr $(BIN)/python -m pytest -rs tests/project/test_executable.py \
	  tests/project/test_module_archive.py
	VIBEVOICE_EXECUTABLE=$(EXE)/vibevoice-asr $(BIN)/python -m pytest -rs tests/project/test_host_examples.py -k rust_host

exe-gpu: $(GPU_BUILD_STAMP)  ## the same with torch inside (gigabytes)
	$(call build,gpu,$(GPU_EXE),$(BIN)/pyinstaller,$(BIN)/python)
	VIBEVOICE_EXECUTABLE=$(GPU_EXE)/vibevoice-asr-gpu $(BIN)/python -m pytest -rs tests/project/test_executable.py

exe-windows: export REVISION ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
exe-windows: windows  ## the executable for Windows, built and tried out under Wine: minutes
	$(call build,windows,$(WINDOWS_EXE),$(WINDOWS_PYTHON) -m PyInstaller,$(WINDOWS_PYTHON))
	VIBEVOICE_EXECUTABLE=$(WINDOWS_PROGRAM) $(WINDOWS_PYTHON) -m pytest -rs tests/project/test_executable.py \
	  tests/project/test_windows_executable.py \
	  tests/project/test_module_archive.py::test_executable_in_module_transcribes_english_for_host_and_refuses_german
	VIBEVOICE_EXECUTABLE=$(WINDOWS_PROGRAM) $(WINDOWS_PYTHON) -m pytest -rs tests/project/test_host_examples.py \
	  -k "rust_host and frozen"

module:  ## what make exe built as an add-on for hosts, in dist/module (URL=where it will be, ID=its name: docs/module.md)
	@[ -n "$(URL)" ] || { echo "URL=… is missing: the folder from which hosts will download it"; exit 1; }
	ID=$(or $(ID),vibevoice_asr) $(BIN)/python packaging/module.py dist/module $(EXE) $(URL)

models: $(RUN_STAMP)  ## a wheel of the embedded engine's models, in dist/models (docs/building.md)
	@$(PIP) install -q 'setuptools>=77'  # Python 3.11 brings one that does not know the wheel's licence
	$(BIN)/python packaging/models_wheel.py dist/models

release: $(RELEASE_STAMP)  ## all files of a release in dist/release, each tried out in an empty place
	$(MAKE) --no-print-directory ffmpeg
	$(MAKE) --no-print-directory exe
	$(MAKE) --no-print-directory models
	$(VENV)/release/bin/python packaging/release.py dist/release $(EXE) $(wildcard $(WINDOWS_EXE))
	@echo "Trying each file out in an empty place: minutes (dist/release-tried.md)"
	$(VENV)/release/bin/python packaging/release_trials.py dist/release >dist/release-tried.md || { cat dist/release-tried.md; exit 1; }
	[ ! -e $(WINDOWS_EXE) ] || $(WINDOWS_PYTHON) packaging/release_trials.py dist/release '*windows*' >>dist/release-tried.md
	@cat dist/release-tried.md

$(STYLE_STAMP): pyproject.toml
	@echo "Installing ruff and import-linter into $(STYLE), once: some 15 s"
	@$(PYTHON) -m venv $(STYLE)
	@$(STYLE)/bin/python -m pip --disable-pip-version-check install -q $(STYLE_TOOLS)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[people])
	@touch $@

$(LANGUAGES_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[languages$(COMMA)people])
	@$(BIN)/vibevoice-asr pull whisper:base >/dev/null
	@touch $(RUN_STAMP) $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[dev])
	@touch $(RUN_STAMP) $@

$(LINT_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[dev$(COMMA)lint])
	@touch $(RUN_STAMP) $(DEV_STAMP) $@

# An environment of its own: nothing of ours needs it, and it has no say in the versions of the rest.
$(SITE_STAMP): | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/site
	$(VENV)/site/bin/python -m pip --disable-pip-version-check install -q zensical==0.0.73
	@touch $@

$(RELEASE_STAMP): | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip --disable-pip-version-check install -q build==1.6.1 psutil==7.2.2 twine==7.0.0 uv
	@touch $@

$(BUILD_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[build])
	@touch $(RUN_STAMP) $@

$(GPU_BUILD_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[build$(COMMA)vibevoice])
	@touch $(RUN_STAMP) $(BUILD_STAMP) $@

$(BENCH_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[bench])
	@touch $(RUN_STAMP) $@

$(MUTANTS_STAMP): pyproject.toml | $(BIN)/python
	$(call install,[mutants])
	@touch $(RUN_STAMP) $(DEV_STAMP) $@

clean:  ## forget the set-up
	rm -rf $(VENV) build dist *.egg-info
