# Everything a person or CI does here. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Build products live outside the clone, so that CI, worktrees and the next build share them.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/clicktally/target
CARGO ?= cargo
# What the C parts (librdkafka) and the embedded services need. Installed only where absent.
DEBIAN_PACKAGES := build-essential cmake pkg-config libcurl4-openssl-dev libssl-dev zlib1g-dev libzstd-dev libsasl2-dev \
	openjdk-17-jre-headless maven postgresql python3-pip

# What the peers are built with, beside the runtime that Kafka needs.
PEER_PACKAGES := openjdk-17-jdk-headless

FLAME_PACKAGES := linux-perf

.PHONY: help deps build demo test lint verify fix bench bench-peers bench-flame bench-freshness bench-failover sim sim-mutants

help: ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Installs what this machine lacks (Debian and Ubuntu, through apt-get; elsewhere it says what is missing).
	@deploy/install-deps $(DEBIAN_PACKAGES)

build: deps ## The binary, with the profile that tests and the demo share.
	$(CARGO) build --locked -p clicktally-node
	@echo "$$CARGO_TARGET_DIR/debug/clicktally"

demo: deps ## The main job on three nodes with a kill in mid-stream; KEEP=1 stays up, CLICKS=… changes the size.
	$(CARGO) build --locked -p clicktally-chaos-tests --bins
	"$$CARGO_TARGET_DIR/debug/demo" --report target/demo/report.json $(if $(KEEP),--keep) $(if $(CLICKS),--clicks $(CLICKS)) \
		$(if $(SEED),--seed $(SEED))

test: deps ## Every test, on real Kafka and real PostgreSQL.
	$(CARGO) test --locked --workspace

lint: verify ## The same as verify.

verify: ## Formatting, lints, licences and advisories; writes nothing into the clone.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --all-features check; \
	else echo "cargo-deny is not installed: licences and advisories were NOT checked (cargo install --locked cargo-deny)"; fi

fix: ## Formats, and applies the lints' own suggestions.
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

sim: deps ## The cluster in a deterministic simulation: SEEDS=1000 schedules from SEED=1 on, TIER=1 of whole nodes; says how to replay.
	$(CARGO) build --locked -p clicktally-chaos-tests --bin sim
	"$$CARGO_TARGET_DIR/debug/sim" run --tier $(or $(TIER),0) --seeds $(or $(SEEDS),1000) --seed $(or $(SEED),1)

sim-mutants: deps ## Plants every known mistake, fails if the simulation does not find one, and writes the table of docs/simulation.md.
	$(CARGO) build --locked -p clicktally-chaos-tests --bin sim
	"$$CARGO_TARGET_DIR/debug/sim" mutants --document docs/simulation.md

bench: deps ## Events/s and CPU-seconds per million: raw consume against the whole shard path, in one run; BENCH_CLICKS=… changes the size.
	$(CARGO) build --locked --release -p clicktally-node
	"$$CARGO_TARGET_DIR/release/clicktally" bench $(if $(BENCH_CLICKS),--clicks $(BENCH_CLICKS))

bench-peers: deps ## The same beside Apache Flink and Kafka Streams, on the same topic in one run; BENCH_CLICKS=… changes the size.
	@deploy/install-deps $(PEER_PACKAGES)
	$(CARGO) build --locked --release -p clicktally-node
	"$$CARGO_TARGET_DIR/release/clicktally" bench --topic single --clicks $(or $(BENCH_CLICKS),5000000) --peers bench/run-peers

bench-flame: deps ## Where the CPU time of the shard path goes: docs/flamegraph-shard-path.svg, and a table on the terminal.
	@deploy/install-deps $(FLAME_PACKAGES)
	command -v inferno-flamegraph >/dev/null || $(CARGO) install --locked inferno
	$(CARGO) build --locked --release -p clicktally-node
	bench/flame "$$CARGO_TARGET_DIR/release/clicktally" docs/flamegraph-shard-path.svg

bench-freshness: deps ## From an acknowledged click to its count and its spend, on three nodes under load, for several checkpoint intervals.
	$(CARGO) build --locked -p clicktally-chaos-tests --bins
	"$$CARGO_TARGET_DIR/debug/freshness"

bench-failover: deps ## How long counting stands still when a node dies and when it is stopped; RUNS=10 of each, RAFT_GROUPS=1 groups.
	$(CARGO) build --locked -p clicktally-chaos-tests --bins
	"$$CARGO_TARGET_DIR/debug/failover" --runs $(or $(RUNS),10) --groups $(or $(RAFT_GROUPS),1) --report target/failover/report.json
