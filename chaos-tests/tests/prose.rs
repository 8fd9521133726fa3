//! The prose of the project can be read fast: comment lines fit a screen, and words that hide the actor are absent.
//!
//! The rules that a program can check are here. The others (subject first, one idea a sentence) are left to reviewers.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::fmt;
use std::path::{Path, PathBuf};

/// Migrations that databases have applied. sqlx compares the checksum of the whole file, comments included, so these
/// files may never change again.
const FROZEN: &[&str] = &["0001_reports_and_catalog.sql", "0003_billing.sql", "0004_unique_users_and_costs.sql"];

/// Characters, indentation included.
const COMMENT_LINE_MAX: usize = 120;

/// Words that hide who acts. Name the component instead.
const FORBIDDEN: &[&str] = &["whoever", "nobody", "somebody", "everybody", "nought", "thereof", "hereby"];

/// This file names the forbidden words.
const SELF: &str = "chaos-tests/tests/prose.rs";

/// The state of a scan for comments: whether the line before was inside `/* … */`.
#[derive(Default)]
struct Scan {
    is_in_block: bool,
}

/// How a kind of file marks its comments.
#[derive(Clone, Copy)]
enum Kind {
    /// `//`, and `/* … */`.
    Slashes,
    /// `#`.
    Hash,
    /// `--`.
    Dashes,
    /// All text is prose.
    Markdown,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `None` for a file whose prose is not checked.
fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs" | "proto" | "java") => Some(Kind::Slashes),
        Some("toml") => Some(Kind::Hash),
        Some("sql") => Some(Kind::Dashes),
        Some("md") => Some(Kind::Markdown),
        _ => (name == "Makefile").then_some(Kind::Hash),
    }
}

/// Every checked file below `folder`, in the order of names; hidden folders and build products are left out.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "data", "node_modules"].contains(&name) {
                files(&path, found);
            }
        } else if kind(&path).is_some() {
            found.push(path);
        }
    }
}

/// Where a marker begins a comment: outside string literals, and not within a URL.
fn comment_at(line: &str, marker: &str) -> Option<usize> {
    let mut is_in_string = false;
    let mut is_escaped = false;
    for (at, character) in line.char_indices() {
        if is_escaped {
            is_escaped = false;
            continue;
        }
        match character {
            '\\' if is_in_string => is_escaped = true,
            // A quote in single quotes is a character, not the beginning of a string.
            '"' if !line[..at].ends_with('\'') => is_in_string = !is_in_string,
            _ if !is_in_string && line[at..].starts_with(marker) && !line[..at].ends_with(':') => return Some(at),
            _ => {}
        }
    }
    None
}

impl Scan {
    /// The comment of a line, its marker included; all of it for Markdown.
    fn comment<'a>(&mut self, kind: Kind, line: &'a str) -> Option<&'a str> {
        let marker = match kind {
            Kind::Markdown => return Some(line),
            Kind::Hash => "#",
            Kind::Dashes => "--",
            Kind::Slashes => "//",
        };
        if self.is_in_block {
            self.is_in_block = !line.contains("*/");
            return Some(line);
        }
        if matches!(kind, Kind::Slashes) && line.trim_start().starts_with("/*") {
            self.is_in_block = !line.contains("*/");
            return Some(line);
        }
        comment_at(line, marker).map(|at| &line[at..])
    }
}

/// A line that cannot be wrapped: one word, such as a URL or a row of a diagram, is as long as a line.
fn is_unbreakable(line: &str) -> bool {
    line.split_whitespace().any(|word| word.chars().count() > COMMENT_LINE_MAX / 2)
}

/// A comment that begins as a fragment: a sentence begins with its subject.
fn begins_with_of(comment: &str) -> bool {
    ["/// Of ", "//! Of ", "// Of "].iter().any(|fragment| comment.starts_with(fragment))
}

/// What is in backticks is a name, not prose: PostgreSQL may run as the user `nobody`.
fn without_names(comment: &str) -> String {
    comment.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase()
}

/// What a line breaks, in words.
fn violations_of_line(kind: Kind, line: &str, comment: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let length = line.chars().count();
    let is_prose = matches!(kind, Kind::Markdown);
    if !is_prose && length > COMMENT_LINE_MAX && !is_unbreakable(line) {
        broken.push(format!("a comment line of {length} characters; at most {COMMENT_LINE_MAX}"));
    }
    let text = without_names(comment);
    let words: Vec<&str> = text.split(|character: char| !character.is_alphanumeric()).collect();
    for word in FORBIDDEN.iter().filter(|word| words.contains(*word)) {
        broken.push(format!("the word '{word}'; name the component"));
    }
    if !is_prose && begins_with_of(comment) {
        broken.push("a fragment that begins with 'Of'; write a sentence".to_owned());
    }
    broken
}

