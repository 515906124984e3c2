# `make` alone lists the targets. Every command is `.venv/bin/python -m ...` with a path relative to this folder, so
# that the clone may lie in a folder whose name has spaces.
python := .venv/bin/python
recipe := conf/recipes/gpt-demo.yaml
digits := conf/recipes/digits.yaml
platform := conf/platforms/local.yaml

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-images test test-world test-fast lint package bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup: ## make .venv with every package, Horovod and this project (nothing to do the second time)
	@setup/setup.sh

# DATA reaches the script through the environment: no quoting of ours can break a path.
export DATA
demo: setup ## prepare, train, tables, report on real text; DATA="folder, file, glob or URL" for your own
	@if [ -n "$$DATA" ]; then set -- --set "$$($(python) setup/inputs.py)"; else set --; fi; \
	exec $(python) jobs/pipeline.py --recipe $(recipe) --platform $(platform) "$$@"

# Pictures of any size and colour become 32 x 32 in colour.
demo-images: setup ## prepare, train, evaluate on handwritten digits; DATA="folder with a folder of images for each class"
	@if [ -n "$$DATA" ]; then \
	set -- --set "$$($(python) setup/inputs.py images)" --set "$$($(python) setup/inputs.py split)" \
	    --set "prepare.size=[32, 32]" --set prepare.channels=3; \
	else $(python) setup/digits.py; set --; fi; \
	$(python) jobs/pipeline.py --recipe $(digits) --platform $(platform) "$$@" && \
	exec $(python) jobs/evaluate.py --recipe $(digits) --platform $(platform) "$$@"

test: setup ## run every test, two at a time
	@$(python) setup/s3_environment.py
	@$(python) -m pytest -n 2 --dist worksteal

test-world: setup ## run the tests of a cluster that shares no folder: root, iproute2, unshare (util-linux), about 5 minutes
	@$(python) setup/s3_environment.py
	@$(python) -m tests.world.needs
	@$(python) -m pytest tests/world

test-fast: setup ## run the tests that start neither Spark nor ranks: about a minute
	@$(python) -m pytest -m "not processes"

lint: setup ## check style and types
	@$(python) -m ruff check .
	@$(python) -m mypy

package: setup ## pack the environment that executors run in, as dist/environment.tar.gz
	@$(python) setup/package.py

bench: setup ## compare with other systems; results in benchmarks/results/latest.json
	@$(python) -m benchmarks

clean: ## remove .venv, .venv-s3 and caches; the lake and the Horovod cache stay
	rm -rf .venv .venv-s3 .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info benchmarks/.venvs
	find . -name __pycache__ -prune -exec rm -rf {} +
