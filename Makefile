# Primer: `make demo` and `make test` need nothing but Python 3.11 or 3.12, make and a network.
RECIPE ?= recipes/demo.yaml
PYTHON ?= python3
ARGS ?=

PRIMER := .venv/bin/primer
SOURCES := primer topics prompts synth train eval tests bench
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup demo smoke plan synth train eval report test check format bench bench-synth bench-train vllm clean

help: ## Show this list
	@echo "Primer makes synthetic textbooks, trains small language models on them, and compares the results."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  plan, synth, train, eval and report take RECIPE=recipes/NAME.yaml (now $(RECIPE)) and ARGS='--set KEY=VALUE'."

.venv/installed: pyproject.toml constraints.txt constraints-gpu.txt requirements-bundled.txt scripts/install.sh
	@scripts/install.sh

setup: .venv/installed ## Create .venv and install everything into it

demo: setup ## The whole experiment on this machine's CPU, with embedded defaults: about 15 minutes
	@$(PRIMER) report recipes/demo.yaml $(ARGS)

smoke: setup ## The same in small: about two minutes
	@$(PRIMER) report recipes/smoke.yaml $(ARGS)

plan: setup ## What RECIPE would take: tokens, money, hours, disk; starts nothing
	@$(PRIMER) plan $(RECIPE) $(ARGS)

synth: setup ## Make the corpora of RECIPE: web text, code, textbooks by the teacher
	@$(PRIMER) synth $(RECIPE) $(ARGS)

train: setup ## Train the variants of RECIPE
	@$(PRIMER) train $(RECIPE) $(ARGS)

eval: setup ## Evaluate the models of RECIPE and compare them on one page
	@$(PRIMER) eval $(RECIPE) $(ARGS)

report: setup ## The same as eval: the whole experiment of RECIPE, as far as it is not done
	@$(PRIMER) report $(RECIPE) $(ARGS)

test: setup check ## Lint, type check and test
	.venv/bin/python -m pytest

check: setup ## Lint and type check alone
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy

format: setup ## Format the code
	.venv/bin/ruff format $(SOURCES)
	.venv/bin/ruff check --fix $(SOURCES)

bench: setup ## Measure the rooms that have a benchmark: generation client, tokenising, training on a CPU
	.venv/bin/python bench/synth_speed.py
	.venv/bin/python bench/tokenise_speed.py
	.venv/bin/python bench/train_speed.py

bench-train: setup ## Trainers side by side on a CPU; peers where PRIMER_BENCH_LITGPT, PRIMER_BENCH_NANOGPT say
	.venv/bin/python bench/train_speed.py $(ARGS)

bench-synth: setup ## Generation clients side by side; peers where PRIMER_BENCH_DATATROVE, PRIMER_BENCH_CURATOR say
	.venv/bin/python bench/synth_peers.py $(ARGS)

.venv-vllm/installed: pyproject.toml constraints-gpu.txt requirements-bundled.txt scripts/vllm.sh
	@scripts/vllm.sh

vllm: .venv-vllm/installed ## Install vLLM into .venv-vllm, for teachers of kind vllm

clean: ## Remove the environment and the caches (never runs/)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
