# `make run` makes the ten numbers from nothing, `make test` checks the kit; the rest serves these two.
PYTHON ?= python3
PROFILE ?= auto
SEED ?= 0
RECIPE ?= fast
OUTPUT ?=
BUDGET ?=
STD_NUMBER =
NAME =
BROWSER =

BIN := .venv/bin
INSTALLED := .venv/installed
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-no-deps.txt
PLACE = --profile "$(PROFILE)" $(if $(OUTPUT),--output "$(OUTPUT)")
STUDENT = $(if $(NAME),--name "$(NAME)") $(if $(STD_NUMBER),--number "$(STD_NUMBER)")

.PHONY: run test rehearsal browser lint bench tables report claims submission base bundle address lock audit clean

run: $(INSTALLED)  ## execute the five notebooks, write results, weights, tables and report
	$(BIN)/peft-scratch notebooks $(PLACE) --seed "$(SEED)" --recipe "$(RECIPE)"
	$(BIN)/peft-scratch tables $(PLACE)
	$(BIN)/peft-scratch report $(PLACE) $(STUDENT)

# Two processes of one thread each: the tests' models are so small that threads only wait for each other.
test: lint  ## no network, no GPU
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

rehearsal: $(INSTALLED)  ## the notebooks on the course profile, t5-small's sizes, a few reviews: some minutes
	$(BIN)/pytest -s tests/rehearsal.py

# Playwright goes into a folder of its own: the kit needs none. It drives a Chromium that is there; none is fetched.
PLAYWRIGHT := 1.65.2
browser: $(INSTALLED)  ## the notebooks in JupyterLab in a real Chromium, some minutes; BROWSER=/path/to/chromium
	test -d build/browser/playwright-$(PLAYWRIGHT).dist-info || \
		$(BIN)/python -m pip install --quiet --upgrade --target build/browser playwright==$(PLAYWRIGHT)
	PYTHONPATH=build/browser $(BIN)/python tests/browser.py build/pictures "$(BROWSER)"

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

bench: $(INSTALLED)  ## how fast it is, beside the course's recipe and the libraries: 20 minutes, and nothing else running
	$(BIN)/python benchmarks/bench.py all

tables: $(INSTALLED)  ## from the results that are there
	$(BIN)/peft-scratch tables $(PLACE)

report: $(INSTALLED)  ## the PDFs and their figures, from the results that are there; NAME=… STD_NUMBER=…
	$(BIN)/peft-scratch report $(PLACE) $(STUDENT)

claims: $(INSTALLED)  ## how the methods overfit on 256 reviews: ten minutes on two cores
	$(BIN)/peft-scratch small-data $(PLACE) --recipe "$(RECIPE)"

submission: $(INSTALLED)  ## the three files to hand in, checked: STD_NUMBER=400123456 NAME="Ada Lovelace"
	$(BIN)/peft-scratch submit --number "$(STD_NUMBER)" --name "$(NAME)" $(if $(OUTPUT),--output "$(OUTPUT)")

base: $(INSTALLED)  ## pre-train the offline base model anew: an hour, and before it ten minutes for its teacher
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-base.txt
	$(BIN)/peft-scratch base $(if $(BUDGET),--budget "$(BUDGET)") $(if $(OUTPUT),--output "$(OUTPUT)")

bundle:  ## peft-scratch.zip, to upload to Colab beside a notebook
	git archive --format=zip --prefix=peft-scratch/ --output=peft-scratch.zip HEAD

address:  ## write the repository's address from pyproject.toml into README and notebooks
	$(PYTHON) scripts/address.py

lock: $(INSTALLED)  ## write the versions of this environment down as the ones to install
	$(BIN)/python scripts/lock.py > constraints.tmp
	mv constraints.tmp constraints.txt

# In an environment of its own: what it installs is no business of the kit's.
audit:  ## look the exact versions up among the known vulnerabilities: asks pypi.org
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

clean:  ## environment and unfinished runs; results, weights and notebooks stay
	rm -rf .venv runs build dist peft-scratch.zip

# Made again when, and only when, what is asked for has changed. One call to pip, so that torch is
# taken once, in the version of constraints.txt.
$(INSTALLED): $(REQUIREMENTS) constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --no-deps -r requirements-no-deps.txt --editable .
	touch $@
