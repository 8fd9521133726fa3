//! What `ARCHITECTURE.md` says must be absent is absent: crates depend in one direction, libraries stay in their room,
//! and no two folders of a crate import each other.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod dependency_table;
mod import_circles;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::sources::{Source, production_sources, root};

/// Crates that may not see a library of [`IO_CRATES`], directly or through anything they depend on, because it could
/// do I/O or tell the time.
const FREE_OF_IO: [&str; 4] = ["raft-store/state", "proto/budget", "proto", "node/foreign-logs"];

const IO_CRATES: &[&str] = &[
    "tokio",
    "mio",
    "axum",
    "hyper",
    "reqwest",
    "openraft",
    "raft-engine",
    "rdkafka",
    "sqlx",
    "object_store",
    "actix",
    "rand",
    "tempfile",
    "socket2",
];

/// Libraries that only one crate may name among its dependencies.
const ONLY_IN: [(&str, &[&str]); 8] = [
    // The checks read PostgreSQL by SQL of their own: they would prove nothing through the code they check.
    ("sqlx", &["clicktally-database", "clicktally-chaos-tests"]),
    ("openraft", &["clicktally-raft-store"]),
    ("raft-engine", &["clicktally-raft-store"]),
    ("bincode", &["clicktally-proto"]),
    ("kafka-protocol", &["clicktally-kafka"]),
    ("datafusion", &["clicktally-billing"]),
    ("parquet", &["clicktally-billing"]),
    ("actix", &["clicktally-node"]),
];

/// Text that production code may contain only in these files or folders, and why.
const TEXT_ONLY_IN: [(&str, &[&str], &str); 7] = [
    ("bootstrap.servers", &["proto/kafka/src/connection"], "Kafka clients are made in one room"),
    ("ClientConfig::new", &["proto/kafka/src/connection"], "Kafka clients are made in one room"),
    ("sqlx::query", &["billing/database/src", "chaos-tests/src/database.rs"], "one crate owns the SQL schema"),
    ("sqlx::raw_sql", &["billing/database/src"], "one crate owns the SQL schema"),
    ("bincode::", &["proto/src/codec.rs"], "one codec"),
    (
        "std::fs::",
        &["raft-store/src/disk_storage", "node", "billing", "deploy", "chaos-tests"],
        "replicas reach the disk through the Storage seam",
    ),
    ("SystemTime::now", &["proto/src/clock.rs"], "time comes from the Clock seam"),
];

struct Package {
    name: String,
    /// The folder of the crate below the root, for example `proto/kafka`.
    folder: String,
    /// Normal dependencies by name, without dev- and build-dependencies.
    direct: BTreeSet<String>,
    id: String,
}

struct Workspace {
    packages: Vec<Package>,
    /// Every package's normal dependencies, by package id.
    arrows: BTreeMap<String, Vec<String>>,
    names: BTreeMap<String, String>,
}

fn workspace() -> Workspace {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members: BTreeSet<String> = metadata["workspace_members"].as_array().unwrap().iter().map(text).collect();
    let mut names = BTreeMap::new();
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let (id, name) = (text(&package["id"]), text(&package["name"]));
        if members.contains(&id) {
            let manifest = text(&package["manifest_path"]);
            let folder = Path::new(&manifest).parent().unwrap().strip_prefix(root()).unwrap();
            let folder = folder.to_string_lossy().replace('\\', "/");
            let normal = package["dependencies"].as_array().unwrap().iter().filter(|found| found["kind"].is_null());
            let direct = normal.map(|found| text(&found["name"])).collect();
            packages.push(Package { name: name.clone(), folder, direct, id: id.clone() });
        }
        names.insert(id, name);
    }
    let mut arrows = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let is_normal =
            |dependency: &&Value| dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
        let targets = node["deps"].as_array().unwrap().iter().filter(is_normal).map(|found| text(&found["pkg"]));
        arrows.insert(text(&node["id"]), targets.collect());
    }
    Workspace { packages, arrows, names }
}

impl Workspace {
    fn in_folder(&self, folder: &str) -> &Package {
        self.packages.iter().find(|package| package.folder == folder).unwrap_or_else(|| panic!("no crate in {folder}"))
    }

    /// The folders of our own crates that a crate names in its `[dependencies]`.
    fn folders_below(&self, package: &Package) -> BTreeSet<&str> {
        let ours = self.packages.iter().filter(|other| package.direct.contains(&other.name));
        ours.map(|other| other.folder.as_str()).collect()
    }

    fn folders(&self) -> Vec<&str> {
        self.packages.iter().map(|package| package.folder.as_str()).collect()
    }

    /// Names of everything a crate is built from, itself included.
    fn closure(&self, folder: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::from([self.in_folder(folder).id.as_str()]);
        let mut waiting: Vec<&str> = reached.iter().copied().collect();
        while let Some(id) = waiting.pop() {
            for next in &self.arrows[id] {
                if reached.insert(next) {
                    waiting.push(next);
                }
            }
        }
        reached.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

#[test]
fn crates_depend_in_one_direction() {
    let workspace = workspace();
    let allowed = dependency_table::of_architecture();
    let listed: BTreeSet<&str> = allowed.keys().map(String::as_str).collect();
    let found: BTreeSet<&str> = workspace.folders().into_iter().collect();
    assert_eq!(found, listed, "the table of ARCHITECTURE.md lists every crate of the workspace");
    for package in &workspace.packages {
        let strays: Vec<&str> = workspace
            .folders_below(package)
            .into_iter()
            .filter(|below| !allowed[&package.folder].contains(*below))
            .collect();
        assert!(strays.is_empty(), "ARCHITECTURE.md does not allow {} to depend on {strays:?}", package.folder);
    }
}

#[test]
fn apply_and_the_other_pure_rules_are_built_from_nothing_that_does_io() {
    let workspace = workspace();
    for folder in FREE_OF_IO {
        let closure = workspace.closure(folder);
        let found: Vec<&&str> = IO_CRATES.iter().filter(|banned| closure.contains(**banned)).collect();
        assert!(found.is_empty(), "{folder} is built from {found:?}");
    }
}

#[test]
fn each_library_stays_in_its_room() {
    let workspace = workspace();
    for (library, allowed) in ONLY_IN {
        for package in &workspace.packages {
            let is_allowed = !package.direct.contains(library) || allowed.contains(&package.name.as_str());
            assert!(is_allowed, "{} names {library}: only {allowed:?} may", package.name);
        }
    }
}

#[test]
fn what_has_one_home_is_written_nowhere_else() {
    let sources = production_sources(&workspace().folders());
    for (text, homes, reason) in TEXT_ONLY_IN {
        let offends =
            |source: &&Source| source.code.contains(text) && !homes.iter().any(|home| source.path.starts_with(home));
        let strays: Vec<&str> = sources.iter().filter(offends).map(|source| source.path.as_str()).collect();
        assert!(strays.is_empty(), "`{text}` belongs to {homes:?} ({reason}), and is also in {strays:?}");
        let is_used = sources.iter().any(|source| source.code.contains(text));
        assert!(is_used, "`{text}` is nowhere: this line of TEXT_ONLY_IN checks nothing");
    }
}

/// Each circle would tie its members together: none could be understood, tested or moved without the others.
#[test]
fn no_two_files_or_folders_of_a_crate_import_each_other() {
    let circles = import_circles::all(&production_sources(&workspace().folders()));
    assert!(circles.is_empty(), "import circles:\n{}", circles.join("\n"));
}
