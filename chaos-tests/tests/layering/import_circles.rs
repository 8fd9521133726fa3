//! Finds circles among the files of a crate, and among its top-level modules, by their `crate::…` paths.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Source;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// One line for each circle of any crate.
pub(crate) fn all(sources: &[Source]) -> Vec<String> {
    let folders: BTreeSet<&str> = sources.iter().map(|source| source.crate_folder.as_str()).collect();
    let mut circles = Vec::new();
    for folder in folders {
        let files = arrows_of(sources.iter().filter(|source| source.crate_folder == folder));
        let rooms = rooms_of(&files);
        for (what, arrows) in [("files", files), ("rooms", rooms)] {
            circles.extend(circles_of(&arrows).into_iter().map(|circle| format!("{folder}: {what} {circle:?}")));
        }
    }
    circles
}

/// `sink/window_rows.rs` is the module `sink::window_rows`; the crate's own root imports nothing here.
fn module_of(source: &Source) -> String {
    let inside = source.path.split_once("/src/").map_or("", |(_, inside)| inside);
    inside.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::")
}

fn arrows_of<'a>(sources: impl Iterator<Item = &'a Source>) -> Arrows {
    let sources: Vec<&Source> = sources.collect();
    let modules: BTreeSet<String> = sources.iter().map(|source| module_of(source)).collect();
    let mut arrows = Arrows::new();
    for source in sources {
        let from = module_of(source);
        let targets = imported_paths(&source.code).into_iter().filter_map(|path| longest_module(&path, &modules));
        arrows.insert(from.clone(), targets.filter(|target| *target != from).collect());
    }
    arrows
}

/// Every `crate::a::b::…`, also behind braces that begin right after `crate::`.
fn imported_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(grouped) = rest.strip_prefix('{') {
            let inside = grouped.split(';').next().unwrap_or("");
            paths.extend(inside.split(',').map(|part| leading_path(part.trim())));
        } else {
            paths.push(leading_path(rest));
        }
    }
    paths
}

fn leading_path(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')).collect()
}

fn longest_module(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
    (1..=parts.len()).rev().map(|length| parts[..length].join("::")).find(|candidate| modules.contains(candidate))
}

/// The same between the first parts of the modules' names.
fn rooms_of(files: &Arrows) -> Arrows {
    let room = |module: &str| module.split("::").next().unwrap_or(module).to_owned();
    let mut rooms = Arrows::new();
    for (from, targets) in files {
        let others = targets.iter().map(|target| room(target)).filter(|target| *target != room(from));
        rooms.entry(room(from)).or_default().extend(others);
    }
    rooms
}

/// Members of a circle reach each other; a module that reaches itself through others is in one.
fn circles_of(arrows: &Arrows) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = arrows.keys().map(|from| (from, reached(from, arrows))).collect();
    let mut circles = BTreeSet::new();
    for (from, targets) in &reach {
        if targets.contains(*from) {
            let is_tied = |other: &&&String| reach.get(**other).is_some_and(|back| back.contains(*from));
            circles.insert(targets.iter().filter(is_tied).map(|member| (*member).clone()).collect());
        }
    }
    circles
}

fn reached<'a>(from: &String, arrows: &'a Arrows) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&String> = arrows.get(from).into_iter().flatten().collect();
    while let Some(next) = waiting.pop() {
        if reached.insert(next) {
            waiting.extend(arrows.get(next).into_iter().flatten());
        }
    }
    reached
}

#[test]
fn a_planted_circle_is_found_and_a_chain_is_none() {
    let source = |path: &str, code: &str| Source {
        path: format!("planted/src/{path}"),
        crate_folder: "planted".to_owned(),
        code: code.to_owned(),
    };
    let chain = [source("a.rs", "use crate::b::B;"), source("b/mod.rs", ""), source("c.rs", "use crate::{a, b::B};")];
    assert!(all(&chain).is_empty(), "{:?}", all(&chain));
    let circle = [source("a.rs", "use crate::b::deep::B;"), source("b/deep.rs", "use crate::a::A;")];
    assert_eq!(all(&circle).len(), 2, "one between files, one between rooms: {:?}", all(&circle));
}
