# `make demo`, `make test` and `make docs` work on a machine that has only python3 (>= 3.11) and make.
#   LAMINA_VENV=dir            use another environment than .venv
#   LAMINA_TORCH_INDEX=url     take torch and torchvision from this index, e.g. the CPU-only one:
#                              https://download.pytorch.org/whl/cpu
PYTHON ?= python3
VENV   := $(or $(LAMINA_VENV),.venv)
BIN    := $(VENV)/bin
DEMO   ?= runs/demo

.PHONY: demo test docs lint types unit bench wheel clean

demo: $(VENV)/.lamina-installed
	$(BIN)/lamina demo --out $(DEMO)

test: lint types unit

lint: $(VENV)/.lamina-installed
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools

types: $(VENV)/.lamina-installed
	$(BIN)/mypy

unit: $(VENV)/.lamina-installed
	$(BIN)/python -m pytest

bench: $(VENV)/.lamina-installed
	$(BIN)/pip install -q -e ".[bench]"
	$(BIN)/python benchmarks/step.py

# The documentation as pages in site/: open site/index.html. A warning is an error.
docs: $(VENV)/.lamina-docs
	$(BIN)/python tools/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: site/index.html"

$(VENV)/.lamina-docs: $(VENV)/.lamina-installed
	$(BIN)/pip install -q -e ".[docs]"
	@touch $@

# The built wheel, installed in a clean environment that sees the heavy dependencies of this one.
wheel: $(VENV)/.lamina-installed
	sh .ci/wheel.sh $(BIN)/python

$(VENV)/.lamina-installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lamina needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 lacks its venv module; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	@echo "Installing torch and the rest into $(VENV): once, a few minutes (see README, 'Install')."
	test -z "$(LAMINA_TORCH_INDEX)" || \
		$(BIN)/pip install -q "torch>=2.10,<3" torchvision --index-url "$(LAMINA_TORCH_INDEX)"
	$(BIN)/pip install -q -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