/// Every violation in one text, with the number of its line.
fn violations_of_text(kind: Kind, text: &str) -> Vec<(usize, String)> {
    let mut scan = Scan::default();
    let mut broken = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(comment) = scan.comment(kind, line) {
            broken.extend(violations_of_line(kind, line, comment).into_iter().map(|what| (number, what)));
        }
    }
    broken
}

/// A rule that a line of a file breaks.
struct Violation {
    file: PathBuf,
    /// From 1.
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Every violation in the project, by file and line.
fn violations() -> Vec<Violation> {
    let root = root();
    let mut paths = Vec::new();
    files(&root, &mut paths);
    assert!(paths.len() > 100, "only {} files below {}: the walk is broken", paths.len(), root.display());
    let mut all = Vec::new();
    for path in paths {
        let file = path.strip_prefix(&root).unwrap().to_owned();
        if file == Path::new(SELF) || FROZEN.iter().any(|frozen| file.ends_with(frozen)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let broken = violations_of_text(kind(&path).unwrap(), &text);
        all.extend(broken.into_iter().map(|(line, what)| Violation { file: file.clone(), line, what }));
    }
    all
}

#[test]
fn comments_and_documents_follow_the_rules_of_prose() {
    let broken: Vec<String> = violations().iter().map(|violation| format!("\n{violation}")).collect();
    assert!(broken.is_empty(), "{} violations:{}", broken.len(), broken.concat());
}

/// The check itself is checked: each rule is broken once, and each exception is used once.
#[test]
fn each_rule_is_noticed_and_each_exception_is_allowed() {
    let long = format!("    // {}", "word ".repeat(30));
    let url = format!("// see https://example.org/{}", "a/".repeat(60));
    let block = "/**\n * For whoever reads it.\n */\nint whoever = 1;";
    let rust = |text: &str| violations_of_text(Kind::Slashes, text).len();
    assert_eq!(rust(&long), 1);
    assert_eq!(rust(&url), 0);
    assert_eq!(rust(&format!("let text = \"{}\";", "word ".repeat(30))), 0, "code is rustfmt's business");
    assert_eq!(rust("/// Of the columns: clicks left."), 1);
    assert_eq!(rust("let x = 1; // Nobody reads it."), 1);
    assert_eq!(rust("let user = \"nobody\"; // The user `nobody` is packaged."), 0);
    assert_eq!(rust("let url = \"http://nobody\";"), 0);
    assert_eq!(rust(block), 1);
    assert_eq!(violations_of_text(Kind::Hash, "key = 1 # for somebody").len(), 1);
    assert_eq!(violations_of_text(Kind::Dashes, "SELECT 1; -- for everybody").len(), 1);
    assert_eq!(violations_of_text(Kind::Markdown, "Nobody, `whoever`.").len(), 1);
}

/// The verbs that clap derives from an enum's variants, as they are typed: `HotKeys` is `hot-keys`.
fn verbs(file: &str, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let (_, body) = text.split_once(&format!("enum {name} {{\n")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
    variants.filter(|line| line.starts_with(char::is_uppercase)).map(in_kebab_case).collect()
}

/// The identifier that a line begins with.
fn in_kebab_case(line: &str) -> String {
    let mut verb = String::new();
    for character in line.chars().take_while(char::is_ascii_alphanumeric) {
        if character.is_uppercase() && !verb.is_empty() {
            verb.push('-');
        }
        verb.push(character.to_ascii_lowercase());
    }
    verb
}

#[test]
fn every_verb_that_the_readme_names_exists() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let top = verbs("node/src/cli/mod.rs", "Verb");
    let cluster = verbs("node/src/cli/cluster.rs", "ClusterAction");
    let billing = verbs("node/src/cli/billing.rs", "BillingAction");
    let fenced = readme.split("```").skip(1).step_by(2).flat_map(str::lines);
    let mut named = 0;
    for line in fenced.filter_map(|line| line.strip_prefix("clicktally ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_known = top.iter().any(|verb| verb == words[0])
            && match words[0] {
                "cluster" => cluster.iter().any(|verb| verb == words[1]),
                "billing" => billing.iter().any(|verb| verb == words[1]),
                _ => true,
            };
        assert!(is_known, "README names `clicktally {line}`, which the CLI does not have");
        named += 1;
    }
    assert!(named > 3, "the README shows only {named} commands, so this test no longer finds them");
}
