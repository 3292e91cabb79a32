# `make` lists the targets. `make run` makes the ten numbers from nothing, `make test` checks the kit.
# A target that is also a command (`peft-scratch --help`) has the same name and the same options.
PYTHON ?= python3
PROFILE ?= auto
SEED ?= 0
# So many seeds from SEED on; the first one's numbers are the ten.
SEEDS ?=
RECIPE ?= fast
OUTPUT ?=
BUDGET ?=
NAME ?=
NUMBER ?= $(STD_NUMBER)
# Another index for torch: https://download.pytorch.org/whl/cpu has builds of 200 MB without a GPU's libraries.
TORCH_INDEX ?=
# `make address` takes the remote `origin` unless owner/name is given.
REPOSITORY ?=
BROWSER =

BIN := .venv/bin
INSTALLED := .venv/installed
# transformers 4.57.6, which AdapterHub was made for, in a folder of its own: some tests run on both versions.
OLDER := build/transformers-4.57.6
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-no-deps.txt
PLACE = --profile "$(PROFILE)" $(if $(OUTPUT),--output "$(OUTPUT)")
RUN = $(if $(filter-out auto,$(PROFILE)),--profile "$(PROFILE)") $(if $(OUTPUT),--output "$(OUTPUT)")
TRAINING = $(PLACE) --recipe "$(RECIPE)"
SEED_OR_SEEDS = $(if $(SEEDS),--seeds "$(SEED)-$$(( $(SEED) + $(SEEDS) - 1 ))",--seed "$(SEED)")
STUDENT = $(if $(NAME),--name "$(NAME)") $(if $(NUMBER),--number "$(NUMBER)")

.PHONY: help install run test rehearsal colab browser page lint bench gpu notebooks baselines claims tables report submit submission
.PHONY: student base publish bundle address lock audit clean

help:  ## list the targets
	@awk -F ':.*## *' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PROFILE=auto|course|quick|offline|smoke  SEED=0  SEEDS=5  RECIPE=fast|reference  OUTPUT=folder  NAME=\"Ada Lovelace\"  NUMBER=400123456"

install: $(INSTALLED)  ## everything into .venv; TORCH_INDEX=https://download.pytorch.org/whl/cpu: torch's small CPU build

run: $(INSTALLED)  ## install, execute the five notebooks, make the tables and the report, all into out/PROFILE
	$(BIN)/peft-scratch run $(TRAINING) $(SEED_OR_SEEDS) $(STUDENT)

notebooks: $(INSTALLED)  ## execute the five notebooks, which train the ten runs
	$(BIN)/peft-scratch notebooks $(TRAINING) $(SEED_OR_SEEDS)

baselines: $(INSTALLED)  ## measure what the ten numbers are compared with
	$(BIN)/peft-scratch baselines $(TRAINING)

claims: $(INSTALLED)  ## train on 256 reviews with three seeds, to see overfitting: ten minutes on two cores
	$(BIN)/peft-scratch claims $(TRAINING)

tables: $(INSTALLED)  ## make the tables from the results that are there
	$(BIN)/peft-scratch tables $(PLACE)

report: $(INSTALLED)  ## make the report from the results that are there, with NAME and NUMBER at its head
	$(BIN)/peft-scratch report $(PLACE) $(STUDENT)

submit: $(INSTALLED)  ## check your files and pack the three to hand in: NAME="Ada Lovelace" NUMBER=400123456
	$(BIN)/peft-scratch submit --number "$(NUMBER)" --name "$(NAME)" $(RUN)

submission: submit  # the name of this target in earlier versions

student: $(INSTALLED)  ## for lecturers: the assignment with blanks, in out/student-edition and as a zip; LEVEL=lines|classes
	$(BIN)/peft-scratch student-edition $(or $(OUTPUT),out/student-edition) $(if $(LEVEL),--level "$(LEVEL)")

base: $(INSTALLED)  ## pre-train the offline base model: an hour, after ten minutes of training a teacher model
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-base.txt
	$(BIN)/peft-scratch base $(if $(BUDGET),--budget "$(BUDGET)") $(if $(OUTPUT),--output "$(OUTPUT)")

