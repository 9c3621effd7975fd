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
BINDIR = $(DESTDIR)$(PREFIX)/bin
MANDIR = $(DESTDIR)$(PREFIX)/share/man

LEDGER_TESTS = boundaries crash fence ledger metrics model reconcile refusals repeats sharing storm \
	stream tidy topologies truth upgrade

TOOLS = dms-lock dms-ledger dms-mount dms-listen dms-call

.PHONY: help build install uninstall demo check check-long lint docs test-unit test-integration coverage format \
	clean deps

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^=]*## /\1: /p' Makefile | while IFS=: read -r target text; \
		do printf 'make %-17s%s\n' "$$target" "$$text"; done

build: ## The tools, as release binaries in target/release
	cargo build --release --locked

install: build ## The tools, dms-pipeline and the pages, below $(DESTDIR)$(PREFIX)
	install -d $(BINDIR) $(sort $(foreach page,$(wildcard man/*),$(MANDIR)/man$(patsubst .%,%,$(suffix $(page)))))
	install $(addprefix $(TARGET)/release/,$(TOOLS)) pipelines/dms-pipeline $(BINDIR)
	$(foreach page,$(wildcard man/*),install -m 644 $(page) $(MANDIR)/man$(patsubst .%,%,$(suffix $(page))) &&) :

uninstall: ## Remove what `install` put there
	rm -f $(addprefix $(BINDIR)/,$(TOOLS) dms-pipeline) \
		$(foreach page,$(wildcard man/*),$(MANDIR)/man$(patsubst .%,%,$(suffix $(page)))/$(notdir $(page)))

demo: deps ## Two jobs share an S3 target on this machine, told line by line; as root
	cargo build --locked --workspace --bins
	@PATH="$(TARGET)/debug:$(CURDIR)/pipelines:$$PATH" tests/demo.sh

check: deps lint docs test-unit test-integration ## All that has to pass; what CI runs

check-long: export DMS_TEST_LONG = 1
check-long: check ## The same, with the tests that take long

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

test-integration: ## Whole pipelines on real parts; as root
# The tests run the binaries, which cargo does not know: it would not build them.
	cargo build --workspace --locked
	cargo test --locked --workspace --test '*'
# The ledger's tests once more, on the other engine.
	DMS_TEST_DB=mariadb cargo test --locked -p dms-tests $(addprefix --test ,$(LEDGER_TESTS))

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
