# Ackord's commands. RocksDB's archive is compiled once per machine (tools/rocksdb-archive) and linked from then on.

.DEFAULT_GOAL := help
.PHONY: help setup build run demo test sim controls test-damage test-clients rolling-kills topic-settings
.PHONY: many-partitions many-groups jepsen fuzz fmt lint doc deny

# Every cargo command that links goes through this, so that none of them compiles RocksDB a second time.
CARGO_LINKED = archive=$$(tools/rocksdb-archive) && ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$$archive" cargo

# Runs seeds of the simulated cluster.
SIM = $(CARGO_LINKED) test --profile sim --locked --test sim seeds -- --nocapture --exact

# What `make jepsen` has built.
HARNESS = "$${CARGO_TARGET_DIR:-target}"/release/ackord-jepsen

help: ## Lists these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: ## Installs what the build needs beside Rust (Debian packages)
	@tools/setup

build: setup ## Builds the release binary
	$(CARGO_LINKED) build --release --locked

run: setup ## Starts a three-node cluster on this machine, for development
	$(CARGO_LINKED) run --release --locked -- dev

demo: build ## A year of flights, written while the leader is killed, and read back without a gap
	tools/demo

test: setup ## Format, lints, documentation and all tests: what a change must pass
	cargo fmt --all --check
	$(CARGO_LINKED) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO_LINKED) test --workspace --locked
	SEEDS=5000 && export SEEDS && $(SIM)
	cd tools && python3 -m unittest -q clients.test_history
	tools/demo --records 20000 --binary "$${CARGO_TARGET_DIR:-target}"/debug/ackord
	RUSTDOCFLAGS="-D warnings" && export RUSTDOCFLAGS && $(CARGO_LINKED) doc --workspace --no-deps --locked

sim: setup ## Runs SEEDS=1000 seeds of the simulated cluster (from FIRST=0 on), or SEED=n alone, line by line
	SEEDS=$(or $(SEEDS),1000) && export SEEDS && $(SIM)

controls: setup ## Breaks each promise of the simulated cluster on purpose, and prints how many seeds it took to find that
	$(CARGO_LINKED) test --profile sim --locked --test sim controls -- --nocapture

test-damage: setup ## Damages a node's files in every way there is, where `make test` tries about half of them
	ACKORD_ALL_DAMAGE=1 && export ACKORD_ALL_DAMAGE && \
		$(CARGO_LINKED) test --locked --test damaged_node -- --nocapture

test-clients: build ## Real clients, alone and in groups, against a real cluster; writes docs/clients.md and README.md
	tools/test-clients

rolling-kills: build ## Three groups of several clients read while nodes are killed in turn, for 20 minutes
	tools/rolling-kills --minutes 20

topic-settings: setup ## Writes docs/topic-settings.md from the code's table
	ACKORD_WRITE_DOCS=1 && export ACKORD_WRITE_DOCS && $(CARGO_LINKED) test --locked --test topic_settings

many-partitions: build ## What a thousand partitions cost: time, memory, processor
	tools/many-partitions

many-groups: build ## What a thousand consumer groups cost, beside a single one
	tools/many-groups

jepsen: setup ## Kills nodes and cuts their power for real, under load, for half an hour (as root)
	$(CARGO_LINKED) build --release --workspace --locked
	$(HARNESS) kill
	$(HARNESS) pause
	$(HARNESS) power-cut
	$(HARNESS) power-cut-control --rounds 3
	$(HARNESS) away --rounds 5
	$(HARNESS) damage --rounds 40
	$(HARNESS) retention

fuzz: setup ## Fuzzes everything that comes from outside, SECONDS=60 each (installs cargo-fuzz; see tools/fuzz)
	tools/fuzz $(or $(SECONDS),60)

fmt: ## Formats the source
	cargo fmt --all

lint: setup ## Clippy, warnings are errors
	$(CARGO_LINKED) clippy --workspace --all-targets --locked -- -D warnings

doc: setup ## Builds the documentation of the code
	$(CARGO_LINKED) doc --workspace --no-deps --locked

deny: ## Licences, advisories and sources of the dependencies (needs cargo-deny and the network)
	@command -v cargo-deny >/dev/null || { echo "install it first: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --workspace check
	cargo deny --manifest-path fuzz/Cargo.toml check