publish: $(INSTALLED)  ## for maintainers: put a finished offline run into report, weights, notebooks and README
	$(BIN)/peft-scratch publish $(if $(OUTPUT),--output "$(OUTPUT)")

# Two processes of one thread each: the tests' models are so small that threads only wait for each other.
test: lint $(OLDER)  ## lint and tests, without network or GPU
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

rehearsal: $(INSTALLED)  ## the notebooks cell by cell, as a student runs them; t5-small's sizes, a few reviews, some minutes
	$(BIN)/pytest -s tests/end_to_end/rehearsal.py

colab: $(INSTALLED)  ## the five notebooks in copies of Colab's image; NOTEBOOKS="1 4", or student for the edition: some minutes
	OMP_NUM_THREADS=1 $(BIN)/python tests/end_to_end/colab.py $(NOTEBOOKS)

# Playwright goes into a folder of its own: the kit needs none. It drives a Chromium that is there; none is fetched.
PLAYWRIGHT := 1.65.2
browser: $(INSTALLED)  ## the notebooks in JupyterLab in a real Chromium, some minutes; BROWSER=/path/to/chromium
	test -d build/browser/playwright-$(PLAYWRIGHT).dist-info || \
		$(BIN)/python -m pip install --quiet --upgrade --target build/browser playwright==$(PLAYWRIGHT)
	PYTHONPATH=build/browser $(BIN)/python tests/end_to_end/browser.py build/pictures "$(BROWSER)"

# Gradio as well, with what it needs: an older Pillow than the kit's is among it.
page: $(INSTALLED)  ## the page of `peft-scratch app` in a real Chromium, two minutes; BROWSER=/path/to/chromium
	mkdir -p build && grep -v '^pillow=' constraints.txt > build/page-constraints.txt
	test -d build/page/gradio || $(BIN)/python -m pip install --quiet --upgrade --target build/page \
		-c build/page-constraints.txt "gradio>=6.20" playwright==$(PLAYWRIGHT)
	PYTHONPATH=build/page $(BIN)/python tests/end_to_end/app.py build/pictures "$(BROWSER)"
	PYTHONPATH=build/page $(BIN)/python tests/end_to_end/app_in_colab.py build/pictures "$(BROWSER)"

lint: $(INSTALLED)  ## ruff, on the code and the notebooks
	$(BIN)/ruff check
	$(BIN)/ruff format --check

bench: $(INSTALLED)  ## measure speed against the reference recipe and the libraries: 20 minutes on an idle machine
	$(BIN)/python benchmarks/bench.py all

# With the Python that is there, as its torch is the one built for the card.
gpu:  ## check results and speed on a GPU: nine minutes, no network; writes benchmarks/gpu/<card>.json
	PYTHONPATH=src $(PYTHON) benchmarks/gpu.py

bundle:  ## peft-scratch.zip, to upload to Colab beside a notebook
	git archive --format=zip --prefix=peft-scratch/ --output=peft-scratch.zip HEAD

address:  ## set the repository's address in README and notebooks: the remote origin's, or REPOSITORY=owner/name
	$(PYTHON) scripts/address.py $(REPOSITORY)

lock: $(INSTALLED)  ## write this environment's versions into constraints.txt
	$(BIN)/python scripts/lock.py > constraints.tmp
	mv constraints.tmp constraints.txt

# In an environment of its own: what it installs is no business of the kit's.
audit:  ## look up known vulnerabilities of the exact versions: asks pypi.org
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

clean:  ## remove .venv, build/, and the checkpoints; the ten results, weights and notebooks stay
	rm -rf .venv out/*/runs build dist peft-scratch.zip

$(OLDER): $(INSTALLED)
	$(BIN)/python -c "from peft_scratch.exactness.versions import older_environment; older_environment()"
	touch $@

# Made again when, and only when, what is asked for has changed. One call to pip, so that torch is
# taken once, in the version of constraints.txt.
$(INSTALLED): $(REQUIREMENTS) constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") -c constraints.txt -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --no-deps -r requirements-no-deps.txt --editable .
	touch $@
