//! The Rust sources of the workspace as text, without comments and without test modules.

use std::path::{Path, PathBuf};

pub(crate) struct Source {
    /// Relative to the root of the workspace, with `/`.
    pub path: String,
    /// The crate's folder, for example `proto/kafka`.
    pub crate_folder: String,
    pub code: String,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Everything below the `src` folders of these crates that is not a test.
pub(crate) fn production_sources(crate_folders: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for crate_folder in crate_folders {
        walk(&root().join(crate_folder).join("src"), &mut sources);
    }
    assert!(sources.len() > 200, "only {} sources were found", sources.len());
    let test_modules: Vec<String> = sources.iter().flat_map(test_modules_of).collect();
    sources.retain(|source| !test_modules.contains(&source.path));
    for source in &mut sources {
        source.code = without_tests_and_comments(&source.code);
    }
    sources
}

/// The files of modules that are declared behind `#[cfg(test)]`, for example `mod at_size;` of `lib.rs`.
fn test_modules_of(source: &Source) -> Vec<String> {
    let folder = match source.path.rsplit_once('/') {
        Some((folder, "lib.rs" | "mod.rs" | "main.rs")) => folder,
        _ => source.path.trim_end_matches(".rs"),
    };
    let declared = source.code.split("#[cfg(test)]\nmod ").skip(1).filter_map(|rest| {
        let (name, after) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?);
        after.starts_with(';').then_some(name)
    });
    declared.map(|name| format!("{folder}/{name}.rs")).collect()
}

fn walk(folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, sources);
            continue;
        }
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let Some((crate_folder, inside)) = relative.split_once("/src/") else { continue };
        let is_test =
            inside.split('/').any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"));
        if is_test || !relative.ends_with(".rs") {
            continue;
        }
        let code = std::fs::read_to_string(&path).unwrap();
        sources.push(Source { crate_folder: crate_folder.to_owned(), path: relative.clone(), code });
    }
}

/// Test modules with a body stand at the end of a file; what follows the first one is not production code.
fn without_tests_and_comments(text: &str) -> String {
    let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = production.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}
