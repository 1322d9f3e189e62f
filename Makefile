# Two commands do everything: `make book` and `make test`. Both make the environment first if it is missing.
PYTHON ?= python3
BIN := .venv/bin
SITE := results/site/_build/html

.PHONY: book test fast serve lint format lock clean help

help:
	@echo "make book    run the quick experiments and build the book (make book ARGS='--cores 4' passes options on)"
	@echo "make serve   show the book on http://localhost:8000"
	@echo "make test    lint and test"
	@echo "make fast    the library's tests that take no seconds, while you work"
	@echo "make clean   delete the environment and everything of the quick scale"

book: .venv/ready
	$(BIN)/python workflow/launch.py $(ARGS)

serve:
	@test -f $(SITE)/index.html || { echo "there is no book yet: make book"; exit 1; }
	$(PYTHON) -m http.server 8000 --bind 127.0.0.1 --directory $(SITE)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

fast: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/library -m "not slow and not browser and not workflow" $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The exact versions; a file that is written last marks an environment that is complete.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed; choose it with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv results/quick results/site results/notebooks results/.workflow .snakemake .mypy_cache book/_build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
