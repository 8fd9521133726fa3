# Every task of a developer and of CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Build products live outside the clone, so that CI, worktrees and the next build share them.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/clicktally/target
CARGO ?= cargo
# Every debug build names the whole workspace. The features of a dependency then do not vary with the binary asked for,
# and `make demo`, `make build`, `make sim` and `make test` share one build of each crate.
BUILD := $(CARGO) build --locked --workspace
# The C parts (librdkafka) and the embedded services need these packages. `deps` installs only those that are absent.
DEBIAN_PACKAGES := build-essential cmake pkg-config libcurl4-openssl-dev libssl-dev zlib1g-dev libzstd-dev libsasl2-dev \
	openjdk-17-jre-headless maven postgresql python3-pip

# Building the peers needs this in addition to the runtime that Kafka needs.
PEER_PACKAGES := openjdk-17-jdk-headless

FLAME_PACKAGES := linux-perf

.PHONY: help deps build demo test trial lint verify fix bench bench-peers bench-flame bench-freshness bench-failover sim sim-mutants

help: ## Prints this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Installs missing packages with apt-get on Debian and Ubuntu; elsewhere names what it needs.
	@deploy/install-deps $(DEBIAN_PACKAGES)

build: deps ## Builds the binary with the profile that tests and the demo share.
	$(BUILD) --bin clicktally
	@echo "$$CARGO_TARGET_DIR/debug/clicktally"

demo: deps ## Runs the main job on three nodes with a kill in mid-stream; KEEP=1 keeps it up, CLICKS=… is the size.
	$(BUILD) --bin clicktally_under_test --bin demo
	"$$CARGO_TARGET_DIR/debug/demo" --report target/demo/report.json $(if $(KEEP),--keep) $(if $(CLICKS),--clicks $(CLICKS)) \
		$(if $(SEED),--seed $(SEED))

test: deps ## Runs every test, on real Kafka and real PostgreSQL.
	$(CARGO) test --locked --workspace

trial: deps ## Repeats the tests named like NAME, TIMES=20, BESIDE=1 with busy loops beside; TEST=live is their program.
	chaos-tests/repeat-trial "$(NAME)" $(or $(TIMES),20) $(or $(BESIDE),0) $(or $(TEST),live)

lint: verify ## Does the same as verify.

verify: ## Checks formatting, lints, licences and advisories; writes nothing into the clone.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --all-features check; \
	else echo "cargo-deny is not installed: licences and advisories were NOT checked (cargo install --locked cargo-deny)"; fi

fix: ## Formats the code and applies the fixes that the lints suggest.
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

sim: deps ## Simulates the cluster: SEEDS=1000 schedules from SEED=1 on, TIER=1 for whole nodes, TIER=2 for billing.
	$(BUILD) --bin sim
	"$$CARGO_TARGET_DIR/debug/sim" run --tier $(or $(TIER),0) --seeds $(or $(SEEDS),1000) --seed $(or $(SEED),1) $(if $(EDITION),--edition $(EDITION))

sim-mutants: deps ## Plants every known mistake, fails if one is not found, writes the table of docs/simulation.md.
	$(BUILD) --bin sim
	"$$CARGO_TARGET_DIR/debug/sim" mutants --document docs/simulation.md

bench: deps ## Measures clicks/s and CPU-s/M of the shard path and of bare reading; BENCH_CLICKS=… is the size.
	$(CARGO) build --locked --release -p clicktally-node
	"$$CARGO_TARGET_DIR/release/clicktally" bench $(if $(BENCH_CLICKS),--clicks $(BENCH_CLICKS))

bench-peers: deps ## Measures the same for Apache Flink and Kafka Streams, on one topic in one run.
	@deploy/install-deps $(PEER_PACKAGES)
	$(CARGO) build --locked --release -p clicktally-node
	"$$CARGO_TARGET_DIR/release/clicktally" bench --topic single --clicks $(or $(BENCH_CLICKS),5000000) --peers bench/run-peers

bench-flame: deps ## Draws where the CPU time of the shard path goes: docs/flamegraph-shard-path.svg, and a table.
	@deploy/install-deps $(FLAME_PACKAGES)
	command -v inferno-flamegraph >/dev/null || $(CARGO) install --locked inferno
	$(CARGO) build --locked --release -p clicktally-node
	bench/flame "$$CARGO_TARGET_DIR/release/clicktally" docs/flamegraph-shard-path.svg

bench-freshness: deps ## Measures the delay from a click to its count and spend, for several checkpoint intervals.
	$(BUILD) --bin clicktally_under_test --bin freshness
	"$$CARGO_TARGET_DIR/debug/freshness"

bench-failover: deps ## Measures how long counting pauses when a node dies or stops; RUNS=10 of each, RAFT_GROUPS=1.
	$(BUILD) --bin clicktally_under_test --bin failover
	"$$CARGO_TARGET_DIR/debug/failover" --runs $(or $(RUNS),10) --groups $(or $(RAFT_GROUPS),1) --report target/failover/report.json
