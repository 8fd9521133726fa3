//! What the documents name exists: files behind links, paths in backticks, make targets.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut files = vec![
        root().join("README.md"),
        root().join("ARCHITECTURE.md"),
        root().join("CHANGELOG.md"),
        root().join("docs/simulation.md"),
    ];
    for entry in std::fs::read_dir(root().join("docs/decisions")).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.into_iter().map(|file| (file.clone(), std::fs::read_to_string(file).unwrap())).collect()
}

/// Every `[text](target)` that is no web address.
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
    let (all, own) = (bans("clippy.toml"), bans("raft-store/clippy.toml"));
    for (key, value) in &all {
        match value.as_array() {
            Some(banned) => banned.iter().for_each(|ban| assert!(own[key].as_array().unwrap().contains(ban), "{ban}")),
            None => assert_eq!(own[key], *value, "{key}"),
        }
    }
}
