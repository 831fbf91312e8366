# Everything from a fresh Debian or Ubuntu: `make demo`, `make test`. See `make help`.

# Debian 12 and Ubuntu 24.04 have it as python3; Ubuntu 22.04 and Amazon Linux 2023 beside it, as python3.11.
PYTHON ?= $(shell sh release/files/python -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3.11)
# Linux 6.1 as a process, on Debian 12; other distributions have no such package, or another kernel in it.
OLDER_KERNEL = $(shell . /etc/os-release; [ "$$ID $$(uname -m)" != "debian x86_64" ] || \
	echo linux.uml:user-mode-linux modprobe:kmod)
# Passed to the demo, pytest or the bench, for example: make demo ARGS='--rate 40MiB'
ARGS =

# Where `make install` puts things. DESTDIR is for packagers: a tree that becomes the root later.
DESTDIR =
APPDIR = /opt/ebs-autoscale
PREFIX = /usr/local
UNITDIR = /etc/systemd/system
CATALOGDIR = /usr/lib/systemd/catalog

VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# Warnings of pip are about itself; errors are still shown.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
SOURCES := ebs_autoscale sandbox release tests
JUNK := $(VENV) build dist ebs_autoscale.egg-info sandbox/*.egg-info sandbox/build .pytest_cache .mypy_cache .ruff_cache \
	.import_linter_cache .hypothesis .coverage

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-release test-older-kernel fuzz chaos hostile guide bench bench-fill measure completion pictures check imports format lock dist install \
	uninstall tools clean
.DELETE_ON_ERROR:

help: ## show this help
	@sed -En 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(VENV)/.demo-ready ## run the demo on this machine; no AWS account needed
	@exec $(SUDO) setpriv --pdeathsig KILL $(BIN)/ebs-autoscale demo $(ARGS)

test: NEEDED = mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs findmnt:util-linux logrotate:logrotate groff:groff-base \
	systemd-analyze:systemd mmdebstrap:mmdebstrap ip:iproute2 fusermount3:fuse3 promtool:prometheus \
	sfdisk:fdisk strace:strace zsh:zsh fish:fish openssl:openssl rpm:rpm $(OLDER_KERNEL)
test: tools $(VENV)/.dev-ready ## run all tests, as root, on loop devices with BTRFS
	@exec $(SUDO) env CI=$(CI) $(BIN)/python -m pytest --numprocesses 4 --dist worksteal $(ARGS)

test-release: NEEDED = rpm:rpm debootstrap:debootstrap
test-release: tools $(VENV)/.dev-ready ## run the black-box tests against each artefact; ARGS='deb -k reload'
	@exec $(SUDO) env CI=$(CI) $(BIN)/python -m tests.artefact $(ARGS)

test-unit: $(VENV)/.dev-ready ## run the tests that need neither root nor devices (half a minute)
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -p no:cacheprovider \
		--hypothesis-profile quick tests/unit tests/host $(ARGS)

test-older-kernel: NEEDED = $(OLDER_KERNEL) mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs ip:iproute2
test-older-kernel: tools $(VENV)/.dev-ready ## run the kernel tests on Linux 6.1, in user-mode Linux (twelve minutes)
	@exec $(SUDO) $(BIN)/python -m tests.kernels $(ARGS)

fuzz: $(VENV)/.dev-ready ## change what comes from outside, for a minute; ARGS='--seconds 60 --seed 7'
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

chaos: tools $(VENV)/.dev-ready ## run 500 growths under faults and kill -9 on real BTRFS; ARGS='--seed 7'
	@exec $(SUDO) $(BIN)/python -m tests.chaos $(ARGS)

hostile: NEEDED = fusermount3:fuse3 mkfs.ext4:e2fsprogs
hostile: tools $(VENV)/.dev-ready ## let a hostile user disturb growths for an hour; ARGS='--minutes 5'
	@exec $(SUDO) $(BIN)/python -m tests.hostile $(ARGS)

guide: NEEDED = mkfs.ext4:e2fsprogs
guide: tools $(VENV)/.dev-ready ## provoke what the failure guide is about, and follow its advice (ten minutes)
	@exec $(SUDO) $(BIN)/python -m pytest --numprocesses 4 --dist worksteal \
		tests/system/guide.py tests/system/guide_verbs.py $(ARGS)

measure: tools $(VENV)/.dev-ready ## repeat the measurements in docs/metadata.md (half an hour)
	@for each in metadata exclusive emergency kills; do \
		echo "== $$each"; $(SUDO) $(BIN)/python -m tests.bench.$$each || exit 1; done

completion: $(VENV)/.dev-ready ## generate the shell completion from the parser
	@$(BIN)/python -m tests.completion

pictures: tools $(VENV)/.dev-ready ## record the pictures in the README from real runs
	@mkdir -p build
	@$(SUDO) $(BIN)/python -m tests.pictures.filling >build/filling.json
	@$(BIN)/python -m tests.pictures.chart docs/pictures <build/filling.json
	@$(SUDO) $(BIN)/python -m tests.pictures.screen docs/pictures/demo.svg
	@$(SUDO) $(BIN)/python -m tests.pictures.status docs/pictures

bench: tools $(VENV)/.dev-ready ## measure cost, accuracy and survival under load; ARGS='storm cost'
	@exec $(SUDO) $(BIN)/python -m tests.bench $(ARGS)

bench-fill: tools $(VENV)/.dev-ready ## find the highest write rate without ENOSPC, compared with polling df; ARGS='--filesystem xfs'
	@exec $(SUDO) $(BIN)/python -m tests.bench fill $(ARGS)

check: $(VENV)/.dev-ready ## check format, style, types, import rules and spelling
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@PATH="$(BIN):$$PATH" lint-imports --no-logo
	@$(BIN)/python -m tests.imports
	@$(BIN)/codespell
	@echo "all checks passed"

imports: $(VENV)/.dev-ready ## count imports between packages, upward imports and cycles
	@$(BIN)/python -m tests.imports

format: $(VENV)/.dev-ready ## format the code
	@$(BIN)/ruff format .

COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' --output-file
lock: $(VENV)/.demo-ready ## renew versions and hashes: what a release brings along, and what builds it
	@$(PIP) install --group lock
	@$(COMPILE) requirements.lock pyproject.toml
	@$(COMPILE) release/requirements.lock --group release

dist: $(VENV)/.dev-ready ## build a release in dist: trees with all dependencies, .deb, .rpm, wheel and sdist
	@$(BIN)/python -m release $(ARGS)

INSTALLER = DESTDIR='$(DESTDIR)' APPDIR='$(APPDIR)' PREFIX='$(PREFIX)' UNITDIR='$(UNITDIR)' \
	CATALOGDIR='$(CATALOGDIR)' PYTHON='$(PYTHON)' sh release/install.sh

# A tree for packagers needs no btrfs-progs here.
install: NEEDS_ENSUREPIP = yes
install: $(if $(DESTDIR),,tools) ## install into APPDIR, with units, man pages and shell completion (as root)
	@$(INSTALLER) install

uninstall: ## remove what `make install` installed; filesystems, volumes and configuration stay (as root)
	@$(INSTALLER) uninstall

clean: ## remove the venv, caches and build products
	@rm -rf $(JUNK) 2>/dev/null || $(SUDO) rm -rf $(JUNK)
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.demo-ready: pyproject.toml sandbox/pyproject.toml | tools
	@echo "setting up $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable . --editable './sandbox[demo]'
	@# Now and as this user, else sudo would do it as root.
	@$(BIN)/python -m compileall -q $(SOURCES)
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.demo-ready release/requirements.lock
	@echo "installing what the tests and checks need"
	@$(PIP) install --group dev
	@$(PIP) install --require-hashes --requirement release/requirements.lock
	@touch $@

# Asks apt only for what is not here; on other distributions it says what is missing. The tests need
# promtool only: Debian's package would leave a server running that listens on port 9090.
tools:
	@PATH="$$PATH:/usr/sbin:/sbin"; missing=""; \
	need() { command -v $$1 >/dev/null || missing="$$missing $$2"; }; \
	need $(PYTHON) $(notdir $(PYTHON)); \
	[ -x $(BIN)/python -a -z '$(NEEDS_ENSUREPIP)' ] || $(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| missing="$$missing $(notdir $(PYTHON))-venv"; \
	need mkfs.btrfs btrfs-progs; \
	need mount mount; \
	need setpriv util-linux; \
	for pair in $(NEEDED); do need $${pair%:*} $${pair#*:}; done; \
	[ -n "$$missing" ] || exit 0; \
	command -v apt-get >/dev/null || { echo "please install:$$missing" >&2; exit 1; }; \
	echo "installing$$missing"; \
	$(SUDO) apt-get -qq update; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 \
		install --no-install-recommends $$missing >/dev/null; \
	case "$$missing" in *prometheus*) \
		[ ! -d /run/systemd/system ] || $(SUDO) systemctl disable --quiet --now prometheus;; esac
