//! The table "may depend on" of `ARCHITECTURE.md`, which is the rule itself: no other list of crates exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::root;

const HEADER: &str = "| crate | may depend on |";
/// In place of a list: every crate of the rows above.
const ALL_ABOVE: &str = "all above";

/// The folders that each crate may name in its own `[dependencies]`, by its folder.
pub(crate) fn of_architecture() -> BTreeMap<String, BTreeSet<String>> {
    parse(&std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap())
}

fn parse(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, table) = page.split_once(HEADER).expect("ARCHITECTURE.md has the table of dependencies");
    let rows = table.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    let mut allowed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let [crates, below] = row.trim_matches('|').split('|').collect::<Vec<_>>()[..] else {
            panic!("the row has two columns: {row}")
        };
        let below = if below.trim() == ALL_ABOVE { allowed.keys().cloned().collect() } else { folders(below) };
        for folder in folders(crates) {
            let is_new = allowed.insert(folder.clone(), below.clone()).is_none();
            assert!(is_new, "{folder} has two rows");
        }
    }
    allowed
}

/// Folders are in backticks.
fn folders(column: &str) -> BTreeSet<String> {
    column.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn a_row_allows_what_it_lists_or_all_rows_above_it() {
    let page = format!(
        "{HEADER}\n|---|---|\n| `a`, `a/b` | \u{2014} |\n| `c` | `a` |\n| `d` | all above |\n\n| `e` | `d` |\n"
    );
    let allowed = parse(&page);
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(allowed.keys().cloned().collect::<BTreeSet<_>>(), set(&["a", "a/b", "c", "d"]));
    assert_eq!((&allowed["a/b"], &allowed["c"], &allowed["d"]), (&set(&[]), &set(&["a"]), &set(&["a", "a/b", "c"])));
}
