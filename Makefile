# `make run` makes the ten numbers from nothing, `make test` checks the kit; the rest serves these two.
PYTHON ?= python3
PROFILE ?= auto
SEED ?= 0
OUTPUT ?=
BUDGET ?=

BIN := .venv/bin
INSTALLED := .venv/installed
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-no-deps.txt
PLACE = --profile "$(PROFILE)" $(if $(OUTPUT),--output "$(OUTPUT)")

.PHONY: run test lint tables base bundle address lock clean

run: $(INSTALLED)  ## execute the five notebooks, write results, weights and tables
	$(BIN)/peft-scratch notebooks $(PLACE) --seed "$(SEED)"
	$(BIN)/peft-scratch tables $(PLACE)

# Two processes of one thread each: the tests' models are so small that threads only wait for each other.
test: lint  ## no network, no GPU
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

tables: $(INSTALLED)  ## from the results that are there
	$(BIN)/peft-scratch tables $(PLACE)

base: $(INSTALLED)  ## pre-train the offline base model anew: two hours on two cores
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-base.txt
	$(BIN)/peft-scratch base $(if $(BUDGET),--budget "$(BUDGET)") $(if $(OUTPUT),--output "$(OUTPUT)")

bundle:  ## peft-scratch.zip, to upload to Colab beside a notebook
	git archive --format=zip --prefix=peft-scratch/ --output=peft-scratch.zip HEAD

address:  ## write the repository's address from pyproject.toml into README and notebooks
	$(PYTHON) scripts/address.py

lock: $(INSTALLED)  ## write the versions of this environment down as the ones to install
	$(BIN)/python scripts/lock.py > constraints.tmp
	mv constraints.tmp constraints.txt

clean:  ## environment and unfinished runs; results, weights and notebooks stay
	rm -rf .venv runs build dist peft-scratch.zip

# Made again when, and only when, what is asked for has changed. One call to pip, so that torch is
# taken once, in the version of constraints.txt.
$(INSTALLED): $(REQUIREMENTS) constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --no-deps -r requirements-no-deps.txt --editable .
	touch $@
