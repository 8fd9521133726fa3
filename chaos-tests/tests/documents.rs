//! The documents are true: files behind links, paths in backticks and make targets exist, and every table that a
//! document repeats equals the one in the code.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clicktally_chaos_tests::checks::Invariant;
use clicktally_chaos_tests::simulation::mutants::{row_head, seeds_max};
use clicktally_proto::fault::Mutant;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut files = vec![
        root().join("README.md"),
        root().join("ARCHITECTURE.md"),
        root().join("CHANGELOG.md"),
        root().join("docs/configuration.md"),
        root().join("docs/new-command.md"),
        root().join("docs/simulation.md"),
    ];
    for entry in std::fs::read_dir(root().join("docs/decisions")).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.into_iter().map(|file| (file.clone(), std::fs::read_to_string(file).unwrap())).collect()
}

/// Every `[text](target)` that is not a web address.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

/// Everything in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn links_lead_to_files() {
    for (file, text) in documents() {
        for target in links(&text) {
            assert!(file.parent().unwrap().join(target).exists(), "{}: no {target}", file.display());
        }
    }
}

#[test]
fn paths_in_backticks_exist() {
    let folders = ["proto/", "raft-store/", "billing/", "api/", "node/", "deploy/", "chaos-tests/", "docs/"];
    for (file, text) in documents() {
        for path in quoted(&text).into_iter().filter(|quoted| folders.iter().any(|folder| quoted.starts_with(folder))) {
            assert!(root().join(path).exists(), "{}: no {path}", file.display());
        }
    }
}

#[test]
fn make_targets_exist() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for (file, text) in documents() {
        let named = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("make "))
            .chain(quoted(&text).into_iter().filter_map(|quoted| quoted.strip_prefix("make ")));
        for target in named.filter_map(|rest| rest.split_whitespace().next()) {
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{}: no make {target}", file.display());
        }
    }
}

/// clippy reads the nearest `clippy.toml` alone.
#[test]
fn a_crates_own_lints_repeat_the_bans_of_all() {
    let bans = |file: &str| -> toml::Table { std::fs::read_to_string(root().join(file)).unwrap().parse().unwrap() };
    let pairs = [("clippy.toml", "raft-store/clippy.toml"), ("raft-store/clippy.toml", "raft-store/state/clippy.toml")];
    for (outer, inner) in pairs {
        let (all, own) = (bans(outer), bans(inner));
        for (key, value) in &all {
            let Some(banned) = value.as_array() else {
                assert_eq!(own[key], *value, "{inner}: {key}");
                continue;
            };
            banned.iter().for_each(|ban| assert!(own[key].as_array().unwrap().contains(ban), "{inner}: {ban}"));
        }
    }
}

/// One space for every run of spaces and line breaks.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_invariants_of_the_architecture_are_those_of_the_table() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, list) = text.split_once("\n1. CT-1: ").expect("ARCHITECTURE.md lists the invariants");
    let (list, _) = list.split_once("\n\n").expect("the list ends with an empty line");
    let line = |invariant: &Invariant| format!("{}. {invariant}: {}", invariant.number(), invariant.statement());
    let expected: Vec<String> = Invariant::ALL.iter().map(line).collect();
    assert_eq!(in_one_line(&format!("1. CT-1: {list}")), in_one_line(&expected.join(" ")));
}

#[test]
fn every_invariant_has_a_file_of_its_number() {
    let folder = root().join("chaos-tests/src/checks");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let numbered = names.filter_map(|name| Some(name.strip_prefix("ct")?.split_once('_')?.0.parse::<u8>().unwrap()));
    let in_table = Invariant::ALL.iter().map(|invariant| invariant.number());
    assert_eq!(numbered.collect::<BTreeSet<_>>(), in_table.collect::<BTreeSet<_>>());
}

#[test]
fn the_mutants_of_the_document_are_those_of_the_table() {
    let text = std::fs::read_to_string(root().join("docs/simulation.md")).unwrap();
    let (_, table) = text.split_once("<!-- mutants: ").expect("the document has a table of mutants");
    let (table, _) = table.split_once("<!-- end of mutants -->").expect("the table has an end");
    let rows: Vec<&str> = table.lines().skip(3).collect();
    assert_eq!(rows.len(), Mutant::ALL.len(), "run make sim-mutants");
    for (row, &mutant) in rows.iter().zip(Mutant::ALL) {
        let (head, budget) = (row_head(mutant), format!(" {} |", seeds_max(mutant)));
        assert!(row.starts_with(&head) && row.ends_with(&budget), "run make sim-mutants: {row}");
    }
}

/// Every Rust source file below a folder.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_mutant_is_planted_where_a_mistake_can_be_made() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let is_plantable = |path: &PathBuf| {
        let path = path.strip_prefix(root()).unwrap();
        path != Path::new("proto/src/fault.rs") && path != Path::new("chaos-tests/src/simulation/mutants.rs")
    };
    let text: String = files.iter().filter(|path| is_plantable(path)).map(|path| read(path)).collect();
    let planted: Vec<&str> = text.lines().filter(|line| line.contains("is_broken(")).collect();
    for mutant in Mutant::ALL {
        let name = format!("Mutant::{mutant:?})");
        assert!(planted.iter().any(|line| line.contains(&name)), "is_broken({name} is nowhere: it cannot be found");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
