# Makefile: how this project is built, tried and checked. `make` alone lists the targets.
#
# Everything but `build` and `coverage` uses the dev profile, the same target directory and, by way
# of --workspace, the same features, so that crates are compiled once.

SHELL = /bin/bash
# One target at a time and in order: `check` stops at the first that fails.
.NOTPARALLEL:
# What follows the last test result would hide it from whoever reads the end of the output.
MAKEFLAGS += --no-print-directory
# rustup's place, for shells that have not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

PREFIX ?= /usr/local

LEDGER_TESTS = boundaries crash fence ledger metrics model reconcile refusals repeats sharing storm \
	stream survey tidy topologies truth upgrade zfs zfs_hosts zfs_races zfs_stand_in

.PHONY: help build install uninstall deb try-packages demo bench bench-nfs check check-long lint docs test-unit \
	test-integration coverage screens torture torture-nfs galera mutants format clean deps

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^=]*## /\1: /p' Makefile | while IFS=: read -r target text; \
		do printf 'make %-17s%s\n' "$$target" "$$text"; done

build: ## The tools, as release binaries in target/release
	cargo build --release --locked

install: build ## The tools, units, pages and completions, below $(DESTDIR)$(PREFIX)
	BUILT="$(TARGET)/release" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" packaging/install install

uninstall: ## Remove what `install` put there; settings only if they are as they came
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" packaging/install uninstall

deb: build ## Debian packages in target/deb
	BUILT="$(TARGET)/release" packaging/deb/build "$(TARGET)/deb"

try-packages: deb ## Install and purge them in a fresh Debian tree, which mmdebstrap fetches; as root
	packaging/deb/try "$(TARGET)/deb"

demo: deps ## Two jobs share an S3 target on this machine, told line by line; as root
	cargo build --locked --workspace --bins
	@PATH="$(TARGET)/debug:$(CURDIR)/pipelines:$$PATH" tests/demo.sh

# The tools as users have them; the harness beside them.
bench: deps build ## How quick and frugal it is beside others: a table, and target/bench.json; as root
	cargo build --profile harness --locked -p dms-bench -p dms-tests --bins
	@ln -f "$(TARGET)/harness/dms-test-s3" "$(TARGET)/release/dms-test-s3"
	@DMS_BIN="$(TARGET)/release" "$(TARGET)/harness/dms-bench" $(PARTS)

check: deps lint docs test-unit test-integration ## All that has to pass; what CI runs

check-long: export DMS_TEST_LONG = 1
check-long: check try-packages mutants torture-nfs galera ## The same, with the tests that take long

lint: ## Format, clippy, and shellcheck of every shell script
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
# The product by itself: among the tests, it could borrow a feature that it does not ask for.
	cargo check --locked
	find . \( -name target -o -name .git \) -prune -o -type f -exec awk \
		'FNR == 1 && /^#! *[^ ]*[\/ ](ba|da)?sh( |$$)/ { print FILENAME } { nextfile }' {} + \
		| xargs -d '\n' shellcheck

docs: ## The API documentation builds, and the pages say what the tools do
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked
# The pages are held against the binaries.
	cargo build --workspace --locked
	tests/check-docs.sh

test-unit: ## The unit tests
	cargo test --locked --workspace --lib --bins

# What is started behind & of a script ignores these, and so would all that a test interrupts.
AS_USUAL = env --default-signal=INT,QUIT

test-integration: ## Whole pipelines on real parts; as root
# The tests run the binaries, which cargo does not know: it would not build them.
	cargo build --workspace --locked
# How quick it is, is said of what users have.
	cargo build --release --locked -p dms-lock
	$(AS_USUAL) cargo test --locked --workspace --test '*'
# The ledger's tests once more, on the other engine.
	DMS_TEST_DB=mariadb $(AS_USUAL) cargo test --locked -p dms-tests $(addprefix --test ,$(LEDGER_TESTS))

torture: SECONDS = 600
torture: ## Tries to break all of it, for SECONDS=600, by SEED=n; as root
	cargo build --workspace --locked
	"$(TARGET)/debug/torture" --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(TORTURE)

# In debug, the tools' many pages cost the guest most of its time.
torture-nfs: SECONDS = 180
torture-nfs: build ## The same with NFS targets, in a guest, for SECONDS=180, by SEED=n; as root
	cargo build --workspace --locked
	DMS_BIN="$(or $(DMS_BIN),$(TARGET)/release)" DMS_TORTURE_SECONDS=$(SECONDS) \
		DMS_TORTURE_OPTIONS="$(TORTURE)" $(if $(SEED),DMS_TORTURE_SEED=$(SEED)) \
		cargo test --locked -p dms-torture --test nfs -- --ignored --nocapture

bench-nfs: build ## An NFS mount beside mount(8) by hand, in a guest; as root
	DMS_BIN="$(or $(DMS_BIN),$(TARGET)/release)" \
		cargo test --locked -p dms-tests --test nfs_guest -- --ignored --nocapture

galera: ## The ledger on two servers that are one; as root
	cargo build --workspace --locked
	cargo test --locked -p dms-tests --test galera -- --ignored

mutants: ## Whether that finds what was made wrong on purpose; as root
	cargo build --workspace --locked
	tests/torture/mutants/run "$(TARGET)/debug/torture"

screens: ## What an operator sees, in docs/screens.md; as root
	cargo build --workspace --locked
	DMS_WRITE_SCREENS=1 cargo test --locked -p dms-tests --test screens

coverage: ## What the tests reach, as a table
	@cargo llvm-cov --version >/dev/null 2>&1 || { echo 'make coverage: fatal: cargo-llvm-cov is' \
		'not installed: cargo install --locked cargo-llvm-cov && rustup component add llvm-tools' >&2; \
		exit 1; }
# The binaries that the tests run count, too. They are compiled differently: hence a directory of
# their own.
	export CARGO_TARGET_DIR="$(TARGET)/coverage" && source <(cargo llvm-cov show-env --export-prefix) \
		&& cargo llvm-cov clean --workspace \
		&& cargo build --workspace --locked \
		&& cargo test --workspace --locked \
		&& cargo llvm-cov report

format: ## Format the Rust sources
	cargo fmt --all

clean: ## Remove what was built
	cargo clean

deps: ## Install what the checks and the demo need and this machine lacks
	@tests/install-deps.sh
